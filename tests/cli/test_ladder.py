"""`isoflop ladder` in real processes: killed, it takes its workers along and then continues."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isoflop.data.shards import Shards

ContentOf = Callable[[Path], dict[str, Any]]

TOML = """
processes = 2
[data]
shards = "{shards}"
[[rungs]]
d_model = 32
n_layers = 1
tokens = [7_680, 20_480] # 30 and 80 steps
[[rungs]]
d_model = 64
n_layers = 1
tokens = [51_200] # 200 steps
[optimizer]
warmup_tokens = 1024
[train]
seq_len = 32
global_batch_tokens = 256
micro_batch_tokens = 256
eval_tokens = 1024
evaluations = 1
checkpoint_every = 10
log_every = 1
tensorboard = false
"""


@pytest.fixture(scope="session")
def ladder_toml(tiny_shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "ladder.toml"
    path.write_text(TOML.format(shards=tiny_shards.directory))
    return path


@pytest.fixture(scope="session")
def whole(isoflop: Any, ladder_toml: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "ladder"
    done = isoflop.run("ladder", ladder_toml, "-o", out, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (len(document["runs"]), document["table"]) == (3, str(out / "runs.csv"))
    return out


def table(out: Path) -> list[dict[str, str]]:
    """runs.csv without what tells the time."""
    with open(out / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def children(pid: int) -> list[int]:
    return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def in_mid_ladder(out: Path) -> bool:
    """One run is done, another is past a checkpoint and not done."""
    runs = list((out / "runs").glob("*")) if (out / "runs").exists() else []
    done = [run for run in runs if (run / "result.json").exists()]
    busy = [run for run in runs if run not in done and list(run.glob("checkpoints/step_*"))]
    return bool(done and busy)


def all_unfinished_are_busy(out: Path) -> bool:
    """No run is only starting, and at least one is past a checkpoint."""
    runs = list((out / "runs").glob("*")) if (out / "runs").exists() else []
    unfinished = [run for run in runs if not (run / "result.json").exists()]
    return bool(unfinished) and all(list(r.glob("checkpoints/step_*")) for r in unfinished)


def assert_equal(ladder: Path, whole: Path, content_of: ContentOf) -> None:
    assert table(ladder) == table(whole)
    for run in (whole / "runs").iterdir():
        assert content_of(ladder / "runs" / run.name) == content_of(run), run.name


def test_killed_in_mid_ladder_its_workers_end_and_the_same_command_ends_the_same(
    isoflop: Any, ladder_toml: Path, whole: Path, tmp_path: Path, content_of: ContentOf
) -> None:
    out = tmp_path / "ladder"
    with isoflop.start("ladder", ladder_toml, "-o", out) as process:
        process.catch(lambda: in_mid_ladder(out))
        workers = children(process.pid)
        assert len(workers) >= 2
        process.end(signal.SIGKILL)
    killed_at = time.monotonic()
    while any(map(alive, workers)):
        assert time.monotonic() - killed_at < 60, "workers outlived their parent"
        time.sleep(0.02)
    finished = {p: p.stat().st_mtime_ns for p in (out / "runs").glob("*/result.json")}
    assert 0 < len(finished) < 3
    done = isoflop.run("ladder", ladder_toml, "-o", out)
    assert done.returncode == 0, done.stderr
    assert all(p.stat().st_mtime_ns == at for p, at in finished.items()), "done is done"
    assert_equal(out, whole, content_of)


def test_stopped_by_sigterm_it_leaves_checkpoints_and_exits_with_130(
    isoflop: Any, ladder_toml: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ladder"
    with isoflop.start("ladder", ladder_toml, "-o", out) as process:
        process.catch(lambda: all_unfinished_are_busy(out), group=True)
        code, err = process.end(signal.SIGTERM)
    assert code == 130
    assert "Traceback" not in err
    ended = [
        json.loads((run / "events.jsonl").read_text().splitlines()[-1])["event"]
        for run in (out / "runs").iterdir()
        if not (run / "result.json").exists()
    ]
    assert ended
    assert set(ended) == {"interrupted"}


def test_a_killed_worker_is_one_paragraph_and_exit_code_2(
    isoflop: Any, ladder_toml: Path, tmp_path: Path
) -> None:
    out = tmp_path / "ladder"
    with isoflop.start("ladder", ladder_toml, "-o", out) as process:
        process.catch(lambda: bool(list(out.glob("runs/*/metrics.jsonl"))))
        holder = next(out.glob("runs/*/metrics.jsonl")).parent / ".lock"
        os.kill(int(holder.read_text()), signal.SIGKILL)
        code, err = process.end(signal.SIGCONT)
    assert (code, err.count("Traceback")) == (2, 0), err
    assert "a worker process was killed" in err.splitlines()[-1]


@pytest.mark.slow
def test_killed_at_random_instants_the_ladder_ends_the_same(
    isoflop: Any, ladder_toml: Path, whole: Path, tmp_path: Path, content_of: ContentOf
) -> None:

    out, draw = tmp_path / "ladder", random.Random(1)
    for _ in range(10):
        with isoflop.start("ladder", ladder_toml, "-o", out) as process:
            time.sleep(draw.uniform(1.0, 8.0))
            process.end(signal.SIGKILL)
    done = isoflop.run("ladder", ladder_toml, "-o", out)
    assert done.returncode == 0, done.stderr
    assert_equal(out, whole, content_of)
