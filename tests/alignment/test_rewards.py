"""Rule rewards by example, reward models through a directory, and their scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isoflop.alignment.answers import Answer
from isoflop.alignment.policy_recipe import GrpoRecipe, PromptData, RewardTerm
from isoflop.alignment.reward_model import RewardModel
from isoflop.alignment.reward_training import JudgedPairs, report
from isoflop.alignment.rewards import Attempt, reward_of
from isoflop.alignment.sft_recipe import StartConfig
from isoflop.alignment.verify_worlds import small_decoder
from isoflop.core.errors import RecipeError


def attempt(text: str, tokens: int = 3, **row: Any) -> Attempt:
    return Attempt(row, Answer((1,), (2,) * tokens), text)


def test_terms_add_up_with_their_weights() -> None:
    reward = reward_of(
        [
            RewardTerm("exact"),
            RewardTerm("regex", 0.5, pattern="The.*"),
            RewardTerm("length", 2.0, tokens=4),
        ],
        10,
    )
    found = reward(
        [
            attempt("The answer is 12.", 4, answer="12"),
            attempt("It is 12", 8, answer="12"),
            attempt("12", 6, answer="12"),
            attempt("The\nend", 3, verifier="[a-z]+"),
        ]
    )
    assert found.dtype == torch.float64
    assert found.tolist() == [1.5, -2.0, 0.0, 0.5]


def test_programs_are_right_if_they_pass_their_tests_and_can_do_no_harm(tmp_path: Path) -> None:
    tests = "assert double(3) == 6"
    target = tmp_path / "written"
    found = reward_of([RewardTerm("exact")], 10)(
        [
            attempt("def double(x):\n    return 2 * x", tests=tests),
            attempt("So:\n```python\ndef double(x):\n    return x + x\n```\n", tests=tests),
            attempt("def double(x):\n    return x * x", tests=tests),
            attempt("import sys; sys.exit(0)", tests=tests),
            attempt(f"open({str(target)!r}, 'w')\ndef double(x): return 6", tests=tests),
            attempt("12", answer="12"),
        ]
    )
    assert found.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    assert not target.exists()


def test_scores_are_brought_to_mean_zero_and_variance_one_and_stay_in_order() -> None:
    model = RewardModel(small_decoder(0, 20), ("helpful", "honest"))
    model.draw_heads(0)
    answers = [Answer((1,), (index, 5)) for index in range(20)]
    before = model.judge(answers, batch=7)
    model.standardise(before)
    after = model.judge(answers)
    torch.testing.assert_close(after.mean(0), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(after.var(0, unbiased=False), torch.ones(2, dtype=torch.float64))
    assert after.argsort(0).tolist() == before.argsort(0).tolist()
    model.standardise(after)
    torch.testing.assert_close(model.judge(answers), after)


def test_a_score_is_read_at_the_last_token_and_sees_no_padding() -> None:
    model = RewardModel(small_decoder(0, 20))
    model.draw_heads(1)
    short, long = Answer((1, 2), (3,)), Answer((1,), (4, 5, 6, 7))
    together = model.judge([short, long])[:, 0].tolist()
    alone = [model.judge([answer])[0, 0].item() for answer in (short, long)]
    assert together == pytest.approx(alone)
    state = model.decoder.hidden(torch.tensor([[1, 2, 3]]))[0, -1]
    assert alone[0] == pytest.approx((model.head.weight @ state).item())


def test_a_report_knows_noise_and_a_taste_for_length() -> None:
    draw = np.random.default_rng(0)
    gap = draw.normal(size=20_000) * 2
    wins = draw.random(20_000) < 1 / (1 + np.exp(-gap))
    gap = np.where(wins, gap, -gap)  # chosen less rejected
    honest = report(JudgedPairs(gap, np.zeros(20_000), draw.normal(size=20_000)))
    assert honest.calibration_error < 0.012
    assert abs(honest.length_correlation) < 0.03
    assert honest.accuracy == pytest.approx((gap > 0).mean())
    sure = report(JudgedPairs(3 * gap, np.zeros(20_000), np.sign(gap)))
    assert sure.calibration_error > 0.05
    assert sure.length_correlation > 0.7
    assert sure.length_accuracy == sure.accuracy


@pytest.mark.parametrize(
    ("term", "said"),
    [
        (RewardTerm("regex"), "needs pattern"),
        (RewardTerm("exact", tokens=3), "takes no tokens"),
        (RewardTerm("regex", pattern="("), "not a regular expression"),
        (RewardTerm("length", tokens=0), "at least 1"),
        (RewardTerm("exact", head="x"), "takes no head"),
    ],
)
def test_impossible_terms_are_refused(term: RewardTerm, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        GrpoRecipe(StartConfig(Path()), PromptData(Path()), rewards=(term,))
