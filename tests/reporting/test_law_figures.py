import itertools
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from isoflop.core.errors import TableError
from isoflop.core.ledger import Promise, Tally
from isoflop.laws import design, isoflop
from isoflop.laws.backtest import Backtest, Scored
from isoflop.laws.curve_fit import Curve
from isoflop.laws.fit import fit
from isoflop.laws.hyperparameters import fit_optima, fit_sweep
from isoflop.laws.isoflop_law import fit_isoflop
from isoflop.laws.power import fit_power
from isoflop.laws.predict import Law
from isoflop.laws.published import published_law
from isoflop.laws.records import RunTable
from isoflop.laws.schedule_terms import Schedule
from isoflop.laws.tables import FigureTable
from isoflop.reporting import charts, fit_figures, law_data, law_figures, law_plot, scales
from isoflop.reporting.charts import Canvas
from isoflop.reporting.collect import collect
from isoflop.reporting.law_records import (
    Basin,
    Budget,
    Coverage,
    Division,
    Fan,
    Frontier,
    KnownRun,
    Profile,
)
from isoflop.reporting.page import build
from isoflop.reporting.records import Report, Rung

WIDE, NARROW = Canvas(820, 420, "wide"), Canvas(360, 300, "narrow")
SPACE = {"s": "http://www.w3.org/2000/svg"}
SIZES = (1e6, 3e6, 1e7, 3e7, 1e8)


def planted(params: float, tokens: float) -> float:
    return 1.7 + 400 / params**0.34 + 1000 / tokens**0.34


@pytest.fixture(scope="module")
def table() -> RunTable:
    """Five budgets of six sizes each, without noise but for a hair that keeps a fit busy."""
    rng = np.random.default_rng(3)
    rows = []
    for flops in np.geomspace(1e15, 1e17, 5):
        best = 0.08 * flops**0.5
        for size in best * np.geomspace(1 / 3, 3, 6):
            tokens = flops / (6 * size)
            rows.append((size, tokens, planted(size, tokens) * math.exp(5e-4 * rng.normal())))
    params, tokens_, loss = np.array(rows).T
    return RunTable.from_arrays(params, tokens_, loss)


@pytest.fixture(scope="module")
def law(table: RunTable) -> Law:
    return fit(table, bootstrap=100)


RUNGS = (
    Rung("a", 1e4, 1e6, 3.0, 1e11, predicted=2.97),
    Rung("b", 1e4, 1e7, 2.5, 1e12, predicted=2.5),
    Rung("c", 1e5, 1e7, 2.0, 1e13, predicted=2.02),
)
FRONTIER = Frontier(
    tuple((10.0**e, 4.0 - 0.5 * (e - 11), 3.8 - 0.5 * (e - 11), 4.3 - 0.5 * (e - 11))
          for e in range(11, 15)),
    0.9,
    1e13,
)  # fmt: skip
BUDGETS = tuple(
    Budget(
        c,
        ((n / 3, 2.1), (n, 2.0), (3 * n, 2.1)),
        tuple((n * 3.0 ** (k / 4), 2.0 + 0.1 * (k / 4) ** 2) for k in range(-4, 5)),
        (n, 2.0),
    )
    for c, n in ((1e15, 1e6), (1e17, 1e7))
)
DIVISIONS = (
    Division("half", tuple((c, c**0.5, c**0.5 / 6) for c in (1e18, 1e20, 1e22)), False, None),
    Division("own", tuple((c, c**0.7 / 1e3, c**0.3 * 1e3 / 6) for c in (1e18, 1e20)), True,
             (1e18, 1e19)),
)  # fmt: skip
MODELS = (KnownRun("GPT-3", 3.14e21, 1.7e10, 3e10), KnownRun("<Other>", 1e21, 1e9, 1.6e11))
PROFILE = Profile("E", 2.0, tuple((2 + k / 10, (k / 2) ** 2) for k in range(-6, 7)), 1.6, None)
BASIN = Basin(1e8, 2e9, ((1e-4, 1.0), (1e-3, 0.0), (1e-2, 9.0)),
              tuple((1e-3 * 10.0 ** (k / 8), (k / 8) ** 2) for k in range(-8, 9)), 1e-3,
              (3e-4, 3e-3))  # fmt: skip
