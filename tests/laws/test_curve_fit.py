"""The fit of curves against planted truth and against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from isoflop.core.errors import TableError
from isoflop.laws.curve import weak_belief
from isoflop.laws.curve_fit import Curve, Points, descend, points, scatter, starts
from isoflop.laws.forms import Array
from isoflop.laws.schedule_terms import Schedule, terms

TRUTH = np.array([np.log(2.6), np.log(0.4), np.log(0.45), np.log(0.13), 4.5, np.log(1.2), 0.5])
END = 20_000.0


def planted(schedule: Schedule, noise: float = 0.0, seed: int = 0) -> Curve:
    step = np.linspace(2000, END, 150)
    loss = terms(schedule, step, peak=1.0, unit=END).evaluate(TRUTH)[0]
    return Curve(
        "planted",
        step,
        loss * np.exp(noise * np.random.default_rng(seed).normal(size=150)),
        schedule,
    )


def schedules() -> list[Schedule]:
    stages = Schedule(np.array([0, 1000, 8000, 8001, END]), np.array([0, 1, 1, 0.3, 0.3]))
    cosine = Schedule.named("cosine", steps=END, peak=1.0, warmup=1000, final_fraction=0.1)
    return [cosine, Schedule.named("constant", steps=END, peak=1.0, warmup=1000), stages]


def best_of(parts: list[Points]) -> Array:
    belief = weak_belief(END)
    found = [descend(parts, belief, s) for s in starts(parts, belief)]
    return min(found, key=lambda o: o.objective).theta


def test_planted_curves_are_found_again() -> None:
    parts = [points(planted(s), peak=1.0, unit=END) for s in schedules()]
    theta = best_of(parts)
    at = Schedule.named("wsd", steps=END, peak=1.0, warmup=1000)
    end = [terms(at, [END], peak=1.0, unit=END).evaluate(t)[0][0] for t in (theta, TRUTH)]
    assert end[0] == pytest.approx(end[1], rel=3e-4)


def test_the_optimum_is_no_worse_than_a_general_minimiser_finds() -> None:
    parts = [points(planted(s, 1e-3, i), peak=1.0, unit=END) for i, s in enumerate(schedules())]
    belief = weak_belief(END)

    def objective(theta: Array) -> float:
        off = theta - belief.centre
        total = 0.5 * float(off @ belief.precision @ off)
        for part in parts:
            loss = part.terms.evaluate(theta)[0]
            if (loss <= 0).any():
                return 1e9
            size = np.abs(np.log(loss) - part.log_loss) / part.width
            huber = np.where(size <= 1, 0.5 * size**2, size - 0.5)
            total += float(part.weight @ huber)
        return total

    theta = best_of(parts)
    other = minimize(objective, theta, method="Nelder-Mead", options={"maxiter": 800})
    assert objective(theta) <= other.fun + 0.01


def test_scatter_sees_noise_and_not_the_curve() -> None:
    noisy = planted(schedules()[0], 0.01, 3)
    assert scatter(noisy.loss) == pytest.approx(0.01, rel=0.35)
    assert scatter(planted(schedules()[0]).loss) < 3e-4


def test_points_close_together_do_not_count_as_many() -> None:
    step = np.linspace(10_000, 11_000, 90)
    curve = Curve("short", step, np.linspace(3.0, 2.99, 90), schedules()[1])
    assert points(curve, peak=1.0, unit=END).weight.sum() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("step", "loss", "says"),
    [
        ([1, 2], [3.0], "two or more"),
        ([2, 2], [3.0, 3.0], "increase"),
        ([1, 2], [3.0, np.nan], "step 2 is nan"),
        ([1, 2], [3.0, -1.0], "step 2 is -1"),
    ],
)
def test_impossible_curves_are_refused(step: list[float], loss: list[float], says: str) -> None:
    with pytest.raises(TableError, match=says):
        Curve("bad", np.array(step), np.array(loss), schedules()[1])


def test_points_before_the_peak_are_left_out() -> None:
    curve = Curve("c", np.array([500.0, 1500, 2500]), np.array([9.0, 4.0, 3.8]), schedules()[1])
    assert curve.after_warmup().step.tolist() == [1500.0, 2500.0]
    with pytest.raises(TableError, match="after the warm-up"):
        Curve("c", np.array([500.0, 600]), np.array([9.0, 8.0]), schedules()[1]).after_warmup()
