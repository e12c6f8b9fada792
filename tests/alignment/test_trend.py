"""Laws of the course of a run on curves that were planted."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.alignment.trend import bend_of, end_of_climb


def test_the_end_of_planted_sigmoids_lies_inside_the_interval_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    rounds, total = np.arange(1.0, 17.0), 50
    held, widths = 0, []
    for _ in range(100):
        low = draw.uniform(0.2, 0.6)
        high = draw.uniform(low + 0.2, 1.0)
        middle, slope = np.log(draw.uniform(3, 60)), draw.uniform(0.7, 3.0)

        def curve(at, low=low, high=high, middle=middle, slope=slope):  # type: ignore[no-untyped-def]
            return low + (high - low) / (1 + np.exp(-slope * (np.log(at) - middle)))

        error = 0.04
        seen = curve(rounds) + draw.normal(0, error, len(rounds))
        told = end_of_climb(rounds, seen, np.full(16, error), (low, high), total)
        truth = float(curve(np.arange(45.0, 51.0)).mean())
        held += told.low <= truth <= told.high
        widths.append((told.high - told.low) / (high - low))
        assert told.low < told.value < told.high
    assert held >= 85
    # An interval that held everything would be as wide as the anchors are apart.
    assert np.mean(widths) < 0.8


def test_a_climb_of_no_rounds_cannot_be_told() -> None:
    with pytest.raises(ValueError, match="no rounds"):
        end_of_climb(np.array([]), np.array([]), np.array([]), (0.0, 1.0), 10)


def test_a_planted_bend_is_found_with_its_peak() -> None:
    divergence = np.linspace(0.1, 20, 30)
    d = np.sqrt(divergence)
    bend = bend_of(divergence, 0.3 + d * (0.4 - 0.2 * np.log(d)), 0.3)
    assert bend.alpha == pytest.approx(0.4)
    assert bend.beta == pytest.approx(0.2)
    assert bend.error == pytest.approx(0, abs=1e-12)
    # dR/dd = α − β·log d − β = 0.
    assert bend.peak == pytest.approx(np.exp(2 * (0.4 - 0.2) / 0.2))
    dense = np.linspace(0.01, 60, 100_000)
    assert max(map(bend.at, dense)) == pytest.approx(bend.at(bend.peak or 0), abs=1e-9)
    assert bend.at(0.0) == 0.3


def test_what_only_rises_has_no_peak_and_two_points_no_bend() -> None:
    divergence = np.array([0.5, 1.0, 2.0, 4.0])
    assert bend_of(divergence, 0.1 + 0.2 * np.sqrt(divergence), 0.1).beta == pytest.approx(0)
    steeper = bend_of(divergence, 0.1 + 0.2 * divergence, 0.1)
    assert steeper.peak is None
    with pytest.raises(ValueError, match="three points"):
        bend_of(np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.1, 0.2]), 0.0)
