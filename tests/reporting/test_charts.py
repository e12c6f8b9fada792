import itertools
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from isoflop.core.ledger import Promise
from isoflop.reporting import charts, svg, training_charts
from isoflop.reporting.charts import Canvas
from isoflop.reporting.records import Curve, Rung, Target, TrainingPoint, Verdict

CANVAS = Canvas(820, 420, "test")
VERDICT = Verdict(1.6, 1.5, 1.7, 0.9, outcome=1.55)
TARGET = Target(1e6, 2e7, 1e14)
RUNGS = (
    Rung("a", 1e4, 1e6, 3.0, 1e11, predicted=2.97),
    Rung("b", 1e4, 1e7, 2.5, 1e12, predicted=2.5),
    Rung("c", 1e5, 1e7, 2.0, 1e13, predicted=2.02),
)
PROMISE = Promise("p1", "loss", "nats/token", 2.0, 1.9, 2.1, 0.9, "2026-01-01T00:00:00Z", "law")
SPACE = {"s": "http://www.w3.org/2000/svg"}


def drawn(chart: str) -> ET.Element:
    return ET.fromstring(chart)


def circles(root: ET.Element, class_: str) -> list[tuple[float, float]]:
    return [
        (float(c.attrib["cx"]), float(c.attrib["cy"]))
        for c in root.iterfind(".//s:circle", SPACE)
        if class_ in c.attrib["class"].split()
    ]


def path_points(root: ET.Element, class_: str) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", p.attrib["d"])]
        for p in root.iterfind(".//s:path", SPACE)
        if class_ in p.attrib["class"].split()
    ]


def curve(name: str, power: float, *, is_target: bool = False, floor: float = 1.0) -> Curve:
    points = tuple((1e5 * i, 1.0 + 2.0 * i**-power) for i in range(1, 11))
    training = tuple(TrainingPoint(t, v, v - 0.1, v + 0.1) for t, v in points)
    return Curve(name, 1e5, is_target, training, points, 10, floor)


ALL_CHARTS = {
    "strip": charts.promise_strip(VERDICT, CANVAS),
    "mark": charts.promise_mark(PROMISE, "m"),
    "ladder": charts.ladder_chart(RUNGS, None, TARGET, VERDICT, CANVAS),
    "residuals": charts.residual_chart(RUNGS, TARGET, VERDICT, CANVAS),
    "loss": training_charts.loss_chart([curve("a", 0.3)], CANVAS),
    "collapse": training_charts.collapse_chart([curve("a", 0.3), curve("b", 0.3)], CANVAS),
}


@pytest.mark.parametrize("chart", ALL_CHARTS.values(), ids=ALL_CHARTS.keys())
def test_every_chart_is_an_image_with_a_name_and_a_description(chart: str) -> None:
    root = drawn(chart)
    title, description = root.find("s:title", SPACE), root.find("s:desc", SPACE)
    assert root.attrib["role"] == "img"
    assert title is not None
    assert description is not None
    assert title.text
    assert description.text
    assert root.attrib["aria-labelledby"].split() == [title.attrib["id"], description.attrib["id"]]


@pytest.mark.parametrize("chart", ALL_CHARTS.values(), ids=ALL_CHARTS.keys())
def test_every_coordinate_lies_in_the_picture(chart: str) -> None:
    root = drawn(chart)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for node in root.iter():
        for key in ("x", "x1", "x2", "cx"):
            assert -1 <= float(node.attrib.get(key, 0)) <= width + 1
        for key in ("y", "y1", "y2", "cy"):
            assert -1 <= float(node.attrib.get(key, 0)) <= height + 1


def test_rungs_a_decade_apart_are_drawn_at_equal_distances() -> None:
    (x1, y1), (x2, y2), (x3, y3) = circles(drawn(ALL_CHARTS["ladder"]), "dot")
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.02)
    assert y2 - y1 == pytest.approx(y3 - y2, abs=0.02)  # losses 3.0, 2.5, 2.0: linear
    assert y1 < y3  # a smaller loss is lower on the page


def test_the_target_is_a_ring_at_the_promise_and_a_dot_at_the_outcome() -> None:
    root = drawn(ALL_CHARTS["ladder"])
    dots = circles(root, "dot")
    ring, dot = circles(root, "hollow")[0], circles(root, "filled")[0]
    per_loss = (dots[2][1] - dots[0][1]) / (3.0 - 2.0)
    assert ring[1] == pytest.approx(dots[2][1] + per_loss * (2.0 - 1.6), abs=0.05)
    assert dot[1] == pytest.approx(dots[2][1] + per_loss * (2.0 - 1.55), abs=0.05)
    assert ring[0] == dot[0] == pytest.approx(2 * dots[2][0] - dots[1][0], abs=0.05)
    bars = [b for b in root.iterfind(".//s:line", SPACE) if b.attrib["class"] == "bar ct"]
    height = float(bars[0].attrib["y1"]) - float(bars[0].attrib["y2"])
    assert height == pytest.approx(per_loss * 0.2, abs=0.05)


