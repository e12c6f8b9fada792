"""Verdicts and warnings: a table that cannot answer says so, and which run would help."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.laws import RunTable, fit, next_run


def grid(
    sizes: int, horizons: int, noise: float = 1e-3, scale: float = 1.0, shift: float = 0.0
) -> RunTable:
    n, d = (
        a.ravel()
        for a in np.meshgrid(np.geomspace(1e6, 8e6, sizes), np.geomspace(1e8, 8e8, horizons))
    )
    rng = np.random.default_rng(sizes * 10 + horizons)
    loss = 1.7 + 200 * n**-0.34 + 400 * d**-0.3
    return RunTable.from_arrays(
        n, d, (loss * scale + shift) * np.exp(noise * rng.standard_normal(n.size))
    )


def test_a_sound_ladder_is_supported_without_a_warning() -> None:
    law = fit(grid(4, 3), form="gamma", bootstrap=200)
    assert law.verdict == "supported"
    assert law.warnings == ()


def test_two_sizes_are_unsupported_and_a_third_size_is_proposed() -> None:
    table = grid(2, 6)
    law = fit(table, form="gamma", bootstrap=200)
    assert law.verdict.startswith("unsupported: 2 sizes cannot tell")
    assert "The run that would help most" in law.verdict
    proposed = next_run(law, table)
    assert min(abs(np.log(proposed.params / n)) for n in (1e6, 8e6)) > np.log(1.4)
    assert proposed.flops <= 1.01 * table.flops.max()


def test_two_horizons_are_unsupported() -> None:
    law = fit(grid(6, 2), form="gamma", bootstrap=200)
    assert law.verdict.startswith("unsupported: 2 horizons cannot tell")


def test_as_many_runs_as_parameters_are_unsupported() -> None:
    table = grid(3, 3)
    few = [0, 2, 4, 6, 8]
    small = RunTable.from_arrays(table.params[few], table.tokens[few], table.loss[few])
    assert "5 runs for 5 parameters" in fit(small, bootstrap=200).verdict


def test_sizes_that_grow_with_the_data_are_unsupported() -> None:
    n = np.geomspace(1e6, 1e8, 12)
    loss = 1.7 + 200 * n**-0.34 + 400 * (20 * n) ** -0.3
    law = fit(RunTable.from_arrays(n, 20 * n, loss), form="gamma", bootstrap=200)
    assert "change in step" in law.verdict


def test_rows_left_out_are_told_in_the_law() -> None:
    table = grid(4, 3)
    params = table.params.copy()
    params[2] = -1.0
    law = fit(RunTable.from_arrays(params, table.tokens, table.loss), bootstrap=200)
    assert law.n_runs == 11
    assert any("1 row left out: row 2: params is -1" in w for w in law.warnings)


def test_runs_of_another_kind_below_the_floor_are_named_and_not_followed() -> None:
    table = grid(6, 6)
    loss = table.loss.copy()
    loss[[3, 20]] = 0.2
    law = fit(RunTable.from_arrays(table.params, table.tokens, loss), "gamma", bootstrap=200)
    assert any("2 of 36 runs lie below the fitted floor" in w for w in law.warnings)
    assert any("row 20" in w and "row 3" in w for w in law.warnings)
    truth = 1.7 + 200 * 3e7**-0.34 + 400 * 3e9**-0.3
    promise = law.predict(3e7, 3e9)
    assert promise.low < truth < promise.high
    assert promise.loss == pytest.approx(truth, rel=0.05)


def test_a_table_in_perplexity_too_small_to_be_refused_is_unsupported() -> None:
    table = grid(6, 6)
    perplexity = RunTable.from_arrays(table.params, table.tokens, np.exp(table.loss - 2.8))
    for form in ("chinchilla", "gamma"):
        assert fit(perplexity, form, bootstrap=200).verdict.startswith("unsupported: the ")


def test_a_form_that_does_not_fit_is_unsupported() -> None:
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 8), np.geomspace(1e8, 1e11, 8)))
    loss = 1.7 + (600 * n**-0.8 + 3000 * d**-0.7) ** 0.3
    law = fit(RunTable.from_arrays(n, d, loss), bootstrap=200)
    assert "the form misses" in law.verdict
    assert "try the gamma form" in law.verdict


def test_the_proposed_run_sharpens_the_forecast_more_than_repeating_the_smallest() -> None:
    table = grid(4, 3)
    law = fit(table, form="gamma", bootstrap=400)
    best = next_run(law, table)
    assert 0.05 < best.gain < 1.0

    def width(params: float, tokens: float) -> float:
        truth = 1.7 + 200 * params**-0.34 + 400 * tokens**-0.3
        wider = RunTable.from_arrays(
            [*table.params, params], [*table.tokens, tokens], [*table.loss, truth]
        )
        promise = fit(wider, form="gamma", bootstrap=1500).predict(2.6e7, 2.6e9)
        return promise.high - promise.low

    assert width(best.params, best.tokens) < width(1e6, 1e8)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_the_unit_of_the_loss_does_not_matter(factor: float) -> None:
    nats = fit(grid(4, 3), form="gamma", bootstrap=200).predict(1e7, 1e9)
    other = fit(grid(4, 3, scale=factor), form="gamma", bootstrap=200).predict(1e7, 1e9)
    assert other.loss == pytest.approx(factor * nats.loss, rel=1e-6)
    assert other.high == pytest.approx(factor * nats.high, rel=1e-4)


def test_a_form_without_a_floor_is_not_warned_about_its_floor() -> None:
    params = np.repeat([7e4, 2e5, 4e5], 4)
    tokens = np.tile([1e6, 1.5e6, 2.2e6, 3.2e6], 3)
    loss = (4e4 * params**-0.75 + 7e5 * tokens**-0.7) ** 0.27
    law = fit(RunTable.from_arrays(params, tokens, loss), form="kaplan-nd", objective="lsq")
    assert not any("floor" in warning for warning in law.warnings)
    assert law.predict(7e5, 4e6).loss == pytest.approx(
        (4e4 * 7e5**-0.75 + 7e5 * 4e6**-0.7) ** 0.27, rel=5e-3
    )


@pytest.mark.parametrize("form", ["gamma", "auto"])
def test_a_size_tuned_better_than_its_neighbours_is_unsupported(form: str) -> None:
    n, d = (
        a.ravel() for a in np.meshgrid(np.geomspace(1e6, 6.4e7, 7), np.geomspace(1e9, 6.4e10, 7))
    )
    noise = 0.002 * np.random.default_rng(0).standard_normal(n.size)
    loss = (1.7 + 200 * n**-0.34 + 400 * d**-0.3) * np.exp(noise)
    even = fit(RunTable.from_arrays(n, d, loss), form=form, bootstrap=200)
    assert even.verdict == "supported"
    tuned = np.where(np.isclose(n, np.unique(n)[4]), 0.96, 1.0)
    uneven = fit(RunTable.from_arrays(n, d, loss * tuned), form=form, bootstrap=200)
    assert "look tuned differently" in uneven.verdict
    assert f"{np.unique(n)[4]:.3g}" in uneven.verdict
