"""Trends, distances and loss curves drawn where their numbers are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from isoflop.reporting import trend_figures
from isoflop.reporting.charts import Canvas
from isoflop.reporting.law_records import LossCurve, Misfit, Trend

SPACE = {"s": "http://www.w3.org/2000/svg"}
WIDE, NARROW = Canvas(820, 400, "wide"), Canvas(360, 300, "narrow")
TREND = Trend(
    "Loss against tokens", "training tokens", "loss, nats/token",
    tuple((10.0**e, 4.0 - 0.2 * e, 3.8 - 0.2 * e, 4.3 - 0.2 * e) for e in range(8, 13)),
    0.9, runs=((1e8, 2.4, "run <1>"), (1e10, 2.0, "run 2")), fitted=(1e8, 1e10),
    asked=(1e11, 1.8, 1.6, 2.1),
)  # fmt: skip
MISFIT = Misfit(
    "law", "measured - law, %",
    (("web", ((2.0, 1.0, "a"), (3.0, -1.0, "b"))), ("code", ((1.0, 0.0, "c"),))),
)  # fmt: skip
CURVES = (
    LossCurve("a", ((10.0, 3.0), (100.0, 2.0)), ((10.0, 3.1), (100.0, 2.05))),
    LossCurve("b", ((10.0, 3.2), (50.0, 2.4)), ((10.0, 3.2), (50.0, 2.4))),
)
CHARTS = {
    "trend": lambda c: trend_figures.trend_chart(TREND, c),
    "score": lambda c: trend_figures.trend_chart(replace(TREND, log=False, fitted=None), c),
    "misfit": lambda c: trend_figures.misfit_by_value_chart(MISFIT, c),
    "curves": lambda c: trend_figures.curves_chart(CURVES, c),
}


def paths(root: ET.Element, class_: str) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", p.attrib["d"])]
        for p in root.iterfind(".//s:path", SPACE)
        if p.attrib["class"].split() == ["line", *class_.split()]
    ]


@pytest.mark.parametrize("chart", CHARTS)
@pytest.mark.parametrize("canvas", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_word_and_dot_lies_inside_the_picture(chart: str, canvas: Canvas) -> None:
    root = ET.fromstring(CHARTS[chart](canvas))
    for dot in root.iterfind(".//s:circle", SPACE):
        assert 0 <= float(dot.attrib["cx"]) <= canvas.width
        assert 0 <= float(dot.attrib["cy"]) <= canvas.height
    for word in root.iterfind(".//s:text", SPACE):
        assert -1 <= float(word.attrib["x"]) <= canvas.width
        assert 0 < float(word.attrib["y"]) <= canvas.height


def test_a_trend_is_solid_between_its_runs_and_dashed_beyond() -> None:
    root = ET.fromstring(CHARTS["trend"](WIDE))
    (solid,), (dashed,) = paths(root, "ct thick"), paths(root, "ct thick dashed")
    assert solid[-1] == dashed[0]
    # Equal factors are equal distances: three decades of five are solid.
    assert dashed[-1][0] - dashed[0][0] == pytest.approx(solid[-1][0] - solid[0][0], abs=0.02)


def test_what_was_asked_lies_on_the_line_with_its_interval() -> None:
    root = ET.fromstring(CHARTS["trend"](WIDE))
    (dashed,) = paths(root, "ct thick dashed")
    rings = [c for c in root.iterfind(".//s:circle", SPACE) if c.attrib["class"] == "hollow ct"]
    assert (float(rings[0].attrib["cx"]), float(rings[0].attrib["cy"])) == dashed[1]
    assert "1.80 (1.60 to 2.10)" in [t.text for t in root.iterfind(".//s:text", SPACE)]


def test_without_an_interval_only_the_value_is_written() -> None:
    bare = replace(TREND, asked=(1e11, 0.000425, 0.000425, 0.000425))
    root = ET.fromstring(trend_figures.trend_chart(bare, WIDE))
    assert "0.000425" in [t.text for t in root.iterfind(".//s:text", SPACE)]


def test_distances_lie_on_their_side_of_zero() -> None:
    root = ET.fromstring(CHARTS["misfit"](WIDE))
    (zero,) = (
        float(n.attrib["y1"])
        for n in root.iterfind(".//s:line", SPACE)
        if n.attrib["class"] == "zero"
    )
    tips = {
        dot.findtext("s:title", "", SPACE): float(dot.attrib["cy"])
        for dot in root.iterfind(".//s:circle", SPACE)
    }
    assert tips["a"] < zero < tips["b"]
    assert tips["c"] == zero


def test_a_curve_that_ends_early_is_named_where_it_ends() -> None:
    root = ET.fromstring(CHARTS["curves"](WIDE))
    at = {t.text: float(t.attrib["x"]) for t in root.iterfind(".//s:text", SPACE)}
    assert at["b"] < 450 < at["a"]
