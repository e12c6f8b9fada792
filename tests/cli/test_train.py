"""`isoflop train` in real processes: killed, stopped, starved of disk, and continued.

After each of these the same command must end with the bits of a run that nothing happened to.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli.main import main
from isoflop.core import lock

ContentOf = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="session")
def whole(
    calibrated_cache: Path, train_toml: Path, tmp_path_factory: pytest.TempPathFactory,
    content_of: ContentOf,
) -> dict[str, Any]:  # fmt: skip
    """What a run comes to that nothing happened to, and that this process trained."""
    out = tmp_path_factory.mktemp("whole") / "run"
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        patch.setenv("ISOFLOP_CACHE", str(calibrated_cache))
        assert main(["train", str(train_toml), "-o", str(out), "--json"]) == 0
    document = json.loads(said.getvalue())
    assert document["run"] == str(out)
    assert {"loss", "bits_per_byte", "params", "tokens", "flops"} <= document.keys()
    return content_of(out)


@pytest.fixture
def go_on(calibrated: None, train_toml: Path) -> Callable[[Path], int]:
    """The same command again, in this process: it has torch imported already."""
    return lambda run: main(["train", str(train_toml), "-o", str(run)])


def partial(run: Path) -> list[Path]:
    return list((run / "checkpoints").glob(".step_*.partial"))


def lines(run: Path) -> int:
    log = run / "metrics.jsonl"
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def events(run: Path) -> list[str]:
    log = run / "events.jsonl"
    rows = log.read_text().splitlines() if log.exists() else []
    return [json.loads(row)["event"] for row in rows]


def test_killed_during_a_step_the_same_command_ends_with_the_same_bits(
    isoflop: Any, train_toml: Path, whole: dict[str, Any], tmp_path: Path, content_of: ContentOf
) -> None:
    run = tmp_path / "run"
    with isoflop.start("train", train_toml, "-o", run) as process:
        # 16 lines of two steps each: well after a checkpoint, well before the end.
        process.catch(lambda: lines(run) >= 16 and not partial(run))
        assert process.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert lines(run) < 50
    done = isoflop.run("train", train_toml, "-o", run)
    assert done.returncode == 0, done.stderr
    assert content_of(run) == whole
    assert events(run) == ["started", "resumed"]


def test_killed_during_a_checkpoint_the_same_command_ends_with_the_same_bits(
    isoflop: Any, train_toml: Path, whole: dict[str, Any], tmp_path: Path, content_of: ContentOf,
    go_on: Callable[[Path], int],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    with isoflop.start("train", train_toml, "-o", run) as process:
        whole_one = run / "checkpoints"  # an earlier one, to go on from
        process.catch(lambda: any(whole_one.glob("step_*")) and bool(partial(run)))
        assert process.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert partial(run), "killed while one was being written"
    assert go_on(run) == 0
    assert not partial(run)
    assert content_of(run) == whole
    assert events(run) == ["started", "resumed"]


def test_stopped_by_sigterm_it_writes_a_checkpoint_and_exits_with_130(
    isoflop: Any, train_toml: Path, whole: dict[str, Any], tmp_path: Path, content_of: ContentOf,
    go_on: Callable[[Path], int],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    with isoflop.start("train", train_toml, "-o", run) as process:
        process.catch(lambda: lines(run) >= 10)
        code, err = process.end(signal.SIGTERM)
    assert code == 130
    assert "run the same command again to continue" in err
    assert "Traceback" not in err
    last = json.loads((run / "events.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["signal"]) == ("interrupted", signal.SIGTERM)
    assert (run / "checkpoints" / f"step_{last['step']:08d}" / "loop.json").exists()
    assert go_on(run) == 0
    assert content_of(run) == whole
    assert events(run) == ["started", "interrupted", "resumed"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_ten_random_instants_it_ends_with_the_same_bits(
    isoflop: Any, train_toml: Path, whole: dict[str, Any], tmp_path: Path, content_of: ContentOf,
    seed: int,
) -> None:  # fmt: skip
    run, draw, kills = tmp_path / "run", random.Random(seed), 0
    while kills < 10 and not (run / "result.json").exists():
        sessions = len(events(run))
        with isoflop.start("train", train_toml, "-o", run) as process:
            while process.poll() is None and len(events(run)) == sessions:
                time.sleep(0.001)
            time.sleep(draw.expovariate(1 / 0.25))
            process.end(signal.SIGKILL)
            kills += 1
    assert kills >= 2
    assert isoflop.run("train", train_toml, "-o", run).returncode == 0
    assert content_of(run) == whole


# --- a full disk ---------------------------------------------------------------------------


def test_a_file_that_may_not_grow_is_one_paragraph_and_the_run_continues_once_it_may(
    isoflop: Any, train_toml: Path, whole: dict[str, Any], tmp_path: Path, content_of: ContentOf,
    go_on: Callable[[Path], int],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    limited = (
        "import resource, sys; from isoflop.cli.main import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, {resource.RLIM_INFINITY}))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    with isoflop.start("train", train_toml, "-o", run, python=("-c", limited)) as process:
        _, err = process.communicate(timeout=300)
    assert (process.returncode, err.count("Traceback")) == (2, 0), err
    assert "the file would be larger than allowed here" in err.splitlines()[-1]
    assert "run the same command again" in err.splitlines()[-1]
    assert not partial(run)
    assert not list((run / "checkpoints").glob("step_*"))
    assert go_on(run) == 0
    assert content_of(run) == whole


@contextmanager
def small_disk(at: Path, kilobytes: int) -> Iterator[Callable[[int], None]]:
    """A file system of that size; yields a function that changes it."""
    at.mkdir()

    def mount(*options: str) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(at)],
            check=True,
            capture_output=True,
        )

    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("needs the right to mount a small file system")
    try:
        mount(f"size={kilobytes}k")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"cannot mount a small file system: {error.stderr!r}")
    try:
        yield lambda size: mount("remount", f"size={size}k")
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def test_a_disk_that_fills_up_in_mid_run_is_one_paragraph_and_costs_no_bit(
    train_toml: Path, whole: dict[str, Any], tmp_path: Path, content_of: ContentOf,
    go_on: Callable[[Path], int], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with small_disk(tmp_path / "disk", 700) as resize:  # room for one checkpoint, not for two
        run = tmp_path / "disk" / "run"
        assert go_on(run) == 2
        assert "the disk is full" in capsys.readouterr().err.splitlines()[-1]
        assert [p.name for p in (run / "checkpoints").iterdir()] == ["step_00000009"]
        resize(20_000)
        assert go_on(run) == 0
        assert content_of(run) == whole


# --- bad input, one paragraph each ---------------------------------------------------------


def complaint(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one paragraph that `isoflop train` ends with."""
    assert main(["train", *map(str, args)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_a_run_of_another_version_is_refused(
    calibrated: None, train_toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"format": 99, "isoflop_version": "9.9"}')
    said = complaint(capsys, train_toml, "-o", tmp_path)
    assert "written by Isoflop 9.9" in said
    assert "start anew in another directory with -o" in said
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != ".lock") == ["config.json"]


def test_a_directory_held_by_another_process_is_refused(
    isoflop: Any, calibrated: None, train_toml: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(lock, "_PATIENCE_SECONDS", 0.2)
    holding = (
        "import sys, time; from pathlib import Path; from isoflop.core.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with isoflop.start(tmp_path, python=("-c", holding)) as holder:
        assert holder.stdout.readline() == "held\n"
        said = complaint(capsys, train_toml, "-o", tmp_path)
        assert f"another process (pid {holder.pid}) is working in this directory" in said


def test_a_typo_names_the_line_and_the_nearest_key(
    train_toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "typo.toml"
    recipe.write_text(train_toml.read_text().replace("learning_rate", "learnin_rate"))
    said = complaint(capsys, recipe, "-o", tmp_path / "run")
    line = recipe.read_text().splitlines().index("learnin_rate = 1e-2") + 1
    assert f"{recipe}:{line}" in said
    assert "learning_rate" in said
    assert not (tmp_path / "run").exists()


def test_an_impossible_flag_is_refused_before_anything_is_written(
    train_toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(capsys, train_toml, "-o", tmp_path / "run", "--train.tokens", "3")
    assert "train.tokens = 3 is less than one global batch" in said
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_place_of_the_run_is_refused(
    calibrated: None, train_toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").write_text("mine")
    assert "a file, not a directory" in complaint(capsys, train_toml, "-o", tmp_path / "run")


def test_divergence_is_one_paragraph_with_the_step(
    calibrated: None, train_toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--optimizer.learning-rate", "1e9", "--optimizer.warmup-tokens", "0"]
    assert main(["train", str(train_toml), "-o", str(tmp_path / "run"), *flags]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("step ")
    assert "Lower optimizer.learning_rate" in last
