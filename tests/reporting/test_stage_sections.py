"""Sections on alignment, compression, serving and comparisons, from what their commands write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.artifact import write_json
from isoflop.core.errors import ArtifactError
from isoflop.core.ledger import Ledger
from isoflop.reporting.collect import collect
from isoflop.reporting.compression_section import pareto
from isoflop.reporting.figures import beside, document_of, figures_of
from isoflop.reporting.page import build
from isoflop.reporting.records import Report
from isoflop.reporting.stage_read import read_compressed, read_served
from isoflop.reporting.stage_records import Compressed
from isoflop.reporting.write import report


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A run of GRPO as its command leaves it."""
    run = tmp_path / "grpo-run"
    run.mkdir()
    recipe = {"model": {"path": "m"}, "data": {"set": "s"}, "grpo": {}, "rollouts": {}}
    write_json(run / "config.json", {"format": 2, "recipe": recipe})
    steps = range(1, 21)
    lines(
        run / "metrics.jsonl",
        [
            {"step": i, "tokens": 100 * i, "loss": -0.1, "reward": 0.5 + 0.02 * i, "kl": 0.03 * i}
            for i in steps
        ],
    )
    asked = [
        {"step": step, "tokens": 100, "prompt": prompt, "text": text}
        for step, texts in ((10, ("5", "seven")), (20, ("5", "7")))
        for prompt, text in zip(("2+3", "3+4"), texts, strict=True)
    ]
    lines(run / "samples.jsonl", asked)
    lines(run / "evals.jsonl", [{"step": 20, "tokens": 2000, "exact_match": 0.75}])
    frontier = [{"beta": b, "kl": k, "reward": r} for b, k, r in ((1, 0.1, 0.8), (0.1, 0.4, 0.95))]
    write_json(run / "forecast.json", {"reward": 0.5, "frontier": frontier})
    write_json(
        run / "result.json",
        {"exact_match_start": 0.25, "exact_match": 0.75, "reward_start": 0.5, "reward": 0.9,
         "kl": 0.6},
    )  # fmt: skip
    return run


def compressed(folder: Path, name: str, size: int, loss: float, held: bool) -> Path:
    """A compressed model as its command leaves it."""
    path = folder / name
    path.mkdir()
    promise = {"quantity": "bits_per_byte_added", "low": 0.0, "high": 0.02, "held": held}
    write_json(
        path / "result.json",
        {
            "config": {"method": name.split("-")[0], "bits": 4, "sparsity": 0.5},
            "measured": {"bits_per_byte_full": 2.0, "bits_per_byte": loss, "flipped": 0.05},
            "foretold": {}, "promises": [promise], "bytes_full": 1000, "bytes": size,
        },
    )  # fmt: skip
    Ledger(path / "ledger.jsonl").promise("bits_per_byte_added", "b", 0.01, 0.0, 0.02, 0.9, "parts")
    return path


def test_a_run_of_rewards_shows_its_way_the_frontier_and_what_changed(policy: Path) -> None:
    found = collect([policy])
    (run,) = found.aligned
    assert (run.name, run.stage) == ("grpo-run", "grpo")
    assert run.path[0] == pytest.approx((0.03, 0.52))
    assert run.path[-1] == pytest.approx((0.6, 0.9))
    assert run.frontier == ((0.0, 0.5), (0.1, 0.8), (0.4, 0.95))
    assert [(f.name, f.before, f.after) for f in run.figures][:2] == [
        ("held-out prompts answered right", 0.25, 0.75),
        ("held-out reward", 0.5, 0.9),
    ]
    assert [(p.prompt, p.before, p.after) for p in run.pairs] == [
        ("2+3", "5", "5"), ("3+4", "seven", "7"),
    ]  # fmt: skip
    assert found.curves == ()  # its loss is no language model's
    page = build(found)
    for words in ('id="alignment"', "25.0\u202f%", "75.0\u202f%", "1 of 2 answers changed", "对齐"):
        assert words in page


def test_the_compressed_models_that_no_other_beats_are_named(tmp_path: Path) -> None:
    made = [
        compressed(tmp_path, "int8", 260, 2.002, held=True),
        compressed(tmp_path, "int4", 150, 2.04, held=False),
        compressed(tmp_path, "magnitude-half", 300, 2.1, held=True),
    ]
    found = collect(made)
    names = [each.name for each in pareto(found.compressed)]
    assert names == ["int4", "int8"]
    int4 = read_compressed(made[1])
    assert int4.added_percent == pytest.approx(2.0)
    assert (int4.low, int4.high) == pytest.approx((0.0, 1.0))
    page = build(found)
    assert page.count("not beaten") == 2
    assert "missed" in page
    assert len(found.promises) == 3  # those of all the ledgers
    assert found.tallies[0].promised == 3


