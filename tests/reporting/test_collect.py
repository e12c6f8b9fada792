import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.artifact import write_json
from isoflop.core.errors import ArtifactError
from isoflop.core.ledger import Ledger
from isoflop.laws.predict import load_law
from isoflop.reporting.collect import collect


def test_a_demo_directory_gives_every_part(demo: Any) -> None:
    report = collect([demo.path])
    assert report.verdict is not None
    assert report.verdict.value == demo.summary["promise"]["value"]
    assert report.verdict.outcome == demo.summary["outcome"]
    assert report.verdict.held is demo.summary["held"]
    assert report.verdict.error_percent == pytest.approx(demo.summary["error_percent"])
    assert report.target is not None
    assert report.target.flops == demo.summary["target"]["flops"]
    assert len(report.rungs) == 12
    assert [c.name for c in report.curves if c.is_target] == ["target"]
    assert len(report.curves) == 13
    assert {c.params for c in report.curves if not c.is_target} == {r.params for r in report.rungs}
    assert report.law is not None
    assert len(report.promises) == 4
    assert report.tallies == Ledger(demo.path / "ledger.jsonl").calibration()
    assert len(report.samples) == 6
    assert report.cost is not None
    assert report.funnel is not None
    assert report.lineage is not None
    assert [a.name for a in report.lineage.artifacts] == ["ladder", "target"]
    assert report.notes == ()


def test_predictions_are_those_of_the_law(demo: Any) -> None:
    report, law = collect([demo.path]), load_law(demo.path / "law.json")
    assert report.law is not None
    assert report.target is not None
    for rung in report.rungs:
        assert rung.predicted == law.predict(rung.params, rung.tokens).loss
    # The way to the target ends at the target, with the interval that was promised.
    flops, loss, low, high = report.law.path[-1]
    promise = demo.summary["promise"]
    assert flops == pytest.approx(report.target.flops)
    assert (loss, low, high) == pytest.approx([promise[k] for k in ("value", "low", "high")])


def test_a_sizes_line_passes_where_the_law_puts_its_rungs(demo: Any) -> None:
    report = collect([demo.path])
    assert report.law is not None
    for fit in report.law.fits:
        inside = [r for r in report.rungs if r.params == fit.params]
        for rung in inside:
            above = max(p for p in fit.points if p[0] <= rung.flops)
            below = min(p for p in fit.points if p[0] >= rung.flops)
            assert rung.predicted is not None
            assert below[1] <= rung.predicted <= above[1]


def test_a_curves_floor_is_what_endless_data_leaves(demo: Any) -> None:
    law = load_law(demo.path / "law.json")
    p = law.parameters
    for curve in collect([demo.path]).curves:
        assert curve.params is not None
        assert curve.floor == pytest.approx(p["E"] + p["A"] / curve.params ** p["alpha"], rel=1e-9)


def test_parts_may_be_given_one_by_one(demo: Any) -> None:
    names = ("ladder", "target", "corpus", "law.json", "ledger.jsonl")
    report = collect([demo.path / name for name in names])
    assert len(report.rungs) == 12
    assert len(report.curves) == 13
    assert report.verdict is not None  # from the ledger's promise of the loss
    assert report.verdict.outcome == demo.summary["outcome"]
    assert report.target is None
    assert report.law is not None
    assert report.law.path == ()
    assert report.funnel is not None


def test_one_run_alone_is_a_report(demo: Any) -> None:
    report = collect([demo.path / "target"])
    assert [c.name for c in report.curves] == ["target"]
    assert report.verdict is None
    assert report.rungs == ()
    assert len(report.samples) == 6


@pytest.mark.parametrize("name", ["corpus", "target", "law.json", "ledger.jsonl"])
def test_a_missing_part_is_left_out(make_demo: Callable[..., Any], name: str) -> None:
    path = make_demo().path
    part = path / name
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    report = collect([path])
    present = {
        "corpus": report.funnel,
        "target": [c for c in report.curves if c.is_target],
        "law.json": report.law,
        "ledger.jsonl": report.promises,
    }
    assert not present.pop(name)
    assert all(present.values())


