"""`--plan`: what a command will take, said first; begun only by one who says yes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.cli import plan_first
from isoflop.cli.main import main
from isoflop.planning.foresee import foresee_train

COSTLY = (
    *("train", "ladder", "sft", "reward", "dpo", "ppo", "grpo", "data build", "compress"),
    *("tokenizer train", "tokenize", "eval", "mixture", "grokking"),
)


@pytest.mark.parametrize("command", COSTLY)
def test_every_costly_command_has_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert "--plan" in capsys.readouterr().out


def test_without_a_terminal_it_says_and_stops(
    train_toml: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], calibrated: None
) -> None:
    out = tmp_path / "run"
    flags = ["--train.no-native-kernels", "--plan"]
    assert main(["train", str(train_toml), "-o", str(out), *flags, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["begun"] is False
    seconds = document["plan"]["seconds"]
    assert 0 < seconds["low"] < seconds["value"] < seconds["high"]
    assert document["plan"]["memory_bytes"] > 10**7
    assert document["free_bytes"] > 0
    assert not out.exists()


def test_at_a_terminal_yes_begins_and_anything_else_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("words " * 500)
    recipe = tmp_path / "data.toml"
    recipe.write_text('[[sources]]\nkind = "text"\npath = "notes.txt"\nlanguage = "en"\n')
    monkeypatch.setattr(plan_first, "may_ask", lambda json_mode: True)
    monkeypatch.setattr(plan_first, "ask", lambda question: False)
    out = tmp_path / "corpus"
    assert main(["data", "build", str(recipe), "-o", str(out), "--plan"]) == 0
    assert not out.exists()
    begun = []
    monkeypatch.setattr(plan_first, "ask", lambda question: True)
    monkeypatch.setattr("isoflop.data.corpus.build", lambda *a, **k: begun.append(a) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["data", "build", str(recipe), "-o", str(out), "--plan"])
    assert len(begun) == 1


def test_a_source_whose_size_nobody_knows_leaves_the_time_untold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "data.toml"
    recipe.write_text('[[sources]]\nkind = "python"\n')
    out = tmp_path / "corpus"
    assert main(["data", "build", str(recipe), "-o", str(out), "--plan", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["plan"]["seconds"] is None
    assert document["plan"]["disk_bytes"] is None


def test_work_that_is_half_done_takes_half_the_time(
    train_toml: Path, tmp_path: Path, calibrated: None
) -> None:
    from isoflop.core.recipe import load_recipe
    from isoflop.training.recipe import TrainRecipe

    recipe = load_recipe(train_toml, TrainRecipe, ["--train.no-native-kernels"])
    whole = foresee_train(recipe, tmp_path / "new")
    (tmp_path / "half").mkdir()
    row = {"step": 50, "tokens": 12_800, "loss": 3.0}
    (tmp_path / "half" / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    half = foresee_train(recipe, tmp_path / "half")
    assert "50% are done" in half.basis[0]
    assert whole.disk_bytes == half.disk_bytes
