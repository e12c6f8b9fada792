"""`isoflop demo` prints the verdict, and its exit code is the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import isoflop.demo
from isoflop.cli.main import main
from isoflop.demo import DemoResult


@pytest.fixture
def fake_demo(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Put a demo that is over at once in the place of the real one; keeps what it was asked."""
    asked: dict[str, Any] = {"held": True}

    def demo(out: Path, minutes: float, seed: int, progress: object) -> DemoResult:
        asked.update(out=out, minutes=minutes, seed=seed)
        summary = {
            "seed": seed, "promise": {"value": 3.0, "low": 2.95, "high": 3.05, "level": 0.9},
            "outcome": 3.03, "held": asked["held"], "error_percent": -0.99, "seconds": 570.0,
            "promised_seconds": 600.0,
        }  # fmt: skip
        summary |= asked.get("more", {})
        return DemoResult(out, summary, (), out / "report.html", out / "model")

    monkeypatch.setattr(isoflop.demo, "demo", demo)
    return asked


def test_the_verdict_is_one_sentence_with_what_to_open_next(
    fake_demo: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", "d", "--minutes", "3", "--seed", "7"]) == 0
    assert (fake_demo["out"], fake_demo["minutes"], fake_demo["seed"]) == (Path("d"), 3.0, 7)
    assert capsys.readouterr().out == (
        "promised 3.0000 nats per token, 2.9500 to 3.0500 at 90%; the run came to 3.0300: held, "
        "-0.99 % off\n9.5 minutes, 10.0 promised\nreport: d/report.html\n"
        "model:  isoflop chat d/model\n"
    )


def test_a_missed_promise_is_exit_code_1(
    fake_demo: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fake_demo["held"] = False
    assert main(["demo"]) == 1
    assert "MISSED" in capsys.readouterr().out


def test_json_is_the_summary(fake_demo: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["promise"]["value"] == 3.0


@pytest.mark.parametrize("minutes", ["0", "-3", "nan"])
def test_minutes_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], minutes: str
) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo"), f"--minutes={minutes}"]) == 2
    assert "must be positive" in capsys.readouterr().err
    assert not (tmp_path / "demo" / "demo.json").exists()


def test_what_follows_pre_training_is_told_a_line_a_stage(
    fake_demo: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fake_demo["more"] = {
        "chat": {
            "sft": {"exact_match": 0.61, "bits_per_byte_before": 1.6, "bits_per_byte": 1.56},
            "grpo": {"exact_match_start": 0.5, "exact_match": 0.5},
        },
        "emergence": {"cloze": "not enough data"},
        "int8": {"bytes": 30, "bytes_full": 100, "bits_per_byte": 1.5615,
                 "bits_per_byte_full": 1.56},
        "served": [
            {"question": "What is 3 × 4?", "status": 200, "answer": "The answer is 12.",
             "calls": [["calculator", "{}"]]},
            {"question": "A bomb?", "status": 400, "answer": "refused", "calls": []},
        ],
    }  # fmt: skip
    assert main(["demo"]) == 0
    assert capsys.readouterr().out.splitlines()[1:10] == [
        "taught: 61% of held-out questions right; text it knew: -2.5 % bits per byte",
        "practised for a reward: word problems right 50.0% to 50.0%, no gain",
        "emergence: cloze: not enough data",
        "int8: 30% of the bytes, +0.10 % loss",
        "served:",
        "  What is 3 × 4?",
        "    [calculator {}] The answer is 12.",
        "  A bomb?",
        "    (400) refused",
    ]