def test_a_target_still_running_has_an_open_verdict(make_demo: Callable[..., Any]) -> None:
    demo = make_demo()
    write_json(demo.path / "summary.json", demo.summary | {"outcome": None, "held": None})
    verdict = collect([demo.path]).verdict
    assert verdict is not None
    assert verdict.held is None
    assert verdict.error_percent is None


def damage(path: Path, line: int, replacement: str) -> None:
    rows = path.read_text("utf-8").split("\n")
    rows[line - 1] = replacement
    path.write_text("\n".join(rows), "utf-8")


@pytest.mark.parametrize(
    ("name", "line", "replacement", "message"),
    [
        ("summary.json", 3, "  oops", r"summary\.json:3: not valid JSON"),
        ("law.json", 2, "  oops", r"law\.json:2: not valid JSON"),
        ("ledger.jsonl", 2, "{}", r"ledger\.jsonl:2: "),
        ("corpus/funnel.json", 2, "  oops", r"funnel\.json:2: not valid JSON"),
        ("target/metrics.jsonl", 7, "{", r"target/metrics\.jsonl:7: .*not valid JSON"),
        ("target/evals.jsonl", 2, "[]", r"target/evals\.jsonl:2: .*no JSON object"),
        ("target/samples.jsonl", 1, '{"step": 1}', r"samples\.jsonl:1: .*must be words"),
        ("ladder/runs.csv", 3, "a,b", r"runs\.csv:3: .*as many fields"),
        ("target/manifest.json", 1, "[", r"manifest\.json:"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_file_and_line(
    make_demo: Callable[..., Any], name: str, line: int, replacement: str, message: str
) -> None:
    path = make_demo().path
    damage(path / name, line, replacement)
    with pytest.raises(ArtifactError, match=message):
        collect([path])


def test_a_word_where_a_number_belongs_is_an_error(make_demo: Callable[..., Any]) -> None:
    path = make_demo().path
    table = path / "ladder" / "runs.csv"
    rows = table.read_text("utf-8").splitlines()
    cells = rows[4].split(",")
    rows[4] = ",".join(["many" if i == 3 else c for i, c in enumerate(cells)])
    table.write_text("\n".join(rows) + "\n", "utf-8")
    with pytest.raises(ArtifactError, match=r"runs\.csv:5: tokens is 'many'"):
        collect([path])


def test_a_diverged_rung_is_left_out_and_named(make_demo: Callable[..., Any]) -> None:
    path = make_demo().path
    table = path / "ladder" / "runs.csv"
    rows = table.read_text("utf-8").splitlines()
    cells = rows[1].split(",")
    rows[1] = ",".join(["nan" if i == 4 else c for i, c in enumerate(cells)])
    table.write_text("\n".join(rows) + "\n", "utf-8")
    report = collect([path])
    assert len(report.rungs) == 11
    assert report.notes == (f"runs.csv: without a usable loss and left out: {cells[0]}",)


@pytest.mark.parametrize("key", ["value", "low", "high", "level"])
def test_a_promise_without_its_numbers_is_an_error(make_demo: Callable[..., Any], key: str) -> None:
    demo = make_demo()
    promise = {k: v for k, v in demo.summary["promise"].items() if k != key}
    write_json(demo.path / "summary.json", demo.summary | {"promise": promise})
    with pytest.raises(ArtifactError, match=f"summary.json: `promise` has no number {key}"):
        collect([demo.path])


def test_nothing_to_report_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing to report on"):
        collect([tmp_path])
    with pytest.raises(ArtifactError, match="no such file or directory"):
        collect([tmp_path / "absent"])
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(ArtifactError, match="not made from this kind of file"):
        collect([tmp_path / "a.txt"])


def test_long_samples_are_cut_and_say_so(make_demo: Callable[..., Any]) -> None:
    path = make_demo().path
    row = {"step": 1, "tokens": 10, "prompt": "p", "text": "x" * 5000}
    rows = [row | {"step": step} for step in range(50) for _ in range(20)]
    (path / "target" / "samples.jsonl").write_text("\n".join(json.dumps(r) for r in rows) + "\n")
    samples = collect([path]).samples
    assert sorted({s.step for s in samples}) == [0, 25, 49]
    assert len(samples) == 36
    assert samples[0].text.endswith("x … (3,000 characters more)")