FAN = Fan(
    "run", 100.0, tuple((float(s), 2 + 3 / s) for s in range(1, 101)),
    ((25.0, 2.1, 1.9, 2.4), (50.0, 2.05, 2.0, 2.1), (100.0, 2.03, 2.02, 2.04)), 0.9,
    outcome=2.03, promise=(2.0, 1.9, 2.2), target=2.2,
)  # fmt: skip
BACKTEST = Backtest(
    *("gamma", "huber", 0.9, 10, 2, 20.0, 1.0, 1.0, 1.0, 2.0, 5.0, 0.5, "supported", ()),
    (
        Scored("in", 1e8, 1e9, 6e17, 2.02, 2.0, 1.9, 2.1, True),
        Scored("out", 1e8, 2e9, 1.2e18, 2.4, 2.0, 1.9, 2.1, False),
    ),
)
CHARTS = {
    "frontier": lambda c: law_figures.frontier_chart(FRONTIER, RUNGS, c),
    "isoflop": lambda c: law_figures.isoflop_chart(BUDGETS, c),
    "size": lambda c: law_figures.allocation_chart(DIVISIONS, MODELS, "params", c),
    "horizon": lambda c: law_figures.allocation_chart(DIVISIONS, MODELS, "tokens", c),
    "misfit": lambda c: law_figures.misfit_chart(RUNGS, c),
    "profiles": lambda c: fit_figures.profile_chart((PROFILE,) * 5, c),
    "basins": lambda c: fit_figures.basin_chart((BASIN, replace(BASIN, params=2e8)), c),
    "fan": lambda c: fit_figures.fan_chart(FAN, c),
    "backtest": lambda c: fit_figures.backtest_chart(BACKTEST, c),
    "calibration": lambda c: fit_figures.calibration_chart([Coverage(0.9, 42, 50)], c),
}


def lines_of(root: ET.Element, class_: str) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", p.attrib["d"])]
        for p in root.iterfind(".//s:path", SPACE)
        if set(class_.split()) <= set(p.attrib["class"].split())
    ]


def circles(root: ET.Element, class_: str) -> list[tuple[float, float]]:
    return [
        (float(c.attrib["cx"]), float(c.attrib["cy"]))
        for c in root.iterfind(".//s:circle", SPACE)
        if set(class_.split()) <= set(c.attrib["class"].split())
    ]


def slope(line: list[tuple[float, float]]) -> float:
    return (line[-1][1] - line[0][1]) / (line[-1][0] - line[0][0])


# --- every chart ---------------------------------------------------------------------------


