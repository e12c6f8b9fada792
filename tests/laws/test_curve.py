"""The curve law against public curves under schedules it has not seen, and planted truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isoflop.core.artifact import read_json
from isoflop.core.errors import ArtifactError, TableError
from isoflop.laws.curve import CurveLaw, fit_curve
from isoflop.laws.curve_fit import Curve
from isoflop.laws.schedule_terms import Schedule, terms

Curves = dict[str, dict[str, Curve]]
FITTED = ("cosine_24000", "constant_24000", "wsdcon_9")
# Data README: mean relative error of the multi-power law over whole curves, in per cent.
PUBLISHED = {"25M": 0.11, "100M": 0.14, "400M": 0.17}


@pytest.fixture(scope="module")
def laws(public_curves: Curves) -> dict[str, CurveLaw]:
    return {s: fit_curve([runs[n] for n in FITTED]) for s, runs in public_curves.items()}


def planted(schedule: Schedule, run: str = "planted", noise: float = 1e-3) -> Curve:
    truth = np.array([np.log(2.6), np.log(40), np.log(0.45), np.log(0.13), -5.0, np.log(1.2), 0.5])
    step = np.linspace(1500, schedule.end, 120)
    loss = terms(schedule, step, peak=1.0, unit=1.0).evaluate(truth)[0]
    rng = np.random.default_rng(len(run))
    return Curve(run, step, loss * np.exp(noise * rng.normal(size=120)), schedule)


def pair() -> list[Curve]:
    cosine = Schedule.named("cosine", steps=20_000, peak=1.0, warmup=1000, final_fraction=0.1)
    constant = Schedule.named("constant", steps=20_000, peak=1.0, warmup=1000)
    return [planted(cosine, "cosine"), planted(constant, "constant")]


@pytest.mark.parametrize("size", ["25M", "100M", "400M"])
def test_finals_under_other_schedules_and_three_times_longer_are_foretold_within_0_3_percent(
    public_curves: Curves, laws: dict[str, CurveLaw], size: str
) -> None:
    errors = []
    for name, curve in public_curves[size].items():
        if name not in FITTED:
            loss = laws[size].predict(curve.schedule, curve.step[-5:]).loss
            errors.append(100 * abs(loss.mean() / curve.loss[-5:].mean() - 1))
    assert len(errors) == 6
    assert np.mean(errors) < 0.3
    assert max(errors) < 0.6


@pytest.mark.parametrize("size", ["25M", "100M", "400M"])
def test_whole_curves_are_foretold_better_than_the_multi_power_law_was_published_to(
    public_curves: Curves, laws: dict[str, CurveLaw], size: str
) -> None:
    errors = [
        100 * np.abs(laws[size].predict(c.schedule, c.step).loss / c.loss - 1).mean()
        for name, c in public_curves[size].items()
        if name not in FITTED
    ]
    assert np.mean(errors) < PUBLISHED[size]


def test_intervals_hold_most_finals_they_were_not_fitted_to(
    public_curves: Curves, laws: dict[str, CurveLaw]
) -> None:
    held = []
    for size, runs in public_curves.items():
        for name, curve in runs.items():
            if name not in FITTED:
                end = laws[size].final(curve.schedule)
                held.append(end.low <= curve.loss[-5:].mean() <= end.high)
    assert np.mean(held) >= 0.8


def test_planted_curves_end_where_the_law_says(tmp_path: Path) -> None:
    law = fit_curve(pair())
    assert law.supported, law.verdict
    wsd = Schedule.named("wsd", steps=40_000, peak=1.0, warmup=1000)
    truth = planted(wsd, noise=0.0).loss[-1]
    end = law.final(wsd)
    assert end.value == pytest.approx(truth, rel=5e-3)
    assert end.low < truth < end.high
    assert law.predict(wsd, [40_000]).extrapolation["steps"] > 1.5


def test_a_law_comes_back_from_its_file(tmp_path: Path) -> None:
    law = fit_curve(pair(), source=[{"path": "a.csv", "sha256": "0"}])
    law.save(tmp_path / "law.json")
    document = read_json(tmp_path / "law.json")
    back = CurveLaw.from_document(document)
    wsd = Schedule.named("wsd", steps=20_000, peak=1.0, warmup=1000)
    assert back.final(wsd).value == law.final(wsd).value
    assert back.final(wsd).low == pytest.approx(law.final(wsd).low, rel=1e-6)
    with pytest.raises(ArtifactError, match="no domain"):
        CurveLaw.from_document({k: v for k, v in document.items() if k != "domain"})


def test_curves_without_a_falling_rate_do_not_support_a_law() -> None:
    law = fit_curve(pair()[1:])
    assert "no curve shows the learning rate falling" in law.verdict


def test_a_single_schedule_does_not_support_a_law() -> None:
    law = fit_curve(pair()[:1])
    assert "all curves have one schedule" in law.verdict


def test_curves_that_rise_do_not_support_a_law() -> None:
    curves = [
        Curve(c.run_id, c.step, c.loss * (1 + 0.3 * (c.step / 20_000) ** 4), c.schedule)
        for c in pair()
    ]
    curves[0] = Curve("falls", curves[0].step, pair()[0].loss, curves[0].schedule)
    assert "the form misses the curves" in fit_curve(curves).verdict


def test_a_curve_away_from_the_others_is_named() -> None:
    curves = pair()
    off = Curve("off", curves[1].step, curves[1].loss * 1.02, curves[1].schedule)
    assert any("off lies" in w for w in fit_curve([*curves, off]).warnings)


def test_too_few_points_are_refused() -> None:
    curve = pair()[0]
    with pytest.raises(TableError, match="too few for 7 parameters"):
        fit_curve([Curve("c", curve.step[:9], curve.loss[:9], curve.schedule)])
    with pytest.raises(TableError, match="no curves"):
        fit_curve([])
