"""`isoflop verify` passes, and each of its oracles can fail: mutants do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from isoflop.alignment import answers, dpo, grpo, rollout, rounds, verify_preference
from isoflop.alignment.answers import Answer, AnswerRows, answer_rows
from isoflop.alignment.rollout import Sampling
from isoflop.alignment.verify import verify
from isoflop.alignment.verify_policy import (
    BETA,
    GRPO,
    PPO,
    RLOO,
    Method,
    chi_square_bound,
    learn,
    sampler_checks,
)
from isoflop.alignment.verify_preference import dpo_checks, reward_checks, sft_check
from isoflop.alignment.verify_worlds import (
    Outcome,
    World,
    exact_logprobs,
    letters,
    one_token_table,
    outcome,
)

SHORT = replace(GRPO, rounds=80, answers=256)


def table_passes(method: Method = SHORT) -> bool:
    """Whether the table's oracle holds, with the bounds of a quarter of the draws."""
    found = learn(one_token_table(0, 80), method, 0)
    return found.closed > 0.98 and found.kl < 0.04


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_oracle_holds(seed: int) -> None:
    verdict = verify(seed)
    assert verdict.passed, [check for check in verdict.checks if not check.passed]
    assert len(verdict.checks) == 20


def test_the_table_is_learnt_in_few_rounds() -> None:
    assert table_passes()


def test_the_closed_form_is_the_best_policy_there_is() -> None:
    world = letters(0)
    total = exact_logprobs(world.model, world).exp().sum().item()
    assert total == pytest.approx(1.0), "all answers were counted"
    found = outcome(world.model, world, BETA)
    assert (found.closed, found.moved) == (pytest.approx(0.0), pytest.approx(0.0, abs=1e-12))
    assert found.kl > 0.1


def test_the_bound_of_chi_square_is_scipys() -> None:
    from scipy import stats

    for freedom in (9, 11, 59, 200):
        right = stats.chi2.ppf(0.999, freedom)
        assert chi_square_bound(freedom) == pytest.approx(right, rel=1e-9)


def test_texts_pairs_and_scores_pass() -> None:
    checks = [sft_check(0), *dpo_checks(0), *reward_checks(0)]
    assert all(check.passed for check in checks), checks


# --- mutants ----------------------------------------------------------------------------------


def failed(checks: Iterator[Any]) -> list[str]:
    return [check.oracle for check in checks if not check.passed]


def test_dpo_without_a_reference_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(model: Any, rows: AnswerRows) -> Tensor:
        return torch.zeros(len(rows), dtype=torch.float64)

    monkeypatch.setattr(verify_preference, "reference_logprobs", none)
    assert len(failed(dpo_checks(0))) == 3


def test_dpo_with_twice_the_beta_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = dpo.dpo_loss
    monkeypatch.setattr(dpo, "dpo_loss", lambda pairs, beta, e: right(pairs, 2 * beta, e))
    assert len(failed(dpo_checks(0))) == 2


def test_a_temperature_that_the_trainer_forgets_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = answers.score_answers
    monkeypatch.setattr(
        answers, "score_answers", lambda model, rows, heat, entropy=False: right(model, rows)
    )
    found = failed(sampler_checks(0))
    assert [name.partition(", ")[2] for name in found] == [
        "temperature 0.7", "temperature 1.4, top-k 9", "temperature 1.2, top-p 0.8",
    ]  # fmt: skip


def greedily(logits_BV: Tensor, sampling: Sampling, uniform_B: Tensor) -> Any:
    chosen_B = logits_BV.argmax(-1)
    logprobs_BV = (logits_BV.double() / sampling.temperature).log_softmax(-1)
    return chosen_B, logprobs_BV.gather(-1, chosen_B[:, None])[:, 0], None


def test_greedy_rollouts_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "choose", greedily)
    assert "tokens are drawn as often as their probability says" in failed(sampler_checks(0))
    assert not table_passes(replace(SHORT, rounds=20))


def test_twice_the_divergence_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = rounds.Drawn.divergence_BA
    monkeypatch.setattr(rounds.Drawn, "divergence_BA", lambda drawn: 2 * right(drawn))
    assert not table_passes()


def test_a_negated_or_shuffled_reward_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = World.worth
    monkeypatch.setattr(World, "worth", lambda world, some: -right(world, some))
    assert not table_passes(replace(SHORT, rounds=20))
    monkeypatch.setattr(World, "worth", lambda world, some: right(world, some).roll(1))
    assert not table_passes(replace(SHORT, rounds=20))


def test_a_mask_by_the_padding_id_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_id(some: Sequence[Answer], pad_id: int = 0) -> AnswerRows:
        rows = answer_rows(some, pad_id)
        return replace(rows, mask_BA=rows.mask_BA & (rows.answer_BA != pad_id))

    monkeypatch.setattr(rollout, "answer_rows", by_id)
    assert not table_passes()


def test_an_advantage_that_is_divided_by_the_spread_of_its_group_leads_elsewhere() -> None:
    """Not with one prompt, where it only scales: with two whose rewards differ in spread."""
    wide = torch.tensor([[0.0, 10.0], [0.0, 1.0]], dtype=torch.float64)
    plain, divided = grpo.group_advantages(wide), grpo.group_advantages(wide, True)
    assert (plain[0] / plain[1]).tolist() == [10.0, 10.0]
    torch.testing.assert_close(divided[0], divided[1], rtol=1e-3, atol=0)


# --- controls ---------------------------------------------------------------------------------


def test_a_reward_by_chance_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)

    def by_chance(world: World, some: list[Any]) -> Tensor:
        return torch.randn(len(some), generator=draw, dtype=torch.float64)

    monkeypatch.setattr(World, "worth", by_chance)
    found = learn(one_token_table(0, 80), replace(SHORT, rounds=40), 0)
    assert abs(found.closed) < 0.1
    assert found.moved < 0.05


def test_a_large_beta_keeps_the_policy_where_it_is() -> None:
    found: Outcome = learn(one_token_table(0, 80), replace(SHORT, beta=1e4, rounds=40), 0)
    assert found.moved < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("method", [PPO, RLOO, replace(PPO, epochs=2, minibatches=2)], ids=str)
def test_the_table_is_learnt_by_every_method_and_seed(method: Method, seed: int) -> None:
    found = learn(one_token_table(seed, 80), method, seed)
    assert found.closed >= 0.995
    assert found.kl <= 0.01
