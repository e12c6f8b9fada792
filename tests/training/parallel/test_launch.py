"""Runs that torchrun starts, killed in the act: nothing is lost and the curve goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
RELATIVE = 1e-5


def start(recipe: Path, out: Path, environment: dict[str, str], *options: str) -> Process:
    ranks = 4 if "--parallel.tp" in options else 2
    return Process(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks),
            "--max-restarts", "1", "--standalone", "-m", "isoflop", "train", str(recipe),
            "-o", str(out), "--json", *options,
        ],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


class Process(subprocess.Popen[str]):
    def members(self) -> dict[int, int]:
        """Rank → process."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "environ").read_bytes().split(b"\0")
                parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if parent == str(self.pid):
                rank = next((w for w in words if w.startswith(b"RANK=")), None)
                if rank is not None:
                    found[int(rank[5:])] = int(path.name)
        return found

    def kill_all(self) -> None:
        """SIGKILL, torchrun first, so that it starts nothing again."""
        pids = [self.pid, *self.members().values()]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.communicate()

    def __exit__(self, *details: Any) -> None:
        if self.poll() is None:  # a failed test leaves no process behind
            self.kill_all()
        super().__exit__(*details)


def losses(run: Path) -> dict[int, float]:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = (json.loads(line) for line in lines)
    return {row["step"]: row["loss"] for row in found}


def wait_for(process: Process, sign: Callable[[], bool]) -> None:
    while not sign():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


# Forty steps at a rate at which rounding does not grow; heads that two ranks can share.
SHAPE = (
    "--train.tokens", "10240", "--optimizer.learning-rate", "1e-3", "--model.head-dim", "16",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(train_toml: Path, isoflop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = isoflop.run("train", train_toml, "-o", out, *SHAPE)
    assert done.returncode == 0, done.stderr
    return out


def assert_same(found: Path, whole: Path) -> None:
    ours, theirs = losses(found), losses(whole)
    assert ours.keys() == theirs.keys()
    assert all(ours[step] == pytest.approx(theirs[step], rel=RELATIVE) for step in theirs)


def events(run: Path) -> list[tuple[str, int]]:
    rows = map(json.loads, (run / "events.jsonl").read_text().splitlines())
    return [(row["event"], row["step"]) for row in rows]


def test_a_rank_killed_in_a_step_is_started_again_and_the_curve_goes_on(
    train_toml: Path, isoflop: Any, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    layout = ("--parallel.fsdp", "2")
    with start(train_toml, out, isoflop.environment, *SHAPE, *layout) as process:
        wait_for(process, lambda: max(losses(out), default=0) >= 20)
        os.kill(process.members()[1], signal.SIGKILL)
        printed, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    # The attempt that was lost may have printed its error, as a document of its own.
    assert json.loads(printed[printed.rindex("\n{") if "\n{" in printed else 0 :])["steps"] == 40
    assert "another process of the run was lost" in errors
    (first, _), (second, step) = events(out)
    assert (first, second) == ("started", "resumed")
    assert step >= 18
    assert_same(out, whole)


def test_ranks_killed_in_a_checkpoint_lose_nothing_and_go_on_in_another_layout(
    train_toml: Path, isoflop: Any, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    store = out / "checkpoints"
    layout = ("--parallel.fsdp", "2", "--parallel.tp", "2")

    def writing() -> bool:
        return any(store.glob(".step_*.*.partial/__*")) and any(store.glob("step_*"))

    with start(train_toml, out, isoflop.environment, *SHAPE, *layout) as process:
        wait_for(process, writing)
        process.kill_all()
    saved = max(int(path.name.removeprefix("step_")) for path in store.glob("step_*"))
    done = isoflop.run("train", train_toml, "-o", out, *SHAPE)
    assert done.returncode == 0, done.stderr
    assert events(out) == [("started", 0), ("resumed", saved)]
    assert_same(out, whole)