def test_a_target_that_has_not_ended_has_no_dot() -> None:
    open_ = replace(VERDICT, outcome=None)
    for chart in (
        charts.promise_strip(open_, CANVAS),
        charts.ladder_chart(RUNGS, None, TARGET, open_, CANVAS),
        charts.residual_chart(RUNGS, TARGET, open_, CANVAS),
    ):
        assert circles(drawn(chart), "hollow")
        assert not circles(drawn(chart), "filled")


def test_a_crowd_of_rungs_is_drawn_at_the_same_places_in_few_bytes() -> None:
    many = RUNGS * 60
    root = drawn(charts.ladder_chart(many, None, TARGET, VERDICT, CANVAS))
    placed = {p for path in path_points(root, "crowd") for p in path}
    assert placed == set(circles(drawn(ALL_CHARTS["ladder"]), "dot"))
    assert circles(root, "dot") == []


def test_residuals_are_drawn_about_zero_in_proportion() -> None:
    root = drawn(ALL_CHARTS["residuals"])
    zero = next(
        float(line.attrib["y1"])
        for line in root.iterfind(".//s:line", SPACE)
        if "zero" in line.attrib["class"]
    )
    first, second, third = (zero - y for _, y in circles(root, "dot"))
    assert second == pytest.approx(0, abs=0.01)
    # 100·0.03/3 = 1 % and −100·0.02/2 = −1 %
    assert first == pytest.approx(-third, abs=0.03)
    assert first > 0


@pytest.mark.parametrize(
    ("outcome", "place"), [(2.0, 60.0), (2.1, 60 + 120 / 4.2), (99.0, 60 + 1.9 * 120 / 4.2)]
)
def test_a_mark_shows_where_in_the_interval_the_outcome_fell(outcome: float, place: float) -> None:
    settled = replace(PROMISE, outcome=outcome, outcome_at="2026-01-02T00:00:00Z", held=True)
    ((x, _),) = circles(drawn(charts.promise_mark(settled, "m")), "filled")
    assert x == pytest.approx(place, abs=0.01)


def test_a_promise_that_gave_no_number_is_a_miss_without_a_dot() -> None:
    missed = replace(PROMISE, outcome=None, outcome_at="2026-01-02T00:00:00Z", held=False)
    root = drawn(charts.promise_mark(missed, "m"))
    assert not circles(root, "filled")
    assert "outside" in "".join(root.itertext())


def test_sizes_take_the_ramp_from_end_to_end() -> None:
    assert charts.size_classes([3e6, 1e6, 2e6, 1e6]) == {1e6: "c0", 2e6: "c4", 3e6: "c7"}
    assert charts.size_classes([5.0]) == {5.0: "c0"}


def test_a_power_law_is_straight_where_both_axes_are_logarithmic() -> None:
    pure = Curve(
        "a", 1e5, False, tuple(TrainingPoint(10.0**e, 8 * 0.5**e, 0, 0) for e in range(4)), (), 4
    )
    (line,) = path_points(drawn(training_charts.loss_chart([pure], CANVAS)), "thin")
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(line)]
    assert slopes == pytest.approx([slopes[0]] * 3, rel=1e-3)


def test_runs_of_one_shape_collapse_and_others_do_not() -> None:
    # (L − floor)/(L(T) − floor) = x^−p whatever the run's scale
    same = training_charts.normalised(curve("a", 0.3))
    assert same == [(pytest.approx(t), pytest.approx(t**-0.3)) for t, _ in same]
    assert training_charts.normalised(curve("b", 0.6)) != same


def test_a_run_at_or_under_its_floor_has_no_normalised_curve() -> None:
    assert training_charts.normalised(curve("a", 0.3, floor=5.0)) == []
    assert training_charts.normalised(replace(curve("a", 0.3), floor=None)) == []


def test_words_in_a_picture_cannot_become_markup() -> None:
    chart = training_charts.loss_chart([curve('"><script>', 0.3, is_target=True)], CANVAS)
    assert "<script" not in chart
    assert drawn(chart) is not None


def test_characters_that_xml_forbids_are_replaced() -> None:
    assert svg.text("a\x00b\x1b<\ud800") == "a�b�&lt;�"


def test_a_chart_of_nothing_still_is_a_picture() -> None:
    assert drawn(charts.ladder_chart((), None, None, None, CANVAS)) is not None
    assert drawn(charts.residual_chart((), None, None, CANVAS)) is not None


def test_values_that_are_not_finite_never_reach_a_coordinate() -> None:
    wild = replace(curve("a", 0.3), held_out=((1e5, 2.0),))
    for chart in (*ALL_CHARTS.values(), training_charts.loss_chart([wild], CANVAS)):
        assert "nan" not in chart
        assert "inf" not in chart.replace("interval", "")
    assert math.isfinite(VERDICT.error_percent or math.nan)
