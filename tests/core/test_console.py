"""Progress with an honest estimate; results as text or JSON."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.console import (
    SECONDS_BETWEEN_LINES_IN_CI,
    Pace,
    PlainProgress,
    RichProgress,
    format_seconds,
    json_text,
    make_progress,
    print_result,
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_estimate_is_what_is_left_at_the_pace_so_far() -> None:
    pace = Pace(total=200, now=0.0)
    assert pace.seconds_left(0.0) is None
    pace.advance(50, now=10.0)
    assert pace.seconds_left(10.0) == pytest.approx(30.0)
    assert pace.seconds_left(14.0) == pytest.approx(26.0)
    assert pace.seconds_left(99.0) == 0.0


def test_work_done_by_an_earlier_run_does_not_speed_the_estimate() -> None:
    pace = Pace(total=200, now=0.0)
    pace.advance(100, now=0.1)
    assert pace.seconds_left(0.1) is None
    pace.advance(150, now=10.1)
    assert pace.seconds_left(10.1) == pytest.approx(10.0)


def test_predicted_seconds_are_scaled_by_the_measured_pace() -> None:
    pace = Pace(total=600.0, now=0.0)
    pace.advance(60.0, now=90.0)  # half as slow again as predicted
    assert pace.seconds_left(90.0) == pytest.approx(540 * 1.5)


def test_plain_progress_speaks_at_most_every_five_seconds() -> None:
    clock, said = Clock(), io.StringIO()
    progress = PlainProgress(said, clock)
    progress.start("train", 1000, "steps")
    for step in range(1, 1001):
        clock.now += 1 / 64  # exact in binary
        progress.advance(step, f"loss {step}")
    progress.finish("loss 3.1")
    lines = said.getvalue().splitlines()
    assert lines[0] == "train …"
    assert lines[-1] == "train: done in 16 s, loss 3.1"
    assert len(lines) == 5
    assert lines[1].endswith("32% (320 of 1,000 steps), 5.0 s gone, about 11 s left, loss 320")


def test_rich_progress_can_be_driven_through_its_whole_life(capsys) -> None:
    progress = RichProgress(lambda: 0.0)
    progress.advance(1)
    progress.start("[a]", 10, "s")
    progress.advance(5, "half [b]")
    progress.note("[said] beside")
    progress.start("second", 0, "s")
    progress.finish("fine")
    progress.finish()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "[said] beside" in captured.err
    assert "second: done in 0.0 s, fine" in captured.err


def test_without_a_terminal_progress_is_plain(monkeypatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(make_progress(), PlainProgress)
    assert isinstance(make_progress(json_mode=True), PlainProgress)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (86399, "1 d 0 h"),
        (273600, "3 d 4 h"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    assert format_seconds(seconds) == words


def test_a_result_is_text_or_one_json_document(capsys) -> None:
    print_result({"a": 1}, "text", json_mode=False)
    assert capsys.readouterr().out == "text\n"
    print_result({"a": 1}, "text", json_mode=True)
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_json_holds_paths_dataclasses_numpy_numbers_and_no_infinities() -> None:
    @dataclass
    class Inner:
        path: Path
        x: float

    document = {"i": Inner(Path("a/b"), float("inf")), "n": np.float32(0.5), "t": (np.int64(3),)}
    text = json_text({**document, 7: "é中"})
    expected = {"i": {"path": "a/b", "x": None}, "n": 0.5, "t": [3], "7": "é中"}
    assert json.loads(text) == expected


def test_in_ci_a_line_a_minute_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr("sys.stderr", io.StringIO())
    quiet = make_progress()
    assert isinstance(quiet, PlainProgress)
    now = iter([0.0, 6.0, 30.0, 61.0])
    said = io.StringIO()
    progress = PlainProgress(said, lambda: next(now), SECONDS_BETWEEN_LINES_IN_CI)
    progress.start("work", 100, "steps")
    for done in (10, 50, 60):
        progress.advance(done)
    assert len(said.getvalue().splitlines()) == 2
