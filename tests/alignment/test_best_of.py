"""Best of n and rejection sampling against their closed forms on a table, and what is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from isoflop.alignment.answers import Answer
from isoflop.alignment.best_of import Judged, best_and_worst, best_of_figures, kept_rows
from isoflop.alignment.forecast import best_of_divergence
from isoflop.alignment.iterate_recipe import KeepConfig
from isoflop.alignment.rewards import Attempt
from isoflop.alignment.rollout import Sampling, sample
from isoflop.alignment.verify_worlds import World, one_token_table

ACTIONS, PROMPTS, ANSWERS = 12, 3000, 8


@pytest.fixture(scope="module")
def world() -> World:
    return one_token_table(3, ACTIONS)


def policy(world: World) -> np.ndarray[Any, Any]:
    logits = world.model(torch.tensor([world.prompt]))[0, -1]
    return logits.softmax(-1).detach().numpy()  # type: ignore[no-any-return]


def drawn(world: World, answers: int = ANSWERS) -> list[Judged]:
    found = sample(world.model, [world.prompt] * PROMPTS, Sampling(1), seed=5, copies=answers)
    attempts = [Attempt({"prompt": "?"}, each, str(each.ids[0])) for each in found.answers]
    rewards = world.worth(attempts).tolist()
    return [
        Judged(tuple(attempts[i : i + answers]), tuple(rewards[i : i + answers]), (True,) * answers)
        for i in range(0, len(attempts), answers)
    ]


def of_best(world: World, n: int) -> np.ndarray[Any, Any]:
    """Chance that the best of n is each action: F(r)ⁿ − F(r−)ⁿ."""
    reward, chance = world.reward_N.numpy(), policy(world)
    order = np.argsort(reward)
    below = np.concatenate(([0.0], np.cumsum(chance[order])))
    out = np.zeros(ACTIONS)
    out[order] = np.diff(below**n)
    return out


def deviation(counts: np.ndarray[Any, Any], chance: np.ndarray[Any, Any]) -> float:
    some = chance * counts.sum() > 5
    seen, told = counts[some], chance[some] * counts.sum()
    return float(((seen - told) ** 2 / told).sum())


def test_the_best_of_n_is_drawn_as_often_as_the_order_statistics_say(world: World) -> None:
    rows, dropped = kept_rows(drawn(world), KeepConfig(), ids=True)
    assert not dropped
    assert len(rows) == PROMPTS
    picked = np.bincount([int(row["messages"][-1]["content"]) for row in rows], minlength=ACTIONS)
    bound = float(chi2.ppf(0.999, ACTIONS - 1))
    assert deviation(picked, of_best(world, ANSWERS)) < bound
    # The test can fail: the best of half as many or a plain draw is seen to be another policy.
    assert deviation(picked, of_best(world, ANSWERS // 2)) > bound
    assert deviation(picked, policy(world)) > bound


def test_its_reward_is_the_closed_forms_and_its_divergence_is_bounded_by_the_logarithm(
    world: World,
) -> None:
    figures = best_of_figures(drawn(world))
    reward, chance = world.reward_N.numpy(), policy(world)
    for n in (1, 2, 4, 8):
        best = of_best(world, n)
        truth, spread = float(best @ reward), float(best @ reward**2 - (best @ reward) ** 2)
        assert figures.best[str(n)] == pytest.approx(truth, abs=4 * (spread / PROMPTS) ** 0.5)
        some = best > 0
        divergence = float((best[some] * np.log(best[some] / chance[some])).sum())
        assert divergence <= figures.divergence[str(n)] + 1e-12
    assert figures.divergence["8"] == best_of_divergence(8) == np.log(8) - 7 / 8
    assert figures.ended == 1.0


def test_rejection_sampling_leaves_the_policy_restricted_to_what_earns_enough(
    world: World,
) -> None:
    least = float(world.reward_N.median())
    # One answer to a prompt: of several, equal ones would be kept once.
    rows, dropped = kept_rows(drawn(world, 1), KeepConfig(None, least), ids=True)
    picked = np.bincount([int(row["messages"][-1]["content"]) for row in rows], minlength=ACTIONS)
    good = world.reward_N.numpy() >= least
    assert picked[~good].sum() == 0
    assert dropped == {"no answer earns enough": PROMPTS - len(rows)}
    restricted = np.where(good, policy(world), 0.0)
    share = restricted.sum()
    error = (share * (1 - share) / PROMPTS) ** 0.5
    assert len(rows) / PROMPTS == pytest.approx(share, abs=4 * error)
    assert deviation(picked, restricted / share) < chi2.ppf(0.999, good.sum() - 1)


def judged(*answers: tuple[str, float, bool]) -> Judged:
    attempts = [
        Attempt({"prompt": "1+1", "answer": "2"}, Answer((1,), (*map(ord, text), 0)), text)
        for text, _, _ in answers
    ]
    return Judged(tuple(attempts), tuple(r for _, r, _ in answers), tuple(e for _, _, e in answers))


def test_answers_cut_off_empty_or_drawn_twice_are_not_learnt() -> None:
    each = judged(("b", 1, True), ("cut", 9, False), ("", 8, True), ("b", 1, True), ("a", 2, True))
    rows, _ = kept_rows([each], KeepConfig(None), ids=True)
    assert [row["messages"][-1]["content"] for row in rows] == ["a", "b"]
    assert rows[0]["messages"][-1]["ids"] == [ord("a")]
    assert rows[0]["reward"] == 2
    rows, _ = kept_rows([each], KeepConfig(1), ids=False)
    assert rows[0]["messages"][-1] == {"role": "assistant", "content": "a"}
    none = judged(("cut", 9, False))
    assert kept_rows([none], KeepConfig(), ids=True)[1] == {"no answer ended": 1}


def test_pairs_are_the_best_and_the_worst_where_they_differ() -> None:
    rows, dropped = best_and_worst(
        [
            judged(("x", 0, True), ("y", 2, True), ("z", 1, True)),
            judged(("x", 1, True), ("y", 1, True)),
            judged(("x", 1, False), ("y", 0, False)),
        ],
        ids=False,
    )
    assert [(r["chosen"][0]["content"], r["rejected"][0]["content"]) for r in rows] == [("y", "x")]
    assert dropped == {"all answers earn the same": 1, "no answer ended": 1}
