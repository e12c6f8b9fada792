"""`isoflop ledger` as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.cli.main import main
from isoflop.core.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for outcome in (3.05, 3.5):
        ledger.settle(ledger.promise("loss", "nats", 3.0, 2.9, 3.1, 0.9, "law"), outcome)
    ledger.promise("peak memory", "bytes", 2e9, 1e9, 3e9, 0.9, "measured")
    return ledger


def test_promises_and_the_calibration_are_printed(ledger: Ledger, capsys) -> None:
    assert main(["ledger", str(ledger.path)]) == 0
    said = capsys.readouterr().out
    assert "of 2 promises at 90 %, 1 held (1 still open)" in said
    lines = said.splitlines()
    assert [line.split()[-1] for line in lines[1:4]] == ["held", "missed", "open"]
    assert "1,000,000,000 to 3,000,000,000" in lines[3]


def test_a_directory_that_holds_a_ledger_will_do(ledger: Ledger, capsys) -> None:
    assert main(["ledger", str(ledger.path.parent), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [promise["held"] for promise in document["promises"]] == [True, False, None]
    assert document["calibration"] == [{"level": 0.9, "promised": 3, "settled": 2, "held": 1}]
    assert document["chain"] == {"lines": 5, "head": ledger.verify().head, "torn": False}


def test_a_broken_chain_is_exit_2_and_names_the_line(ledger: Ledger, capsys) -> None:
    text = ledger.path.read_text()
    ledger.path.write_text(text.replace("3.05", "3.04"))
    assert main(["ledger", str(ledger.path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"{ledger.path}:2: this line does not match its hash.")


def test_a_torn_last_line_is_said_and_the_rest_shown(ledger: Ledger, capsys) -> None:
    with open(ledger.path, "a") as file:
        file.write('{"id": "p4", "quan')
    assert main(["ledger", str(ledger.path)]) == 0
    said = capsys.readouterr()
    assert "an unfinished line after line 5" in said.err
    assert "of 2 promises at 90 %" in said.out


def test_a_missing_or_empty_ledger_is_told_apart(tmp_path: Path, capsys) -> None:
    assert main(["ledger", str(tmp_path)]) == 2
    assert "no such ledger" in capsys.readouterr().err
    (tmp_path / "ledger.jsonl").touch()
    assert main(["ledger", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no promises yet\n"
