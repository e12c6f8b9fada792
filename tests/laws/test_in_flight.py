"""Runs in flight: public curves cut short, planted faults, and what a live caller needs."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws.curve import fit_curve
from isoflop.laws.curve_fit import Belief, Curve
from isoflop.laws.family import Estimate
from isoflop.laws.in_flight import Watch, belief_of, default_belief, watch
from isoflop.laws.schedule_terms import Schedule, terms

Curves = dict[str, dict[str, Curve]]
SIZES = {"25M": 25e6, "100M": 100e6, "400M": 400e6}


@pytest.fixture(scope="module")
def known(public_curves: Curves) -> dict[str, Belief]:
    """For each size, what the two others say."""
    laws = {size: fit_curve(list(runs.values())) for size, runs in public_curves.items()}
    return {
        size: belief_of(
            [laws[s] for s in laws if s != size], [SIZES[s] for s in laws if s != size], n
        )
        for size, n in SIZES.items()
    }


def so_far(curve: Curve, progress: float) -> Curve:
    count = max(3, int(np.searchsorted(curve.step, progress * curve.schedule.end)))
    return Curve(curve.run_id, curve.step[:count], curve.loss[:count], curve.schedule)


def end_of(curve: Curve) -> float:
    return float(curve.loss[-5:].mean())


def flight(curve: Curve, belief: Belief | None, target: float) -> list[Watch]:
    moments = np.arange(0.06, 0.98, 0.13)
    return [watch(so_far(curve, float(m)), belief=belief, target=target) for m in moments]


def planted(noise: float = 0.0) -> Curve:
    schedule = Schedule.named("cosine", steps=30_000, peak=1.0, warmup=1000, final_fraction=0.1)
    step = np.linspace(1200, 30_000, 400)
    loss = terms(schedule, step, peak=1.0, unit=1.0).evaluate(default_belief(30_000).centre)[0]
    noisy = loss * np.exp(noise * np.random.default_rng(0).normal(size=400))
    return Curve("planted", step, noisy, schedule)


@pytest.mark.parametrize(("progress", "within"), [(0.25, 0.4), (0.5, 0.25), (0.75, 0.2)])
def test_finals_are_foretold_from_part_of_the_curve(
    public_curves: Curves, known: dict[str, Belief], progress: float, within: float
) -> None:
    errors, held = [], []
    for size, runs in public_curves.items():
        for curve in runs.values():
            own = watch(so_far(curve, progress), belief=known[size]).own
            errors.append(100 * abs(own.value / end_of(curve) - 1))
            held.append(own.low <= end_of(curve) <= own.high)
    assert np.mean(errors) < within
    assert np.mean(held) >= 0.85


def test_a_tenth_of_the_curve_and_a_law_s_promise_foretell_the_final(
    public_curves: Curves, known: dict[str, Belief]
) -> None:
    # A tenth of these runs ends 0.1 to 2.4 warm-ups after the warm-up.
    rng = np.random.default_rng(0)
    errors, held = [], []
    for size, runs in public_curves.items():
        for curve in runs.values():
            value = end_of(curve) * float(np.exp(0.01 / 1.645 * rng.normal()))
            promise = Estimate(value, value * np.exp(-0.01), value * np.exp(0.01), 0.9)
            final = watch(so_far(curve, 0.1), belief=known[size], promise=promise).final
            errors.append(100 * abs(final.value / end_of(curve) - 1))
            held.append(final.low <= end_of(curve) <= final.high)
    assert np.mean(errors) < 0.6
    assert np.mean(held) >= 0.85


def test_healthy_runs_raise_no_alarm(public_curves: Curves, known: dict[str, Belief]) -> None:
    # The target is the very loss that the run ends with, the hardest that it still meets.
    facts = {
        curve.run_id: flight(curve, known[size], end_of(curve))
        for size, runs in public_curves.items()
        for name, curve in runs.items()
        if name in ("cosine_72000", "wsd_20000_24000")
    }
    assert [run for run, f in facts.items() if any(w.lost or w.departed for w in f)] == []


@pytest.mark.parametrize("name", ["cosine_24000", "wsd_20000_24000"])
def test_a_run_that_gets_two_percent_worse_is_seen(
    public_curves: Curves, known: dict[str, Belief], name: str
) -> None:
    curve = public_curves["100M"][name]
    worse = np.where(curve.step >= 0.4 * curve.schedule.end, 1.02, 1.0) * curve.loss
    facts = flight(Curve("w", curve.step, worse, curve.schedule), known["100M"], end_of(curve))
    before = [f for f in facts if f.progress < 0.4]
    assert not any(f.lost or f.departed for f in before)
    assert any(f.departed for f in facts if f.progress < 0.6)
    assert any(f.lost for f in facts if f.progress < 0.75)


def test_a_learning_rate_that_does_not_fall_as_planned_is_seen(
    public_curves: Curves, known: dict[str, Belief]
) -> None:
    runs = public_curves["100M"]
    plan, ran = runs["cosine_72000"].schedule, runs["constant_72000"]
    there = ran.step <= plan.end
    wrong = Curve("wrong", np.maximum(ran.step[there], plan.step[0]), ran.loss[there], plan)
    facts = flight(wrong, known["100M"], end_of(runs["cosine_72000"]))
    assert any(f.lost for f in facts if f.progress < 0.7)


def test_a_loss_that_turns_and_rises_is_seen_to_leave_its_course() -> None:
    # Repeated data do this (Muennighoff et al. 2023); the form can only fall.
    curve = planted(0.002)
    done = curve.step / curve.schedule.end
    rising = curve.loss * (1.0 + np.maximum(done - 0.3, 0.0) ** 2)
    facts = flight(Curve("rises", curve.step, rising, curve.schedule), None, 5.0)
    assert not any(f.departed for f in facts if f.progress < 0.3)
    assert any(f.departed and f.departure > 0 for f in facts if f.progress < 0.8)


def test_one_update_changes_nothing(public_curves: Curves) -> None:
    curve = so_far(public_curves["100M"]["cosine_72000"], 0.8)
    before = curve.loss.copy()
    first = watch(curve, target=2.9)
    assert watch(curve, target=2.9) == first
    np.testing.assert_array_equal(curve.loss, before)


def test_noise_in_training_losses_widens_but_does_not_mislead() -> None:
    truth = float(planted().loss[-1])
    quiet, loud = (watch(so_far(planted(n), 0.5)).own for n in (0.0, 0.03))
    assert quiet.value == pytest.approx(truth, rel=2e-3)
    assert loud.low < truth < loud.high
    assert loud.high / loud.low > quiet.high / quiet.low


def test_a_sharp_promise_rules_early_and_the_curve_alone_decides_what_is_lost() -> None:
    part = so_far(planted(0.01), 0.1)
    promise = Estimate(2.5, 2.495, 2.505, 0.9)
    fact = watch(part, promise=promise, target=2.5)
    alone = watch(part, target=2.5)
    assert fact.final.value == pytest.approx(2.5, rel=5e-3)
    assert fact.own == alone.own
    assert fact.missed == alone.missed


def test_the_gain_of_the_steps_left_shrinks_and_is_set_against_a_bound() -> None:
    early, late = (watch(so_far(planted(), p)) for p in (0.3, 0.9))
    assert early.gain > late.gain > 0.0
    assert early.reasons_to_stop() == ()
    assert "under the bound" in late.reasons_to_stop(10 * late.gain_per_step)[0]
    lost = watch(so_far(planted(), 0.9), target=0.9 * float(planted().loss[-1]))
    assert "cannot be reached any more" in lost.reasons_to_stop()[0]


def test_sizes_carry_what_changes_with_size(public_curves: Curves) -> None:
    three = ("cosine_24000", "constant_24000", "wsdcon_9")
    fitted = {s: fit_curve([runs[n] for n in three]) for s, runs in public_curves.items()}
    laws, truth = [fitted["25M"], fitted["100M"]], fitted["400M"].theta
    line = belief_of(laws, [25e6, 100e6], 400e6).centre
    level = belief_of(laws).centre
    falls = 3  # ln B, what a full fall of the rate brings
    assert abs(line[falls] - truth[falls]) < abs(level[falls] - truth[falls])


def test_what_cannot_be_watched_is_refused() -> None:
    curve = planted()
    with pytest.raises(TableError, match="say nothing of the end"):
        watch(Curve("c", curve.step[:2], curve.loss[:2], curve.schedule))
    with pytest.raises(TableError, match="the target must be a loss"):
        watch(curve, target=-1.0)
    with pytest.raises(TableError, match="level"):
        watch(curve, level=1.0)
    with pytest.raises(TableError, match="no curve laws"):
        belief_of([])
