"""Logs reach the disk line by line, and are cut back to where a run resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.training.metrics import EVENTS, LOGS, RunLog, cut_logs


def test_each_line_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=False, start_step=0)
    for step in range(3):
        log.write("metrics.jsonl", {"step": step, "text": "é中"})
        lines = (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(step + 1))
    log.close()


def test_content_logs_are_cut_to_their_length_and_events_only_grow(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=False, start_step=0)
    for name in (*LOGS, EVENTS):
        log.write(name, {"step": 1})
    lengths = log.sync()
    for name in (*LOGS, EVENTS):
        log.write(name, {"step": 2})
    log.close()
    cut_logs(tmp_path, lengths)
    again = RunLog(tmp_path, tensorboard=False, start_step=1)
    for name in (*LOGS, EVENTS):
        again.write(name, {"step": 3})
    again.close()
    for name in LOGS:
        assert (tmp_path / name).read_text() == '{"step": 1}\n{"step": 3}\n'
    assert (tmp_path / EVENTS).read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'


def test_an_unfinished_line_of_events_is_cut(tmp_path: Path) -> None:
    (tmp_path / EVENTS).write_text('{"event": "started"}\n{"event": "inter')
    cut_logs(tmp_path, {})
    assert (tmp_path / EVENTS).read_text() == '{"event": "started"}\n'


def test_a_run_from_the_start_empties_its_logs(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    cut_logs(tmp_path, {})
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert not (tmp_path / "evals.jsonl").exists()


def test_a_log_shorter_than_its_mark_is_not_filled_with_zeros(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    cut_logs(tmp_path, {"metrics.jsonl": 100})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_tensorboard_shows_the_same_numbers(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = RunLog(tmp_path, tensorboard=True, start_step=0)
    log.write("metrics.jsonl", {"step": 4, "tokens": 128, "loss": 3.5, "lr": 0.25})
    log.write("evals.jsonl", {"step": 4, "tokens": 128, "loss": 3.25})
    log.write(EVENTS, {"event": "started", "step": 0})
    log.close()
    board = events.EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    shown = {tag: [(e.step, e.value) for e in board.Scalars(tag)]
             for tag in board.Tags()["scalars"]}  # fmt: skip
    assert shown == {"metrics/loss": [(4, 3.5)], "metrics/lr": [(4, 0.25)],
                     "evals/loss": [(4, 3.25)]}  # fmt: skip
