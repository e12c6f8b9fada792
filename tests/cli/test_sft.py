"""`isoflop sft` and `isoflop data instruct`: what they print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.alignment import sft as sft_module
from isoflop.alignment.sft import SftResult
from isoflop.cli.main import main

RECIPE = '[model]\npath = "base"\n[data]\nset = "set"\n'


def result_of(run: Path, **changes: object) -> SftResult:
    known = {
        "run": run, "params_total": 1000, "trained_params": 200, "conversations": 5_000,
        "left_out": 3, "supervised_tokens": 9, "padding": 0.1, "steps": 7, "loss": 0.25,
        "exact_match": 0.5, "bits_per_byte": 1.5, "bits_per_byte_before": 1.25, "seconds": 2.0,
        "peak_memory_bytes": 1,
    }  # fmt: skip
    return SftResult(**{**known, **changes})  # type: ignore[arg-type]


def test_a_finished_fine_tuning_says_what_it_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sft.toml").write_text(RECIPE)
    monkeypatch.setattr(sft_module, "sft", lambda recipe, out, progress: result_of(out))
    run = tmp_path / "run"
    assert main(["sft", str(tmp_path / "sft.toml"), "-o", str(run)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{run}: 200 of 1,000 weights trained on 5,000 conversations in 2 s",
        f"left out or cut: 3 ({run / 'left_out.jsonl'})",
        "held-out loss 0.2500 nats per supervised token",
        "held-out questions answered right: 50.0%",
        "text it knew: 1.2500 bits per byte before, 1.5000 after",
        f"model: {run / 'model'}",
    ]
    assert main(["sft", str(tmp_path / "sft.toml"), "-o", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exact_match"] == 0.5


def test_impossible_recipes_are_refused_with_every_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "sft.toml"
    recipe.write_text(f"{RECIPE}replay_share = 1.5\n[lora]\ndora = true\n[train]\nepochs = 0\n")
    assert main(["sft", str(recipe), "-o", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    for reason in ("replay_share = 1.5", "lora.dora needs lora.rank", "epochs = 0"):
        assert reason in said


def test_a_set_says_what_is_in_it_and_what_was_dropped_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": ""}\n')
    recipe = tmp_path / "instruct.toml"
    recipe.write_text('held_out_fraction = 0.0\n[[sources]]\nkind = "jsonl"\npath = "rows.jsonl"\n')
    assert main(["data", "instruct", str(recipe), "-o", str(tmp_path / "set")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        str(tmp_path / "set"),
        "  supervised           1 train         0 held out",
        "  dropped 1 of jsonl: empty assistant turn",
    ]
    assert f"{rows}:2: empty assistant turn" in lines[3]
    command = ["data", "instruct", str(recipe), "-o", str(tmp_path / "other"), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["supervised"] == {"train": 1, "held_out": 0}
    assert main([*command[:-1], "--on-bad-row", "stop"]) == 2
    assert f"{rows}:2: empty assistant turn" in capsys.readouterr().err
