"""The chart of compressed models shows what their results say."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from isoflop.core.errors import ArtifactError
from isoflop.reporting.pareto import Point, frontier, plot_pareto, points_of


def write(folder: Path, name: str, size: int, loss: float, full: float = 1.5) -> Path:
    out = folder / name
    out.mkdir()
    result = {
        "measured": {"bits_per_byte_full": full, "bits_per_byte": loss},
        "promises": [{"low": loss - full - 0.01, "high": loss - full + 0.02}],
        "bytes_full": 4000, "bytes": size,
    }  # fmt: skip
    (out / "result.json").write_text(json.dumps(result))
    return out


def test_points_are_the_full_model_once_and_each_compressed_one(tmp_path: Path) -> None:
    made = [write(tmp_path, "a", 1000, 1.51), write(tmp_path, "b<", 600, 1.6)]
    points = points_of(made)
    assert [(p.name, p.bytes, p.bits_per_byte) for p in points] == [
        ("full model", 4000, 1.5), ("a", 1000, 1.51), ("b<", 600, 1.6),
    ]  # fmt: skip
    assert (points[1].low, points[1].high) == (pytest.approx(1.5), pytest.approx(1.53))
    drawn = plot_pareto(points)
    root = ET.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert "prefers-color-scheme: dark" in drawn
    titles = [e.text for e in root.iter() if e.tag.endswith("}title")]
    assert any(t and t.startswith("b<: ") for t in titles)
    assert not re.search(r"https?://(?!www\.w3\.org)", drawn)


def test_the_frontier_holds_those_that_none_beats_in_both() -> None:
    kept = [Point("a", 1, 3.0), Point("b", 2, 2.0), Point("d", 4, 1.0)]
    beaten = [Point("c", 3, 2.5), Point("e", 4, 1.5), Point("f", 2, 2.0)]
    assert [p.name for p in frontier([*beaten[:2], *kept])] == ["a", "b", "d"]
    assert len(frontier([*kept, *beaten])) == 3


def test_what_does_not_compare_is_refused(tmp_path: Path) -> None:
    first, other = write(tmp_path, "a", 1000, 1.51), write(tmp_path, "b", 900, 1.6, full=1.4)
    with pytest.raises(ArtifactError, match="do not compare"):
        points_of([first, other])
    with pytest.raises(ArtifactError, match=r"no result\.json"):
        points_of([tmp_path])
    (first / "result.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not the result"):
        points_of([first])
