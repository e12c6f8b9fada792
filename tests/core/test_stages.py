"""Several pieces of work as one: what is reported of each moves the whole by its share."""

from __future__ import annotations

import pytest

from isoflop.core.stages import Stages


class Recorder:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def start(self, label: str, total: float, unit: str) -> None:
        self.said.append(("start", label, total, unit))

    def advance(self, done: float, note: str = "") -> None:
        self.said.append(("advance", done, note))

    def finish(self, summary: str = "") -> None:
        self.said.append(("finish", summary))

    def note(self, text: str) -> None:
        self.said.append(("note", text))


@pytest.fixture
def outer() -> Recorder:
    return Recorder()


def test_the_whole_is_as_long_as_its_stages(outer: Recorder) -> None:
    Stages(outer, "demo", {"a": 10.0, "b": 30.0, "c": 5.0})
    assert outer.said == [("start", "demo", 45.0, "seconds")]


def test_half_of_a_stage_is_all_stages_before_it_and_half_its_seconds(outer: Recorder) -> None:
    stages = Stages(outer, "demo", {"a": 10.0, "b": 30.0, "c": 5.0})
    stage = stages.stage("b")
    stage.start("whatever it calls itself", 400, "tokens")
    stage.advance(200, "loss 3")
    assert outer.said[1:] == [("advance", 10.0, "b"), ("advance", 25.0, "b: loss 3")]


def test_a_stage_never_moves_the_whole_beyond_its_own_end(outer: Recorder) -> None:
    stage = Stages(outer, "demo", {"a": 10.0, "b": 30.0}).stage("a")
    stage.start("", 100, "tokens")
    stage.advance(1e9)
    assert outer.said[-1] == ("advance", 10.0, "a")


def test_a_stage_of_no_work_divides_nothing_by_zero(outer: Recorder) -> None:
    stage = Stages(outer, "demo", {"a": 10.0}).stage("a")
    stage.start("", 0, "tokens")
    stage.advance(0)
    assert outer.said[-1] == ("advance", 0.0, "a")


def test_the_end_of_a_stage_is_a_note_and_only_the_whole_finishes(outer: Recorder) -> None:
    stages = Stages(outer, "demo", {"a": 10.0})
    stage = stages.stage("a")
    stage.finish("9 runs")
    stage.finish()
    stage.note("said")
    stages.finish("done")
    assert outer.said[2:] == [("note", "a: 9 runs"), ("note", "said"), ("finish", "done")]
