"""Serving, marginal value and diminishing returns, against brute force and a published case."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoflop.core.errors import TableError
from isoflop.laws.fit import fit
from isoflop.laws.overtraining import (
    best_for_serving,
    diminishing_compute,
    loss_at,
    marginal,
    optimal_split,
    stop_tokens,
    tokens_for_loss,
)
from isoflop.laws.predict import Law
from isoflop.laws.published import published_law
from isoflop.laws.records import RunTable


@dataclass(frozen=True)
class Plain:
    """A law with nothing but its surface."""

    form: str
    parameters: dict[str, float]


BESIROGLU = published_law("besiroglu")
GAMMA = Plain("gamma", {"E": 1.7, "A": 5e5, "B": 1e6, "a": 0.8, "b": 0.7, "g": 0.45})


def test_sardanas_30b_for_ten_trillion_served_tokens_becomes_13_6b() -> None:
    # Sardana et al. 2023, section 2: 2.84 times the data, 28 % fewer FLOPs in all.
    parameters = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.336, "beta": 0.283}
    law = Plain("chinchilla", parameters)
    budgets = np.geomspace(1e22, 1e25, 20001)
    flops = next(c for c in budgets if optimal_split(law, c)[0] >= 30e9)
    _, tokens, loss = optimal_split(law, flops)
    best = best_for_serving(law, loss, 1e13)
    assert best.params == pytest.approx(13.6e9, rel=0.005)
    assert best.tokens / tokens == pytest.approx(2.84, rel=0.005)
    assert best.saving == pytest.approx(0.28, abs=0.003)
    assert best.compute_optimal_params == pytest.approx(30e9, rel=0.001)


@pytest.mark.parametrize("law", [BESIROGLU, GAMMA])
@pytest.mark.parametrize("served", [0.0, 1e12, 1e14])
def test_no_other_size_of_that_loss_is_cheaper_in_all(law: Plain, served: float) -> None:
    loss = optimal_split(law, 1e22)[2]
    best = best_for_serving(law, loss, served)
    assert loss_at(law, best.params, best.tokens) == pytest.approx(loss, rel=1e-9)
    for params in best.params * np.geomspace(0.2, 5.0, 60):
        tokens = tokens_for_loss(law, params, loss)
        if tokens is not None:
            total = 6 * params * tokens + 2 * params * served
            assert total >= best.total_flops * (1 - 1e-9)
    assert best.total_flops == pytest.approx(best.training_flops + best.serving_flops)


def test_without_serving_it_is_the_compute_optimum() -> None:
    params, tokens, loss = optimal_split(BESIROGLU, 1e22)
    best = best_for_serving(BESIROGLU, loss, 0.0)
    assert best.params == pytest.approx(params, rel=1e-4)
    assert best.tokens == pytest.approx(tokens, rel=1e-4)
    assert best.saving == pytest.approx(0.0, abs=1e-9)


def test_dearer_serving_counts_like_more_of_it() -> None:
    dear = best_for_serving(BESIROGLU, 2.2, 1e12, served_cost=10.0)
    assert dear.params == pytest.approx(best_for_serving(BESIROGLU, 2.2, 1e13).params)


@given(st.floats(7, 11), st.floats(9, 13))
def test_the_tokens_for_a_loss_reach_it(ln_params: float, ln_tokens: float) -> None:
    params, tokens = 10**ln_params, 10**ln_tokens
    for law in (BESIROGLU, GAMMA):
        again = tokens_for_loss(law, params, loss_at(law, params, tokens))
        assert again == pytest.approx(tokens, rel=1e-4)


def test_a_size_that_is_too_small_never_reaches_a_loss() -> None:
    assert tokens_for_loss(BESIROGLU, 1e8, 2.0) is None
    assert tokens_for_loss(BESIROGLU, 1e12, 1.8) is None


def test_marginal_values_are_the_slopes_of_the_loss() -> None:
    n, d, step = 7e9, 2e11, 1e-4
    for law in (BESIROGLU, GAMMA):
        value = marginal(law, n, d)
        by_n = (loss_at(law, n * (1 - step), d) - loss_at(law, n * (1 + step), d)) / (2 * step)
        by_d = (loss_at(law, n, d * (1 - step)) - loss_at(law, n, d * (1 + step))) / (2 * step)
        assert value.per_percent_params == pytest.approx(0.01 * by_n, rel=1e-4)
        assert value.per_percent_tokens == pytest.approx(0.01 * by_d, rel=1e-4)
        same = loss_at(law, n + 1e5, d - 1e5 * value.tokens_per_param)
        assert same == pytest.approx(value.loss, abs=1e-9)
        assert value.per_doubling_compute >= max(
            value.per_doubling_params, value.per_doubling_tokens
        )


def test_at_the_optimum_size_and_data_are_worth_the_same() -> None:
    params, tokens, _ = optimal_split(BESIROGLU, 1e22)
    value = marginal(BESIROGLU, params, tokens)
    assert value.per_percent_params == pytest.approx(value.per_percent_tokens)


def test_thresholds_lie_where_a_doubling_brings_exactly_the_gain() -> None:
    flops = diminishing_compute(BESIROGLU, 0.01)
    fall = optimal_split(BESIROGLU, flops)[2] - optimal_split(BESIROGLU, 2 * flops)[2]
    assert fall == pytest.approx(0.01)
    tokens = stop_tokens(BESIROGLU, 7e9, 0.01)
    fall = loss_at(BESIROGLU, 7e9, tokens) - loss_at(BESIROGLU, 7e9, 2 * tokens)
    assert fall == pytest.approx(0.01)
    with pytest.raises(TableError, match="nowhere"):
        stop_tokens(BESIROGLU, 7e9, 1e9)


def test_a_floor_cannot_be_undercut_and_a_law_must_be_a_surface() -> None:
    with pytest.raises(TableError, match=r"the law's floor is 1\.8172"):
        best_for_serving(BESIROGLU, 1.8, 1e12)
    with pytest.raises(TableError, match="served_tokens must not be negative"):
        best_for_serving(BESIROGLU, 2.0, -1.0)
    with pytest.raises(TableError, match="does not say how loss depends"):
        marginal(published_law("deepseek"), 1e9, 1e11)
    with pytest.raises(TableError, match="params must be positive"):
        marginal(BESIROGLU, -1e9, 1e11)


@pytest.fixture(scope="module")
def averaged() -> Law:
    grid = np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5))
    n, d = (axis.ravel() for axis in grid)
    loss = 1.7 + 400 * n**-0.34 + 410 * d**-0.28
    noise = np.exp(1e-3 * np.random.default_rng(0).standard_normal(n.size))
    return fit(RunTable.from_arrays(n, d, loss * noise), form="auto", bootstrap=200)


def test_an_average_serves_by_the_same_losses_as_it_foretells(averaged: Law) -> None:
    assert loss_at(averaged, 3e9, 2e11) == averaged.predict(3e9, 2e11).loss
    tokens = tokens_for_loss(averaged, 3e9, 2.2)
    assert tokens is not None
    assert averaged.predict(3e9, tokens).loss == pytest.approx(2.2, rel=1e-9)
    assert tokens_for_loss(averaged, 1e6, 2.2) is None
    best = best_for_serving(averaged, 2.2, 1e12)
    assert averaged.predict(best.params, best.tokens).loss == pytest.approx(2.2, rel=1e-6)
    for params in best.params * np.geomspace(0.5, 2.0, 21):
        needed = tokens_for_loss(averaged, params, 2.2)
        if needed is not None:
            assert 6 * params * needed + 2 * params * 1e12 >= best.total_flops * (1 - 1e-6)
    # The planted surface's own answer is near.
    planted = Plain("chinchilla", {"E": 1.7, "A": 400.0, "B": 410.0, "a": 0.34, "b": 0.28})
    assert best.params == pytest.approx(best_for_serving(planted, 2.2, 1e12).params, rel=0.25)


def test_the_margins_of_an_average_are_those_of_its_losses(averaged: Law) -> None:
    found = marginal(averaged, 1e9, 2e10)
    doubled = loss_at(averaged, 2e9, 2e10)
    assert found.per_doubling_params == pytest.approx(found.loss - doubled)
    planted = Plain("chinchilla", {"E": 1.7, "A": 400.0, "B": 410.0, "a": 0.34, "b": 0.28})
    truth = marginal(planted, 1e9, 2e10)
    assert found.per_percent_params == pytest.approx(truth.per_percent_params, rel=0.1)
    assert found.per_percent_tokens == pytest.approx(truth.per_percent_tokens, rel=0.1)
    with pytest.raises(TableError, match="floor is 1"):
        best_for_serving(averaged, 0.5, 1e12)
