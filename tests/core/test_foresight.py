from pathlib import Path

import pytest

from isoflop.core.foresight import Foresight, Span, ask, may_ask


def test_what_is_known_is_said_with_its_ends_and_what_is_not_is_not() -> None:
    foresight = Foresight(Span(90.0, 60.0, 180.0), 412_000_000, None, ("measured now",))
    assert foresight.text(Path("run"), 10**9).splitlines() == [
        "time    1 min 30 s (1 min 0 s to 3 min 0 s)",
        "memory  412 MB",
        "disk    not foretold (1 GB free at run)",
        "  measured now",
    ]


def test_a_disk_that_is_too_small_is_told() -> None:
    text = Foresight(None, None, 2_000, ()).text(Path("run"), 1_000)
    assert "the disk has too little room" in text
    assert "too little" not in Foresight(None, None, 2_000, ()).text(Path("run"), 3_000)


def test_only_a_clear_yes_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["y", "Yes", "", "n", "why"])
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    assert [ask("begin?") for _ in range(5)] == [True, True, False, False, False]


def test_nobody_is_asked_where_json_is_wanted_or_no_terminal_is() -> None:
    assert not may_ask(json_mode=True)
    assert not may_ask(json_mode=False)  # the tests' own input is no terminal
