"""A run's end from finished runs of other sizes: planted falls on a line in ln size."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.laws.curve import CurveLaw, fit_curve
from isoflop.laws.curve_fit import Curve
from isoflop.laws.in_flight import belief_of, watch
from isoflop.laws.kin import outlook
from isoflop.laws.schedule_terms import Schedule, terms

SIZES = (1e7, 4e7, 1.6e8)
WARMUP = 300.0


def planted(size: float, kind: str, steps: float, rng: np.random.Generator) -> Curve:
    """A floor and an exponent that move with size, and 2 % too much loss after the warm-up."""
    schedule = Schedule.named(kind, steps=steps, peak=1.0, warmup=WARMUP)  # type: ignore[arg-type]
    x = np.log(size / 4e7)
    theta = np.log([2.8 * np.exp(-0.08 * x), 40.0, 0.5, 0.1 * np.exp(0.1 * x), 0.007, 1.5, 1.0])
    theta[-1] = 0.5
    step = np.linspace(WARMUP + 10, steps, 150)
    loss = terms(schedule, step, peak=1.0, unit=1.0).evaluate(theta)[0]
    early = 0.02 * (WARMUP / step) ** 4
    return Curve(kind, step, loss * np.exp(early + 0.001 * rng.standard_normal(150)), schedule)


@pytest.fixture(scope="module")
def laws() -> list[CurveLaw]:
    rng = np.random.default_rng(0)
    shapes = (("constant", 6000.0), ("cosine", 6000.0), ("wsd", 4000.0))
    return [fit_curve([planted(s, k, n, rng) for k, n in shapes]) for s in SIZES]


def seen(curve: Curve, count: int) -> Curve:
    return Curve("so far", curve.step[:count], curve.loss[:count], curve.schedule)


def test_the_misfit_after_the_warm_up_is_learnt(laws: list[CurveLaw]) -> None:
    for law in laws:
        assert law.noise["transient"] == pytest.approx(0.02, abs=0.01)


@pytest.mark.parametrize("out", [0, 1, 2])
def test_a_tenth_of_a_run_and_two_other_sizes_foretell_its_end(
    laws: list[CurveLaw], out: int
) -> None:
    others = [i for i in range(3) if i != out]
    known = belief_of([laws[i] for i in others], [SIZES[i] for i in others], SIZES[out])
    whole = planted(SIZES[out], "cosine", 6000.0, np.random.default_rng(7))
    end = float(np.exp(np.log(whole.loss[-3:]).mean()))
    found = watch(seen(whole, 15), belief=known)
    assert found.own.value == pytest.approx(end, rel=0.006)
    assert found.own.low < end < found.own.high


def test_the_forecast_starts_from_the_level_of_the_curve_itself(laws: list[CurveLaw]) -> None:
    """A run 5 % above its kin ends 5 % above what they would."""
    known = belief_of([laws[0], laws[2]], [SIZES[0], SIZES[2]], SIZES[1])
    part = seen(planted(SIZES[1], "cosine", 6000.0, np.random.default_rng(3)), 40).after_warmup()
    higher = Curve("higher", part.step, 1.05 * part.loss, part.schedule)
    plain, raised = outlook(part, known), outlook(higher, known)
    assert plain is not None
    assert raised is not None
    assert raised[0] - plain[0] == pytest.approx(np.log(1.05), abs=1e-9)


def test_one_other_size_says_less_than_two_and_none_says_nothing(laws: list[CurveLaw]) -> None:
    part = seen(planted(SIZES[1], "cosine", 6000.0, np.random.default_rng(3)), 40).after_warmup()
    both = outlook(part, belief_of([laws[0], laws[2]], [SIZES[0], SIZES[2]], SIZES[1]))
    one = outlook(part, belief_of([laws[0]], [SIZES[0]], SIZES[1]))
    assert both is not None
    assert one is not None
    assert one[1] > 2 * both[1]
    assert outlook(part, belief_of(laws)) is None
