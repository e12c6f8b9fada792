"""SIGKILL at 100 random instants, over every stage: the same command ends with the same bits."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

KILLS = {"train": 10, "ladder": 4, "data build": 6, "ppo": 6, "grpo": 6, "sft": 6, "report": 3}
"""Of the stages that take longest or have most to lose; 4 of every other one, and 7 of the store
of feedback: 100 in all."""
IN_A_ROW = 3
"""Kills before the work is let end."""
FEEDBACK_KILLS = 7


def test_there_are_a_hundred_kills(all_stages: list[Any]) -> None:
    assert sum(KILLS.get(stage.name, 4) for stage in all_stages) + FEEDBACK_KILLS == 100


def test_killed_at_random_instants_the_same_command_ends_with_the_same_bits(
    stage: Any, flow: Any, warm: Any, tmp_path: Path, content: Callable[[Path], dict[str, str]]
) -> None:
    draw, seconds = random.Random(f"kill {stage.name}"), flow.seconds[stage.name]
    out = tmp_path / "work" / stage.out
    out.parent.mkdir()
    quota = killed = KILLS.get(stage.name, 4)
    while killed > 0:
        for _ in range(min(IN_A_ROW, killed)):
            ended = warm.run(stage.args(flow.root, out), kill_after=draw.uniform(0, seconds))
            if ended.code == -signal.SIGKILL:
                killed -= 1
            else:  # it was quicker than the unbroken one, whose machine was not warm
                assert ended.code in stage.ends, ended.err
                seconds = min(seconds, ended.seconds)
                break
        ended = warm.run(stage.args(flow.root, out))
        assert ended.code in stage.ends, ended.err
        assert "Traceback" not in ended.err
        assert content(out) == flow.content[stage.name]
        assert sorted(os.listdir(out.parent)) == [stage.out], "nothing is left beside it"
        out.rename(tmp_path / f"done-{killed}-{time.monotonic_ns()}")
    assert quota >= 3


STORE = """
import sys
from pathlib import Path
from types import SimpleNamespace
from isoflop.serving.feedback import FeedbackStore

store = FeedbackStore(Path(sys.argv[1]))
while True:
    opinion = SimpleNamespace(answer="four " * 200, rating=1, rejected=None, edited="4", seed=7,
                              sampling={"temperature": 0.5}, comment=None)
    print(store.add("0" * 64, [{"role": "user", "content": "2+2"}], opinion), flush=True)
"""


def test_a_feedback_store_keeps_every_opinion_it_has_acknowledged(tmp_path: Path) -> None:
    draw, path = random.Random("feedback"), tmp_path / "feedback.sqlite"
    for _ in range(FEEDBACK_KILLS):
        with subprocess.Popen(
            [sys.executable, "-c", STORE, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            said = [process.stdout.readline()]
            time.sleep(draw.uniform(0, 0.1))
            process.kill()
            said += process.stdout.readlines()
        acknowledged = [int(line) for line in said if line.endswith("\n")]
        with sqlite3.connect(path) as store:
            kept = [row[0] for row in store.execute("SELECT id FROM feedback ORDER BY id")]
            assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        store.close()
        assert kept[: acknowledged[-1]] == list(range(1, acknowledged[-1] + 1))
