"""The ladder to run before a large run."""

from __future__ import annotations

import pytest

from isoflop.planning.forecast import resolve_law
from isoflop.planning.rungs import REACH, first_ladder


def test_it_has_about_twelve_runs_of_at_least_three_sizes_and_horizons() -> None:
    ladder = first_ladder(resolve_law("besiroglu"), 1e21, 2048, 32768)
    assert ladder is not None
    assert ladder.runs == sum(len(rung.tokens) for rung in ladder.rungs) == 12
    assert len({rung.params for rung in ladder.rungs}) == 4
    assert all(len(set(rung.tokens)) == 3 for rung in ladder.rungs)


def test_its_cost_is_that_of_trunks_and_decays() -> None:
    ladder = first_ladder(resolve_law("besiroglu"), 1e21, 2048, 32768)
    assert ladder is not None
    by_hand = sum(
        6 * rung.params * (rung.tokens[2] + 0.2 * (rung.tokens[0] + rung.tokens[1]))
        for rung in ladder.rungs
    )
    assert ladder.flops == pytest.approx(by_hand)
    assert ladder.share == pytest.approx(by_hand / 1e21)
    assert ladder.share < 0.05


def test_the_target_lies_as_far_beyond_it_as_said() -> None:
    ladder = first_ladder(resolve_law("besiroglu"), 1e22, 2048, 32768)
    assert ladder is not None
    largest = max(6 * rung.params * max(rung.tokens) for rung in ladder.rungs)
    assert 1e22 / largest == pytest.approx(REACH, rel=0.01)


def test_a_run_too_small_for_a_ladder_has_none() -> None:
    assert first_ladder(resolve_law("besiroglu"), 1e13, 256, 4096) is None
