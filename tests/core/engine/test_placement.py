from __future__ import annotations

import os
import stat
from pathlib import Path
from types import ModuleType

import pytest

from isoflop.core.engine import Engine, Piece, open_placement
from isoflop.core.engine.placement import ATTEMPTS, Inline, Processes
from isoflop.core.engine.task import Output
from isoflop.core.errors import DataError, RecipeError, RunError

# Runs the jobs of an array one after the other; every second one is lost without a word at first.
FAKE_SBATCH = """#!/bin/bash
[ "$1" = --wait ] || exit 9
last=$(sed -n 's/^#SBATCH --array=0-//p' "$2")
for job in $(seq 0 "$last"); do
    if [ -n "$LOSE" ] && [ $((job % 2)) = 1 ] && ! [ -e "$2.lost" ]; then
        touch "$2.lost"
        continue
    fi
    SLURM_ARRAY_TASK_ID=$job bash "$2" || failed=1
done
exit ${failed:-0}
"""


def run_all(functions: ModuleType, folder: Path, placement: str) -> tuple[list[Output], Engine]:
    """Twelve products, and counts of grouped records of six pieces."""
    with open_placement(placement, folder, 0) as place:
        engine = Engine(folder, place)
        pieces = [Piece(f"{i:02d}", i) for i in range(12)]
        outputs = engine.map("times", functions.times, pieces, {"factor": 7})
        emitted = engine.map("emit", functions.emit, pieces[:6])
        outputs += engine.group("count", functions.count, emitted, "records.npy")
    return outputs, engine


def content(outputs: list[Output]) -> list[tuple[dict[str, str], dict[str, object]]]:
    return [(output.files, output.statistics) for output in outputs]


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(FAKE_SBATCH)
    (folder / "sbatch").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_processes_give_what_one_process_gives(functions: ModuleType, tmp_path: Path) -> None:
    inline, _ = run_all(functions, tmp_path / "a", "inline")
    spread, engine = run_all(functions, tmp_path / "b", "processes:2")
    assert content(spread) == content(inline)
    assert engine.executed == {"times": 12, "emit": 6, "count": 1}


def test_slurm_arrays_give_what_one_process_gives(
    functions: ModuleType, tmp_path: Path, sbatch: None
) -> None:
    inline, _ = run_all(functions, tmp_path / "a", "inline")
    arrays, engine = run_all(functions, tmp_path / "b", "slurm:2")
    assert content(arrays) == content(inline)
    assert engine.executed == {"times": 12, "emit": 6, "count": 1}
    script = (tmp_path / "b" / "slurm" / "times-0" / "job.sh").read_text()
    assert "#SBATCH --array=0-1\n" in script


def test_jobs_that_slurm_loses_are_submitted_again(
    functions: ModuleType, tmp_path: Path, sbatch: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSE", "1")
    with open_placement("slurm:3", tmp_path, 0) as place:
        engine = Engine(tmp_path, place)
        pieces = [Piece(str(i), i) for i in range(3)]
        engine.map("times", functions.times, pieces, {"factor": 1})
    assert engine.executed["times"] == 3
    assert (tmp_path / "slurm" / "times-0" / "job.sh.lost").exists()
    assert [p.name for p in (tmp_path / "slurm" / "times-1").glob("*.json")] == ["0.json"]


def test_an_error_in_a_slurm_job_reaches_the_user(
    functions: ModuleType, tmp_path: Path, sbatch: None
) -> None:
    with (
        open_placement("slurm", tmp_path, 0) as place,
        pytest.raises(RunError, match=r"fail 0, rows\.jsonl, document 7: ZeroDivisionError"),
    ):
        Engine(tmp_path, place).map("fail", functions.fail, [Piece("0", 0)])


def test_without_sbatch_slurm_is_refused(
    functions: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        open_placement("slurm", tmp_path, 0) as place,
        pytest.raises(RunError, match="no `sbatch` here"),
    ):
        Engine(tmp_path, place).map("times", functions.times, [Piece("0", 0)], {"factor": 1})


def test_errors_cross_from_processes_with_their_place(
    functions: ModuleType, tmp_path: Path
) -> None:
    with open_placement("processes:1", tmp_path, 0) as place:
        engine = Engine(tmp_path, place)
        with pytest.raises(RunError, match=r"fail 0, rows\.jsonl, document 7: ZeroDivisionError"):
            engine.map("fail", functions.fail, [Piece("0", 0)])
        with pytest.raises(DataError, match="nothing to read"):
            engine.map("refuse", functions.refuse, [Piece("0", 0)])
        with pytest.raises(OSError, match="No space left") as full:
            engine.map("full", functions.full, [Piece("0", 0)])
    assert str(full.value.filename).endswith("half.txt")


def test_the_task_of_a_killed_worker_is_run_again_and_the_others_are_not(
    functions: ModuleType, tmp_path: Path
) -> None:
    counts = tmp_path / "counts"
    counts.mkdir()
    with open_placement("processes:2", tmp_path, 0) as place:
        engine = Engine(tmp_path / "work", place)
        parameters = {"folder": str(counts), "times": ATTEMPTS - 1}
        engine.map("k", functions.killed_at_first, [Piece("0", 0)], parameters)
        assert len((counts / "0").read_text()) == ATTEMPTS
        with pytest.raises(RunError, match=rf"`k 1` was killed {ATTEMPTS} times .out of memory"):
            engine.map(
                "k", functions.killed_at_first, [Piece("1", 1)], {**parameters, "times": ATTEMPTS}
            )


@pytest.mark.slow
def test_a_local_ray_cluster_gives_what_one_process_gives(
    functions: ModuleType, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    inline, _ = run_all(functions, tmp_path / "a", "inline")
    cluster, engine = run_all(functions, tmp_path / "b", "ray:2")
    assert content(cluster) == content(inline)
    assert engine.executed == {"times": 12, "emit": 6, "count": 1}
    with open_placement("ray:1", tmp_path, 0) as place:
        engine = Engine(tmp_path, place)
        with pytest.raises(DataError, match="nothing to read"):
            engine.map("refuse", functions.refuse, [Piece("0", 0)])


def test_auto_starts_processes_only_for_work_that_is_worth_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isoflop.core.engine.placement.usable_cores", lambda: 2)
    with open_placement("auto", tmp_path, 1_000) as place:
        assert isinstance(place, Inline)
    with open_placement("auto", tmp_path, 10**9) as place:
        assert isinstance(place, Processes)
    monkeypatch.setattr("isoflop.core.engine.placement.usable_cores", lambda: 1)
    with open_placement("auto", tmp_path, 10**9) as place:
        assert isinstance(place, Inline)


@pytest.mark.parametrize("spec", ["procesess", "inline:2", "processes:0", "slurm:many"])
def test_a_placement_that_is_none_is_refused(spec: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--placement"), open_placement(spec, tmp_path, 0):
        pass