@pytest.mark.parametrize("canvas", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", CHARTS)
def test_every_figure_has_a_name_and_a_description_and_stays_in_its_frame(
    name: str, canvas: Canvas
) -> None:
    chart = CHARTS[name](canvas)
    root = ET.fromstring(chart)
    title, description = root.find("s:title", SPACE), root.find("s:desc", SPACE)
    assert title is not None
    assert description is not None
    assert title.text
    assert description.text
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"].split() == [title.attrib["id"], description.attrib["id"]]
    assert "nan" not in chart
    assert not re.search(r"\binf\b", chart)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert width == canvas.width
    for node in root.iter():
        for keys, most in ((("x", "x1", "x2", "cx"), width), (("y", "y1", "y2", "cy"), height)):
            for key in keys:
                assert -1 <= float(node.attrib.get(key, 0)) <= most + 1


def test_names_of_models_cannot_become_markup() -> None:
    chart = CHARTS["size"](WIDE)
    assert "<Other>" not in chart
    assert "&lt;Other&gt;" in chart


# --- the law -------------------------------------------------------------------------------


def test_the_frontier_is_dashed_from_the_largest_run_on() -> None:
    root = ET.fromstring(CHARTS["frontier"](WIDE))
    (inside,) = [p for p in lines_of(root, "thick") if p not in lines_of(root, "dashed")]
    (beyond,) = lines_of(root, "dashed")
    assert inside[-1] == beyond[0]
    assert len(inside) == 3
    assert len(beyond) == 2
    assert slope(inside) == pytest.approx(slope(beyond), rel=1e-3)  # planted straight in log C


def test_a_valleys_lowest_point_is_ringed_and_the_rings_are_joined() -> None:
    root = ET.fromstring(CHARTS["isoflop"](WIDE))
    rings = circles(root, "hollow")
    assert lines_of(root, "dashed") == [rings]
    assert rings[0][1] == rings[1][1]  # both at loss 2.0
    for ring, valley in zip(rings, lines_of(root, "line")[:2], strict=True):
        assert max(y for _, y in valley) == pytest.approx(ring[1], abs=0.02)


def test_allocation_lines_are_as_steep_as_their_exponents() -> None:
    root = ET.fromstring(CHARTS["size"](WIDE))
    own, other = lines_of(root, "dashed")[0], lines_of(root, "faint")[0]
    assert slope(own) / slope(other) == pytest.approx(0.7 / 0.5, rel=1e-3)


def test_only_the_part_that_was_fitted_is_thick() -> None:
    spans = [[c for c in (1e18, 1e20) if law_figures._within(c, DIVISIONS[1].fitted)]]
    assert spans == [[1e18]]


def test_residuals_have_a_running_median_along_each_axis() -> None:
    points = [(float(x), (-1.0) ** x * 9 + x / 10) for x in range(80)]
    medians = law_figures.running_median(points)
    assert len(medians) == 8
    for x, y in medians:
        assert abs(y - x / 10) <= 9.1
    assert law_figures.running_median([(1.0, 2.0)] * 50) == []


def test_a_few_values_far_off_do_not_set_the_scale_but_are_marked_at_its_edge() -> None:
    values = [float(v) for v in range(100)]
    assert scales.usual_extent(values, 0) == (0, 99)
    assert scales.usual_extent([*values, 1000.0], 0) == (0, 99)
    assert scales.usual_extent([*values[:5], 1000.0], 0) == (0, 1000)  # too few to call it usual
    rungs = [Rung(str(i), 1e6, 1e7 * i, 2.0 + 0.01 * i, 1.0) for i in range(1, 30)]
    rungs.append(Rung("far", 1e6, 5e7, 9.0, 1.0))
    shown = [replace(r, predicted=2.1) for r in rungs]
    root = ET.fromstring(law_figures.misfit_chart(shown, WIDE))
    words = [t.text or "" for t in root.iterfind(".//s:path/s:title", SPACE)]
    assert len(words) == 2  # one in each panel
    assert all(word.startswith("off the scale") for word in words)


def test_a_table_of_very_many_sizes_is_drawn_with_some_of_them() -> None:
    few = charts.few_of([float(v) for v in range(100)], 12)
    assert len(few) == len(set(few)) == 12
    assert (few[0], few[-1]) == (0, 99)
    assert charts.few_of([1.0, 2.0], 12) == [1.0, 2.0]


def test_compute_just_under_a_power_of_ten_is_labelled_as_it() -> None:
    assert scales.compute_label(9.96e20) == "10²¹"
    assert scales.compute_label(2e12) == "2·10¹²"


# --- what the figures show -----------------------------------------------------------------


def test_measured_valleys_have_the_minima_of_approach_two(table: RunTable, law: Law) -> None:
    budgets, measured = law_data.budgets_of(law, law_data.rungs_of(table, law))
    assert measured
    minima, _ = isoflop.minima(table)
    ours = [b.lowest for b in budgets if b.lowest is not None]
    assert ours == [(pytest.approx(m.params), pytest.approx(m.loss)) for m in minima]
    for budget in budgets:
        lowest = min(budget.valley, key=lambda p: p[1])
        assert budget.lowest is not None
        assert lowest[1] == pytest.approx(budget.lowest[1], abs=2e-3)


def test_without_runs_of_equal_compute_the_law_draws_its_own_valleys(law: Law) -> None:
    budgets, measured = law_data.budgets_of(law, ())
    assert not measured
    for budget in budgets:
        assert budget.lowest is not None
        assert min(budget.valley, key=lambda p: p[1])[0] == pytest.approx(budget.lowest[0])


def test_the_frontier_is_the_laws_optimum_at_each_budget(law: Law) -> None:
    frontier = law_data.frontier_of(law, law.domain["flops"])
    assert frontier.points[-1][0] == pytest.approx(law_data.BEYOND * law.domain["flops"][1])
    for flops, loss, low, high in frontier.points[::7]:
        best = law.optimal(flops)
        assert loss == best.loss.loss
        assert low <= loss <= high
        assert loss <= law.predict(best.params * 1.5, best.tokens / 1.5).loss


def test_a_profile_is_drawn_as_a_parabola_where_it_is_one() -> None:
    values = 2.0 * np.exp(np.linspace(-0.1, 0.1, 25))
    drop = (np.log(values / 2.0) / 0.03) ** 2
    said = design.Profile("E", tuple(values), tuple(drop), 2.0, 1.9, np.inf)
    found = law_data.drawn_profile(said)
    assert (found.low, found.high) == (1.9, None)
    assert len(found.points) > 25
    for value, height in found.points:
        assert height == pytest.approx((math.log(value / 2.0) / 0.03) ** 2, abs=1e-9)


def test_the_table_of_known_models_gives_a_dot_to_each_whose_data_are_public() -> None:
    runs = {run.name: run for run in law_data.known_runs()}
    assert runs["Chinchilla"].params == 70e9
    assert runs["Chinchilla"].tokens == 1.4e12
    assert "GPT-4" not in runs


def sweep(curvature: float) -> tuple[RunTable, float]:
    rows = []
    for size, tokens in itertools.product((1e7, 4e7, 1.6e8), (1e9, 8e9)):
        best = 3.0 * size**-0.4 * tokens**0.02
        for factor in np.geomspace(1 / 3, 3, 5):
            loss = planted(size, tokens) * math.exp(0.5 * curvature * math.log(factor) ** 2)
            rows.append((size, tokens, loss, best * factor))
    params, tokens_, loss_, rate = np.array(rows).T
    return RunTable.from_arrays(params, tokens_, loss_, learning_rate=rate), curvature


def test_the_runs_of_a_planted_sweep_lie_on_their_basins() -> None:
    table, curvature = sweep(0.02)
    law = fit_sweep(table.params, table.tokens, table.loss, table.learning_rate, bootstrap=60)
    basins = law_data.basins_of(law, table)
    assert len(basins) == 6
    for basin in basins:
        ratio = math.exp(math.sqrt(2 * 0.0025 / curvature))
        assert basin.good[1] / basin.best == pytest.approx(ratio, rel=1e-3)
        assert basin.best == pytest.approx(3.0 * basin.params**-0.4 * basin.tokens**0.02, rel=1e-3)
        for rate, excess in basin.runs:
            on_it = 100 * math.expm1(0.5 * curvature * math.log(rate / basin.best) ** 2)
            assert excess == pytest.approx(on_it, abs=2e-3)


def test_a_run_in_flight_says_of_its_end_what_watch_says() -> None:
    steps = np.linspace(100, 8000, 60)
    schedule = Schedule(np.array([0.0, 100.0, 10_000.0]), np.array([0.0, 3e-4, 0.0]))
    curve = Curve("r", steps, 2.0 + 20 / steps**0.5, schedule)
    fan = law_data.fan_of(curve, moments=4)
    assert fan.end == 10_000
    assert fan.outcome is None  # it has not ended
    steps_said = [step for step, *_ in fan.forecasts]
    assert steps_said == sorted(steps_said)
    assert steps_said[-1] == 8000
    assert all(low < value < high for _, value, low, high in fan.forecasts)
    first, last = fan.forecasts[0], fan.forecasts[-1]
    assert last[3] - last[2] < first[3] - first[2]  # it knows more later


# --- how sure ------------------------------------------------------------------------------


@pytest.mark.parametrize(("held", "scored"), [(0, 5), (3, 7), (42, 50), (9, 9)])
def test_the_bars_of_the_calibration_are_wilsons(held: int, scored: int) -> None:
    theirs = binomtest(held, scored).proportion_ci(0.9, method="wilson")
    assert fit_figures.wilson(held, scored) == pytest.approx((theirs.low, theirs.high))


def test_perfect_calibration_lies_on_the_diagonal() -> None:
    coverages = [Coverage(v / 10, v, 10) for v in (5, 8, 9)]
    root = ET.fromstring(fit_figures.calibration_chart(coverages, WIDE))
    (diagonal,) = lines_of(root, "dashed")
    for x, y in circles(root, "filled"):
        assert y == pytest.approx(diagonal[0][1] + (x - diagonal[0][0]) * slope(diagonal), abs=0.05)


def test_a_run_outside_its_interval_stands_out() -> None:
    root = ET.fromstring(CHARTS["backtest"](WIDE))
    assert len(circles(root, "dot c4")) == 1
    ((x, y),) = circles(root, "dot ct")
    others = circles(root, "dot c4")
    assert x > others[0][0]  # twice the compute
    assert y < others[0][1]  # 20 % above its forecast, not 1 %


# --- files and pages -----------------------------------------------------------------------


def check_alone(document: str) -> ET.Element:
    root = ET.fromstring(document)
    ids = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
    assert len(ids) == len(set(ids))
    assert "var(" not in document  # most programs other than browsers know no CSS variables
    assert not re.search(r"(href|src|url)\s*[=(]", document)
    style = root.findtext("s:style", "", SPACE)
    assert "prefers-color-scheme: dark" in style
    used = {c for node in root.iter() for c in node.attrib.get("class", "").split()}
    assert used - {"tick"} <= set(re.findall(r"\.([a-z][a-z0-9]*)", style))
    return root


def test_a_surface_is_one_svg_that_stands_alone(table: RunTable, law: Law) -> None:
    root = check_alone(law_plot.plot_law(law, table))
    titles = [t.text for t in root.iterfind("s:text", SPACE) if t.attrib["class"] == "title"]
    assert titles == [
        "Loss against compute",
        "Residuals by size and horizon",
        "IsoFLOP families",
        "Best size for each amount of compute",
        "Best horizon for each amount of compute",
        "Profile likelihoods",
    ]
    heights = [
        (float(s.attrib["y"]), float(s.attrib["height"])) for s in root.iterfind("s:svg", SPACE)
    ]
    for (y, height), (below, _) in itertools.pairwise(heights):
        assert y + height < below
    assert sum(heights[-1]) <= float(root.attrib["height"])


def test_a_law_without_its_runs_is_drawn_too(law: Law) -> None:
    root = check_alone(law_plot.plot_law(law))
    assert "Profile likelihoods" not in [t.text for t in root.iterfind("s:text", SPACE)]


def test_laws_of_other_forms_are_drawn_as_far_as_they_go(table: RunTable) -> None:
    check_alone(law_plot.plot_law(fit_isoflop(table, bootstrap=60), table))
    check_alone(law_plot.plot_law(fit_power(table, "kaplan-c", bootstrap=60), table))
    check_alone(law_plot.plot_law(published_law("hoffmann-3")))
    swept, _ = sweep(0.02)
    rates = fit_sweep(swept.params, swept.tokens, swept.loss, swept.learning_rate, bootstrap=60)
    check_alone(law_plot.plot_law(rates, swept))
    columns = {n: getattr(swept, n) for n in ("params", "tokens", "loss", "learning_rate")}
    assert law_plot.plot_law(rates, FigureTable(columns)) == law_plot.plot_law(rates, swept)
    with pytest.raises(TableError, match="which has the runs"):
        law_plot.plot_law(rates)
    with pytest.raises(TableError, match="nothing to draw"):
        law_plot.plot_law(published_law("kaplan-n"))


def test_a_backtest_and_a_run_are_drawn_alone() -> None:
    check_alone(law_plot.plot_backtest(BACKTEST, replace(BACKTEST, level=0.5)))
    steps = np.linspace(100, 8000, 60)
    schedule = Schedule(np.array([0.0, 100.0, 10_000.0]), np.array([0.0, 3e-4, 0.0]))
    check_alone(law_plot.plot_run(Curve("r", steps, 2.0 + 20 / steps**0.5, schedule)))


def test_a_report_shows_the_figures_of_its_law(table: RunTable, law: Law, tmp_path: Path) -> None:
    law.save(tmp_path / "law.json")
    rows = zip(table.params, table.tokens, table.loss, strict=True)
    (tmp_path / "runs.csv").write_text(
        "params,tokens,loss\n" + "".join(f"{n},{d},{loss}\n" for n, d, loss in rows)
    )
    page = build(collect([tmp_path]))
    for key in ("frontier", "misfit", "isoflop", "allocation-params", "profiles"):
        assert page.count(f'id="{key}-wide-t"') == 1
        assert page.count(f'id="{key}-narrow-t"') == 1
    assert len(page.encode()) < 500_000


def test_a_report_takes_a_law_that_foretells_no_loss(tmp_path: Path) -> None:
    size = np.geomspace(1e7, 1e9, 6)
    rate, tokens = 3 * size**-0.4, 20 * size * np.array([1, 2, 1, 3, 1, 2])
    fit_optima(size, tokens, rate, bootstrap=60).save(tmp_path / "law.json")
    report = collect([tmp_path / "law.json"])
    assert report.law is not None
    assert report.law.form == "hyperparameters"
    assert "lr_N" in build(report)


def test_the_ledger_is_drawn_once_ten_promises_are_settled() -> None:
    settled = Promise(
        "p", "loss", "nats/token", 2.0, 1.9, 2.1, 0.9, "2026-01-01T00:00:00Z", "law",
        outcome=2.05, outcome_at="2026-01-02T00:00:00Z", held=True,
    )  # fmt: skip
    few, many = (Tally(0.9, n, n, n) for n in (9, 10))
    for tally, shown in ((few, False), (many, True)):
        page = build(Report("r", "", promises=(settled,), tallies=(tally,)))
        assert ('id="calibration-wide-t"' in page) is shown
