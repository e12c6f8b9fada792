"""Tables of curves, figures and mixtures, from files of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import TableError
from isoflop.laws.tables import read_curves, read_figures, read_mixtures

POINTS = [(step, 1e-3, 4.0 - step / 1000) for step in range(0, 1000, 100)]


def _csv(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows, ""]))
    return path


def _metrics(run: Path, rate: float = 1e-3) -> Path:
    run.mkdir(parents=True)
    rows = [{"step": s, "lr": rate, "loss": loss, "tokens": 5 * s} for s, _, loss in POINTS]
    (run / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return run


def test_curves_are_told_apart_by_run_and_sorted_by_step(tmp_path: Path) -> None:
    rows = [f"{run},{s},{r},{loss}" for s, r, loss in reversed(POINTS) for run in ("a", "b")]
    table = read_curves(
        [_csv(tmp_path / "curves.csv", "run_id,it,lr,loss", rows)],
        {"step": "it", "learning_rate": "lr"},
    )
    assert [curve.run_id for curve in table.curves] == ["a", "b"]
    for curve in table.curves:
        assert curve.step.tolist() == [s for s, _, _ in POINTS]
        assert curve.loss.tolist() == [loss for _, _, loss in POINTS]
        assert set(curve.schedule.rate) == {1e-3}


def test_a_curve_without_a_name_is_called_as_its_file(tmp_path: Path) -> None:
    rows = [f"{s},{r},{loss}" for s, r, loss in POINTS]
    table = read_curves([_csv(tmp_path / "cosine.csv", "step,learning_rate,loss", rows)])
    assert [curve.run_id for curve in table.curves] == ["cosine"]


def test_a_warm_up_before_the_table_is_told_to_the_schedule(tmp_path: Path) -> None:
    rows = [f"{s},{r},{loss}" for s, r, loss in POINTS[2:]]
    path = _csv(tmp_path / "late.csv", "step,learning_rate,loss", rows)
    assert read_curves([path], warmup_steps=150).curves[0].schedule.warmup == 150
    with pytest.raises(TableError, match="must end by the first step"):
        read_curves([path], warmup_steps=250)


def test_run_directories_are_curves(tmp_path: Path) -> None:
    table = read_curves([_metrics(tmp_path / "one"), _metrics(tmp_path / "two", 2e-3)])
    assert [curve.run_id for curve in table.curves] == ["one", "two"]
    assert table.curves[1].schedule.peak == 2e-3
    assert [s["path"] for s in table.source] == [
        str(tmp_path / name / "metrics.jsonl") for name in ("one", "two")
    ]


def test_a_ladder_of_one_size_is_curves_and_of_two_is_refused(tmp_path: Path) -> None:
    header = "run_id,params,tokens,loss,learning_rate,batch_tokens,seed"
    for run in ("long", "short"):
        _metrics(tmp_path / "runs" / run)
    rows = ["long,1e6,5000,3.1,1e-3,5,0", "short,1e6,4000,3.2,1e-3,5,1"]
    _csv(tmp_path / "runs.csv", header, rows)
    assert [c.run_id for c in read_curves([tmp_path]).curves] == ["long", "short"]
    _csv(tmp_path / "runs.csv", header, [rows[0], rows[1].replace("1e6", "2e6")])
    with pytest.raises(TableError, match="the ladder has 2 sizes; a curve law is of one model"):
        read_curves([tmp_path])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,0,1e-3,3"], "curves.csv, a: a schedule needs a learning rate at each of two"),
        (["a,0,1e-3,3", "a,0,1e-3,2"], "curves.csv, a: step 0 is there twice"),
        (["a,0,0,3", "a,1,0,2"], "not all zero"),
        (["a,0,1e-3,-3"], "loss is -3, which is not positive"),
    ],
)
def test_what_is_no_curve_is_refused(rows: list[str], message: str, tmp_path: Path) -> None:
    path = _csv(tmp_path / "curves.csv", "run_id,step,learning_rate,loss", rows)
    with pytest.raises(TableError, match=message):
        read_curves([path])


def test_bad_rows_of_a_curve_are_left_out_by_line_and_reason(tmp_path: Path) -> None:
    rows = [f"{s},{r},{loss}" for s, r, loss in POINTS]
    rows[3] = "300,1e-3,nan"
    rows[5] = "500,,3"
    table = read_curves([_csv(tmp_path / "c.csv", "step,learning_rate,loss", rows)])
    assert len(table.curves[0].step) == 8
    assert [(r.where, r.reason) for r in table.rejected] == [
        (f"{tmp_path / 'c.csv'}:5", "loss is nan"),
        (f"{tmp_path / 'c.csv'}:7", "learning_rate is missing"),
    ]


def test_figures_are_read_from_jsonl_and_parquet_alike(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"N": 1e6 * i, "bits": 4, "loss": 3.0 - i / 10} for i in range(1, 5)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    tables = [
        read_figures([tmp_path / f"t.{kind}"], ("params", "bits", "loss"), (), {"params": "N"})
        for kind in ("jsonl", "parquet")
    ]
    for table in tables:
        assert table.figures["params"].tolist() == [1e6, 2e6, 3e6, 4e6]
        assert table.figures["loss"].tolist() == [2.9, 2.8, 2.7, 2.6]


def test_an_optional_figure_is_there_if_every_table_has_it(tmp_path: Path) -> None:
    one = _csv(tmp_path / "one.csv", "params,batch_tokens", ["1e6,64"])
    two = _csv(tmp_path / "two.csv", "params", ["2e6"])
    assert set(read_figures([one], ("params",), ("batch_tokens",)).figures) == {
        "params", "batch_tokens",
    }  # fmt: skip
    both = read_figures([one, two], ("params",), ("batch_tokens",))
    assert {name: values.tolist() for name, values in both.figures.items()} == {
        "params": [1e6, 2e6]
    }


def test_a_score_may_be_nothing_and_no_other_figure(tmp_path: Path) -> None:
    path = _csv(tmp_path / "t.csv", "loss,score", ["3,0", "0,0.5", "2,-0.1"])
    table = read_figures([path], ("loss", "score"))
    assert table.figures["score"].tolist() == [0.0, -0.1]
    assert [row.reason for row in table.rejected] == ["loss is 0, which is not positive"]


def test_a_missing_column_is_named_with_its_usual_names(tmp_path: Path) -> None:
    path = _csv(tmp_path / "t.csv", "params,tokens,lr", ["1e6,1e8,1e-3"])
    with pytest.raises(TableError, match="no column learning_rate") as caught:
        read_figures([path], ("params", "tokens", "learning_rate"))
    assert caught.value.fix == "Map it with --columns learning_rate=lr"


def test_mixtures_are_read_by_their_prefixes_or_by_a_mapping(tmp_path: Path) -> None:
    path = _csv(
        tmp_path / "m.csv", "weight:web,w_code,loss:web,step", ["0.25,0.75,3.1,9", "1,0,2.9,9"]
    )
    table = read_mixtures([path], {"weight:code": "w_code"})
    assert table.training == ("web", "code")
    assert table.validation == ("web",)
    assert np.array_equal(table.weights, [[0.25, 0.75], [1.0, 0.0]])
    assert np.array_equal(table.losses, [[3.1], [2.9]])
    with pytest.raises(TableError, match="1 columns weight:NAME and 1 columns loss:NAME"):
        read_mixtures([path])
    with pytest.raises(TableError, match="code is no column of a table of mixtures"):
        read_mixtures([path], {"code": "w_code"})


@pytest.mark.parametrize("read", [read_curves, read_mixtures])
def test_a_table_that_is_not_there_is_named(read: object, tmp_path: Path) -> None:
    assert callable(read)
    with pytest.raises(TableError, match="no such table") as caught:
        read([tmp_path / "none.csv"])
    assert caught.value.where == str(tmp_path / "none.csv")
    with pytest.raises(TableError, match=r"no (table|curve) was given"):
        read([])
