from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from isoflop.core.engine import Engine, Piece
from isoflop.core.engine import engine as engine_module
from isoflop.core.engine.placement import Inline
from isoflop.core.engine.records import KEY, read_range
from isoflop.core.engine.task import MARKER
from isoflop.core.errors import ArtifactError, DataError, RunError


def engine_in(folder: Path) -> Engine:
    return Engine(folder, Inline())


def pieces(n: int) -> list[Piece]:
    return [Piece(f"{i:02d}", i) for i in range(n)]


def test_outputs_come_in_the_order_of_the_pieces(functions: ModuleType, tmp_path: Path) -> None:
    mixed = [Piece(str(i), i, bytes=size) for i, size in enumerate([1, 9, 3, 7])]
    outputs = engine_in(tmp_path).map("times", functions.times, mixed, {"factor": 5})
    assert [output.statistics for output in outputs] == [{"product": 5 * i} for i in range(4)]
    assert [(o.directory / "product.txt").read_text() for o in outputs] == ["0", "5", "10", "15"]


def test_what_is_finished_is_not_run_again(functions: ModuleType, tmp_path: Path) -> None:
    first = engine_in(tmp_path)
    outputs = first.map("times", functions.times, pieces(4), {"factor": 5})
    again = engine_in(tmp_path)
    assert again.map("times", functions.times, pieces(4), {"factor": 5}) == outputs
    assert (first.executed["times"], again.executed["times"]) == (4, 0)
    shutil.rmtree(outputs[2].directory)
    third = engine_in(tmp_path)
    assert third.map("times", functions.times, pieces(4), {"factor": 5}) == outputs
    assert third.executed["times"] == 1


def test_a_changed_parameter_runs_only_what_depends_on_it(
    functions: ModuleType, tmp_path: Path
) -> None:
    def run(factor: int, added: int) -> tuple[Engine, str]:
        engine = engine_in(tmp_path)
        products = engine.map("times", functions.times, pieces(3), {"factor": factor})
        last = Piece("all", None, tuple(products))
        (output,) = engine.map("total", functions.total, [last], added)
        return engine, (output.directory / "total.txt").read_text()

    assert [run(2, 0)[1], run(2, 10)[1], run(3, 10)[1]] == ["6", "16", "19"]
    assert run(2, 20)[0].executed == {"total": 1}
    assert run(4, 20)[0].executed == {"times": 3, "total": 1}
    assert run(2, 0)[0].executed == {}


def test_an_input_that_comes_out_the_same_stops_the_change_there(
    functions: ModuleType, tmp_path: Path
) -> None:
    def run(value: int, factor: int) -> Engine:
        engine = engine_in(tmp_path)
        products = engine.map("times", functions.times, [Piece("0", value)], {"factor": factor})
        engine.map("total", functions.total, [Piece("all", None, tuple(products))])
        return engine

    run(2, 6)
    assert run(3, 4).executed == {"times": 1}  # another way to the same twelve


def test_other_code_is_another_task(
    functions: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_in(tmp_path).map("times", functions.times, pieces(2), {"factor": 1})
    monkeypatch.setattr("isoflop.core.engine.task.code_version", lambda: "other")
    changed = engine_in(tmp_path)
    changed.map("times", functions.times, pieces(2), {"factor": 1})
    assert changed.executed["times"] == 2
    assert len(list((tmp_path / "times").iterdir())) == 4
    changed.prune()
    assert len(list((tmp_path / "times").iterdir())) == 2


@pytest.mark.parametrize("partition_bytes", [1_000, 20_000, 10_000_000])
def test_grouping_brings_all_records_of_a_key_together_whatever_the_partitions(
    functions: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partition_bytes: int
) -> None:
    monkeypatch.setattr(engine_module, "PARTITION_BYTES", partition_bytes)
    engine = engine_in(tmp_path)
    emitted = engine.map("emit", functions.emit, pieces(6))
    counted = engine.group("count", functions.count, emitted, "records.npy")
    assert len(counted) == -(-6 * (16_000 + 128) // partition_bytes)
    found = np.concatenate([np.load(o.directory / "counts.npy") for o in counted], axis=1)
    records = [np.load(o.directory / "records.npy") for o in emitted]
    keys, counts = np.unique(np.concatenate(records)[KEY], return_counts=True)
    assert np.array_equal(found, np.stack([keys, counts.astype("u8")]))


def test_records_of_a_key_keep_the_order_of_the_inputs(
    functions: ModuleType, tmp_path: Path
) -> None:
    emitted = engine_in(tmp_path).map("emit", functions.emit, pieces(5))
    records = read_range([o.directory / "records.npy" for o in emitted], 0, 1)
    same = records[KEY][1:] == records[KEY][:-1]
    assert same.any()
    assert (np.diff(records["document"].astype(np.int64))[same] > 0).all()


def test_a_failure_names_the_piece_the_place_and_the_line(
    functions: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(RunError) as caught:
        engine_in(tmp_path).map("fail", functions.fail, pieces(1))
    assert caught.value.where == "fail 00, rows.jsonl, document 7"
    assert "ZeroDivisionError: integer division or modulo by zero" in caught.value.what
    assert "functions_of_test.py:" in caught.value.what


def test_an_error_for_the_user_stays_as_it_is(functions: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl: nothing to read\. Add rows"):
        engine_in(tmp_path).map("refuse", functions.refuse, pieces(1))


def test_a_full_disk_leaves_nothing_half_written(functions: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        engine_in(tmp_path).map("full", functions.full, pieces(1))
    assert os.listdir(tmp_path / "full") == []


def test_what_a_killed_worker_left_half_written_is_removed(
    functions: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "times" / ".00-abc.123.partial").mkdir(parents=True)
    engine_in(tmp_path).map("times", functions.times, pieces(1), {"factor": 1})
    assert [path.name[:3] for path in (tmp_path / "times").iterdir()] == ["00-"]


def test_a_damaged_marker_is_named(functions: ModuleType, tmp_path: Path) -> None:
    (output,) = engine_in(tmp_path).map("times", functions.times, pieces(1), {"factor": 1})
    (output.directory / MARKER).write_text("{")
    with pytest.raises(ArtifactError, match=r"task\.json.*marker"):
        engine_in(tmp_path).map("times", functions.times, pieces(1), {"factor": 1})


def test_a_marker_vouches_for_every_file_by_its_hash(functions: ModuleType, tmp_path: Path) -> None:
    (output,) = engine_in(tmp_path).map("times", functions.times, pieces(1), {"factor": 1})
    marker = json.loads((output.directory / MARKER).read_text())
    assert set(marker["files"]) == {p.name for p in output.directory.iterdir()} - {MARKER}


def test_progress_counts_bytes_and_begins_where_an_earlier_run_stopped(
    functions: ModuleType, tmp_path: Path
) -> None:
    sized = [Piece(str(i), i, bytes=10 * (i + 1)) for i in range(3)]
    engine_in(tmp_path).map("times", functions.times, sized[:1], {"factor": 1})
    said: list[tuple[str, int, int]] = []
    engine = Engine(tmp_path, Inline(), lambda *report: said.append(report))
    engine.map("times", functions.times, sized, {"factor": 1})
    assert said == [("times", 10, 60), ("times", 40, 60), ("times", 60, 60)]
