"""What is drawn against the model's own probabilities, and against drawing one at a time."""

from __future__ import annotations

import pytest
import torch

from isoflop.alignment.answers import Answer, answer_rows, frozen_logprobs, score_answers
from isoflop.alignment.rollout import Sampling, choose, filtered, sample
from isoflop.alignment.verify_worlds import small_decoder
from isoflop.core.errors import DataError, RecipeError
from isoflop.models.generate import choose as choose_one

PROMPTS = [[1], [1, 2], [3, 4], [2, 2, 2]]
SAMPLINGS = [
    Sampling(8), Sampling(8, 0.7), Sampling(8, 1.4, 6), Sampling(8, 1.2, top_p=0.7),
    Sampling(8, 0.9, 9, 0.8),
]  # fmt: skip


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_the_sampler_and_the_trainer_say_the_same_of_every_token(sampling: Sampling) -> None:
    model = small_decoder(0, 40).float()
    drawn = sample(model, PROMPTS, sampling, [5, 6], seed=3, copies=6)
    again_BA = frozen_logprobs(model, drawn.rows(), sampling.temperature, batch=5)
    assert (again_BA - drawn.logprobs_BA).abs().max() < 1e-4
    # And by hand, a whole row at a time, without any cache.
    answer = drawn.answers[7]
    logits = model(torch.tensor([[*answer.prompt, *answer.ids]]))[0].double()
    for step, index in enumerate(answer.ids):
        at = logits[len(answer.prompt) - 1 + step] / sampling.temperature
        kept = filtered(at[None], sampling.top_k, sampling.top_p)
        if kept is not None:
            at = at.masked_fill(~kept[0], -torch.inf)
        assert at.log_softmax(-1)[index].item() == pytest.approx(
            drawn.logprobs_BA[7, step].item(), abs=1e-4
        )


def test_a_token_is_chosen_as_for_one_user() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 25, generator=draw, dtype=torch.float64) * 2
    places = (torch.arange(200) + 0.5) / 200
    for top_k, top_p in ((None, None), (5, None), (None, 0.6), (8, 0.5)):
        sampling = Sampling(1, 0.8, top_k, top_p)
        for row_V in logits:
            alone = [choose_one(row_V, 0.8, top_k, top_p, u) for u in places.tolist()]
            every, logprob, kept = choose(row_V.expand(200, -1), sampling, places)
            masked_V = row_V / 0.8 if kept is None else (row_V / 0.8).where(kept[0], -torch.inf)
            for index, share in enumerate(masked_V.softmax(-1).tolist()):
                for drawn in (alone, every.tolist()):
                    assert drawn.count(index) / 200 == pytest.approx(share, abs=0.0051)
                here = logprob[every == index].exp()
                torch.testing.assert_close(here, torch.full_like(here, share))


def test_the_likeliest_token_is_taken_at_temperature_zero() -> None:
    logits = torch.randn(9, 25, generator=torch.Generator().manual_seed(0))
    ids, logprobs, _ = choose(logits, Sampling(1, 0.0), torch.full((9,), 0.99))
    assert ids.tolist() == logits.argmax(-1).tolist()
    assert not logprobs.any()


def test_answers_end_at_a_stop_token_and_nowhere_behind_it() -> None:
    model = small_decoder(1, 12)
    drawn = sample(model, PROMPTS, Sampling(8), [5, 6], seed=0, copies=20)
    for answer, ended in zip(drawn.answers, drawn.ended_B.tolist(), strict=True):
        assert ended == (answer.ids[-1] in (5, 6))
        assert not set(answer.ids[:-1]) & {5, 6}
        assert ended or len(answer.ids) == 8
    assert 0 < drawn.ended_B.double().mean() < 1


def test_answers_come_in_the_order_of_their_prompts_and_do_not_depend_on_each_other() -> None:
    model = small_decoder(2, 30)
    drawn = sample(model, PROMPTS, Sampling(6), [5], seed=9, copies=3)
    assert [list(a.prompt) for a in drawn.answers] == [p for p in PROMPTS for _ in range(3)]
    again = sample(model, PROMPTS, Sampling(6), [5], seed=9, copies=3)
    assert again.answers == drawn.answers
    assert sample(model, PROMPTS, Sampling(6), [5], seed=8, copies=3).answers != drawn.answers
    others = sample(model, [*PROMPTS[:3], [7, 7, 7]], Sampling(6), [5], seed=9, copies=3)
    assert others.answers[:9] == drawn.answers[:9]


def test_an_answer_stops_where_the_context_does() -> None:
    model = small_decoder(3, 30)  # 16 positions
    drawn = sample(model, [[1] * 12], Sampling(20), (), seed=0, copies=2)
    assert [len(answer.ids) for answer in drawn.answers] == [5, 5]
    assert frozen_logprobs(model, drawn.rows()).shape == (2, 5)


def test_impossible_settings_and_prompts_are_refused() -> None:
    model = small_decoder(4, 30)
    with pytest.raises(RecipeError, match="top_k = 0"):
        sample(model, PROMPTS, Sampling(4, top_k=0))
    with pytest.raises(DataError, match="is empty"):
        sample(model, [[1], []], Sampling(4))
    with pytest.raises(DataError, match="has 17 tokens"):
        sample(model, [[1] * 17], Sampling(4))


def test_padding_and_its_id_mean_nothing_by_themselves() -> None:
    model = small_decoder(5, 30)
    answers = [Answer((1, 2), (0, 3)), Answer((4,), (0,)), Answer((1, 0), (0, 0, 0))]
    for pad in (0, 7):
        rows = answer_rows(answers, pad_id=pad)
        assert rows.lengths_B.tolist() == [2, 1, 3]
        found = score_answers(model, rows, entropy=True)
        assert found.entropy_BA is not None
        for row, answer in enumerate(answers):
            alone = model(torch.tensor([[*answer.prompt, *answer.ids]]))[0].log_softmax(-1)
            first = len(answer.prompt) - 1
            for step, index in enumerate(answer.ids):
                at = alone[first + step]
                assert found.logprobs_BA[row, step].item() == pytest.approx(at[index].item())
                assert found.entropy_BA[row, step].item() == pytest.approx(
                    -(at.exp() * at).sum().item()
                )
        assert not found.logprobs_BA[~rows.mask_BA].any()


def test_an_empty_answer_is_refused_by_its_number() -> None:
    with pytest.raises(DataError, match="answer 1"):
        answer_rows([Answer((1,), (2,)), Answer((1,), ())])
