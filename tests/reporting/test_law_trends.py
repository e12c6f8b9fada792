"""What the figures of every form show: the law's own answers, beside what was measured."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.laws import RunTable, fit, published_law
from isoflop.laws.hyperparameters import fit_optima
from isoflop.laws.mixture import fit_mixture
from isoflop.laws.power import fit_power
from isoflop.laws.predict import Law
from isoflop.laws.tables import FigureTable, MixtureTable
from isoflop.laws.tasks import fit_task
from isoflop.reporting import law_misfits, law_trends
from isoflop.reporting.law_data import frontier_of

SIZE = np.geomspace(1e6, 1e9, 9)


@pytest.fixture(scope="module")
def law() -> Law:
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 4)))
    rng = np.random.default_rng(0)
    loss = (1.7 + 400 * n**-0.34 + 410 * d**-0.28) * np.exp(1e-3 * rng.standard_normal(n.size))
    return fit(RunTable.from_arrays(n, d, loss), bootstrap=100)


def test_a_power_law_is_drawn_through_its_forecasts_and_runs() -> None:
    table = RunTable.from_arrays(SIZE, np.full(9, 1e12), 1.5 + (2e7 / SIZE) ** 0.3)
    law = fit_power(table, "kaplan-n", bootstrap=60)
    (trend,) = law_trends.figures_of(law, table=table).trends
    for x, value, low, high in trend.points[::9]:
        said = law.predict(params=x)
        assert (value, low, high) == (said.loss, said.low, said.high)
    assert [(x, y) for x, y, _ in trend.runs] == [
        (pytest.approx(n), pytest.approx(1.5 + (2e7 / n) ** 0.3)) for n in SIZE
    ]
    assert trend.points[-1][0] > 20 * SIZE[-1]


def test_a_forecast_is_marked_among_the_forecasts_around_it(law: Law) -> None:
    trend = law_trends.forecast_trend(law, {"params": 7e9, "tokens": 2e11, "level": 0.8}, 0.8)
    assert trend is not None
    said = law.predict(7e9, 2e11, 0.8)
    assert trend.asked == (2e11, said.loss, said.low, said.high)
    assert trend.points[0][0] < 2e11 < trend.points[-1][0]
    assert trend.points[0][1] > said.loss > trend.points[-1][1]
    assert "7\u202fB" in trend.title or "7 B" in trend.title


def test_a_published_law_without_errors_has_a_line_without_a_band() -> None:
    trend = law_trends.forecast_trend(
        published_law("hoffmann-3"), {"params": 1e9, "tokens": 2e10}, 0.9
    )
    assert trend is not None
    assert all(low == value == high for _, value, low, high in trend.points)


def test_the_frontier_reaches_the_run_that_was_asked_about(law: Law) -> None:
    near = frontier_of(law, law.domain["flops"])
    marked = law_trends.mark(near, law, 1e11, 1e13, 0.9)
    assert marked.asked is not None
    assert marked.asked[0] == 6e24
    assert marked.points[-1][0] == pytest.approx(6e24)
    assert law_trends.mark(near, law, 1e9, 1e11, 0.9).points == near.points


def test_task_scores_are_drawn_against_the_loss_and_beyond_the_best_run() -> None:
    loss = np.linspace(2.2, 3.6, 24)
    score = 0.25 + 0.65 / (1 + np.exp(4 * (loss - 2.6)))
    (trend,) = law_trends.figures_of(
        fit_task(loss, score, draws=60), table=FigureTable({"loss": loss, "score": score})
    ).trends
    assert not trend.log
    assert trend.points[0][0] < 2.2
    assert [(x, y) for x, y, _ in trend.runs] == list(zip(loss, score, strict=True))


def test_optima_that_follow_the_law_lie_on_it_and_one_off_by_half_lies_half_off() -> None:
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 4)))
    rate = 2.0 * n**-0.5 * d**0.1
    law = fit_optima(n, d, rate, bootstrap=60)
    moved = rate.copy()
    moved[3] *= 1.5
    misfit = law_misfits.optima_misfit(
        law, FigureTable({"params": n, "tokens": d, "learning_rate": moved})
    )
    assert misfit is not None
    ((name, points),) = misfit.groups
    assert name == "learning rate"
    off = [y for _, y, _ in points]
    assert off[3] == pytest.approx(50.0, abs=0.01)
    assert max(map(abs, off[:3])) < 0.01


def test_measured_mixtures_lie_as_far_off_as_they_were_moved() -> None:
    shares = np.random.default_rng(1).dirichlet(np.ones(3), size=16)
    losses = 2.0 + np.exp(shares @ np.array([[-1.0, 0.3], [0.2, -1.5], [0.1, 0.2]]))
    law = fit_mixture(shares, losses, training=("web", "code", "books"),
                      validation=("web", "code"), bootstrap=60)  # fmt: skip
    table = MixtureTable(shares, 1.02 * law.losses(shares), law.training, law.validation)
    misfit = law_misfits.mixture_misfit(law, table)
    assert [name for name, _ in misfit.groups] == ["web", "code"]
    assert all(y == pytest.approx(2.0) for _, points in misfit.groups for _, y, _ in points)


def test_a_surface_has_no_judged_rungs_of_its_own(law: Law) -> None:
    assert law_misfits.judged_rungs(law, None) == ()
