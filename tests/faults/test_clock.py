"""The time of day jumps an hour back in mid-work: nothing that is computed depends on it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli.main import main

pytestmark = pytest.mark.slow


def test_a_clock_put_back_changes_no_result(
    stage: Any, flow: Any, warm: Any, tmp_path: Path, content: Callable[[Path], dict[str, str]]
) -> None:
    out = tmp_path / "work" / stage.out
    out.parent.mkdir()
    ended = warm.run(stage.args(flow.root, out), clock=[3600.0, flow.seconds[stage.name] / 4])
    assert ended.code in stage.ends, ended.err
    assert "Traceback" not in ended.err
    assert content(out) == flow.content[stage.name]
    assert sorted(os.listdir(out.parent)) == [stage.out]


def test_times_are_not_negative_and_a_ledger_still_holds_after_a_jump(
    flow: Any, warm: Any, tmp_path: Path, stage_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "grpo"):
        out = tmp_path / stage_of(name).out
        ended = warm.run(stage_of(name).args(flow.root, out), clock=[86_400.0, 0.3])
        assert ended.code == 0, ended.err
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert all(row["seconds"] >= 0 and row["tokens_per_second"] > 0 for row in rows)
    assert main(["ledger", str(tmp_path / "grpo" / "ledger.jsonl")]) == 0
    assert "Traceback" not in capsys.readouterr().err
