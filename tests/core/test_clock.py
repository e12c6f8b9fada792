"""Seconds of stages add up over sessions, also over those that were killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isoflop.core.clock import StageClock


def test_stages_add_up_over_sessions(tmp_path: Path) -> None:
    for _ in range(2):
        clock = StageClock(tmp_path / "stages.json")
        with clock.stage("data"):
            time.sleep(0.1)
        with clock.stage("plan"):
            time.sleep(0.02)
    assert json.loads((tmp_path / "stages.json").read_text()) == clock.seconds()
    assert 0.2 <= clock.seconds()["data"] < 1.0
    assert clock.total() == pytest.approx(clock.seconds()["data"] + clock.seconds()["plan"])


def test_an_interrupted_stage_counts_what_it_took(tmp_path: Path) -> None:
    clock = StageClock(tmp_path / "stages.json")

    def interrupted() -> None:
        with clock.stage("ladder"):
            time.sleep(0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert StageClock(tmp_path / "stages.json").seconds()["ladder"] >= 0.1


def test_a_killed_stage_counts_what_it_had_taken_at_the_last_beat(tmp_path: Path) -> None:
    path = tmp_path / "stages.json"
    code = (
        "import sys, time; from pathlib import Path; from isoflop.core.clock import StageClock\n"
        "with StageClock(Path(sys.argv[1]), 0.05).stage('ladder'): time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as process:
        deadline = time.monotonic() + 60
        while not path.exists() or json.loads(path.read_text())["ladder"] < 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    assert 0.3 <= StageClock(path).seconds()["ladder"] < 60