@pytest.mark.parametrize(
    ("sizes", "best"),
    [(((10, 1.0), (20, 1.0)), {0}), (((10, 1.0), (10, 1.0)), {0, 1}), (((10, 2), (20, 1)), {0, 1})],
)
def test_a_model_is_beaten_by_one_that_is_no_worse_in_both(
    sizes: tuple[tuple[float, float], ...], best: set[int]
) -> None:
    found = [Compressed(str(i), "m", s, a, 0, 1, True, 0) for i, (s, a) in enumerate(sizes)]
    assert {int(each.name) for each in pareto(found)} == best


def test_a_damaged_result_names_its_file(tmp_path: Path) -> None:
    path = compressed(tmp_path, "int8", 260, 2.0, held=True)
    raw = json.loads((path / "result.json").read_text())
    del raw["measured"]["flipped"]
    write_json(path / "result.json", raw)
    with pytest.raises(ArtifactError, match=r"result\.json"):
        collect([path])


METRICS = """# HELP isoflop:e2e_request_latency_seconds From request to last token
isoflop:e2e_request_latency_seconds_bucket{le="0.1",model_name="m"} 5.0
isoflop:e2e_request_latency_seconds_bucket{le="0.5",model_name="m"} 9.0
isoflop:e2e_request_latency_seconds_bucket{le="+Inf",model_name="m"} 10.0
isoflop:e2e_request_latency_seconds_count{model_name="m"} 10.0
isoflop:generation_tokens_total{model_name="m"} 1234.0
"""


def test_latencies_are_the_ends_of_the_buckets_that_hold_them(tmp_path: Path) -> None:
    (tmp_path / "server.prom").write_text(METRICS)
    served = read_served(tmp_path / "server.prom")
    assert served is not None
    (latency,) = served.latencies
    assert latency.quantiles == ((0.5, 0.1), (0.9, 0.5), (0.99, float("inf")))
    assert served.counters == (("generation_tokens", 1234.0),)
    page = build(collect([tmp_path / "server.prom"]))
    assert "100 ms" in page
    assert "beyond" in page


def test_two_reports_are_set_side_by_side_from_pages_or_from_directories(
    tmp_path: Path,
) -> None:
    made = [
        compressed(tmp_path, "int8", 260, 2.0, held=True),
        compressed(tmp_path, "int8-b", 260, 2.04, held=True),
    ]
    page = report([made[0]], tmp_path / "first.html").path
    figures = [figures_of(document_of(path)) for path in (page, made[1])]
    rows = {row.name: row for row in beside(*figures)}
    added = rows["int8: added loss, %"]
    assert (added.first, added.second) == pytest.approx((0.0, 2.0))
    assert added.difference == pytest.approx(2.0)
    assert added.p is None
    (tmp_path / "other.html").write_text("<!doctype html>")
    with pytest.raises(ArtifactError, match="no report"):
        document_of(tmp_path / "other.html")


def test_a_page_without_any_of_them_has_none_of_their_sections() -> None:
    page = build(Report("Nothing", ""))
    assert not any(f'id="{key}"' in page for key in ("alignment", "compression", "serving"))


# --- a demo that was served ----------------------------------------------------------------


@pytest.fixture
def served_demo(tmp_path: Path) -> Path:
    """What a demo leaves of its finished model: scores, and what it was asked over HTTP."""
    demo = tmp_path / "demo"
    (demo / "evaluation").mkdir(parents=True)
    (demo / "serving").mkdir()
    write_json(demo / "summary.json", {"seed": 0})
    write_json(
        demo / "evaluation" / "results.json",
        {"cloze": {"score": 0.25, "low": 0.1, "high": 0.5, "chance": 0.25, "n": 20,
                   "metric": "accuracy"}},
    )  # fmt: skip
    call = ["calculator", '{"expression": "3 × 4"}']
    asked = {"kind": "tool call", "question": "What is 3 × <4>?", "answer": "The answer is 12.",
             "calls": [call], "status": 200, "shown": True}  # fmt: skip
    refused = {"kind": "refused", "question": "?", "answer": "refused: weapons", "calls": [],
               "status": 400, "shown": True}  # fmt: skip
    write_json(demo / "serving" / "exchanges.json", [asked, refused])
    return demo


def test_a_demo_shows_what_its_server_was_asked_and_what_its_model_scores(
    served_demo: Path,
) -> None:
    found = collect([served_demo])
    assert [each.status for each in found.exchanges] == [200, 400]
    assert found.scores[0].items == 20
    page = build(found)
    assert "What is 3 × &lt;4&gt;?" in page
    assert "calculator {&quot;expression&quot;: &quot;3 × 4&quot;}" in page
    assert "0.100 to 0.500" in page


def test_damaged_exchanges_and_scores_are_named(served_demo: Path) -> None:
    write_json(served_demo / "serving" / "exchanges.json", [{"kind": "chat"}])
    with pytest.raises(ArtifactError, match="these are no exchanges"):
        collect([served_demo])
    write_json(served_demo / "serving" / "exchanges.json", [])
    write_json(served_demo / "evaluation" / "results.json", {"cloze": {"score": "high"}})
    with pytest.raises(ArtifactError, match="these are no scores"):
        collect([served_demo])
