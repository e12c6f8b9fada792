"""What the weak beliefs did to a fit, where runs are many and where they are few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isoflop.laws import RunTable, fit
from isoflop.laws.predict import Law, load_law


def table(sizes: int, horizons: int, noise: float) -> RunTable:
    rng = np.random.default_rng(5)
    n, d = (
        a.ravel()
        for a in np.meshgrid(np.geomspace(1e7, 1e9, sizes), np.geomspace(1e9, 1e11, horizons))
    )
    # A floor of 0.2 and exponents of 0.2: far from what the beliefs expect.
    loss = 0.2 + 60 * n**-0.2 + 100 * d**-0.2
    return RunTable.from_arrays(n, d, loss * np.exp(noise * rng.standard_normal(n.size)))


@pytest.mark.parametrize("form", ["gamma", "auto"])
def test_many_exact_runs_outweigh_the_beliefs_and_few_noisy_ones_do_not(form: str) -> None:
    many = fit(table(12, 12, 1e-4), form=form, bootstrap=100).beliefs
    few = fit(table(3, 3, 0.01), form=form, bootstrap=100).beliefs
    assert many is not None
    assert few is not None
    assert abs(many["shift_percent"]) < 0.3
    assert abs(few["shift_percent"]) > 2 * abs(many["shift_percent"])


def test_the_loose_forecast_is_that_of_a_fit_without_the_beliefs() -> None:
    runs = table(3, 4, 0.003)
    told = fit(runs, form="auto", bootstrap=400).beliefs
    assert told is not None
    loose: Law = fit(runs, form="auto", bootstrap=400, priors=False)
    assert loose.beliefs is None
    assert loose.predict(told["params"], told["tokens"]).loss == pytest.approx(
        told["loss_loose"], rel=0.02
    )


def test_a_large_effect_is_a_warning_and_the_law_keeps_it(tmp_path: Path) -> None:
    law = fit(table(3, 3, 0.01), form="gamma", bootstrap=100)
    assert any("weak beliefs" in w for w in law.warnings)
    law.save(tmp_path / "law.json")
    assert load_law(tmp_path / "law.json").beliefs == pytest.approx(law.beliefs)
