"""Opinions from the store to a model that wins more often, by the commands that people type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli.main import main
from isoflop.serving.feedback import FeedbackStore
from isoflop.serving.protocol import FeedbackBody

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def test_a_model_trained_on_opinions_wins_more_held_out_pairs(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    for number in range(120):
        asked = [{"role": "user", "content": f"number {number}"}]
        short, long = f"{number}.", f"Well, {number}, I think, it is."
        # People like short answers: one half choose, the other half correct.
        opinion: dict[str, Any] = (
            {"answer": short, "rejected": long} if number % 2 else {"answer": long, "edited": short}
        )
        store.add("model", asked, FeedbackBody.model_validate({"messages": asked, **opinion}))
    store.close()
    rows = tmp_path / "preferences.jsonl"
    assert (
        main(["feedback", "export", str(store.path), "--to", "preferences", "-o", str(rows)]) == 0
    )
    made, trained = tmp_path / "set", tmp_path / "run"
    recipe = (RECIPES / "feedback-set.toml").read_text()
    (tmp_path / "set.toml").write_text(
        recipe.replace("../build/feedback/preferences.jsonl", str(rows))
    )
    assert main(["data", "instruct", str(tmp_path / "set.toml"), "-o", str(made)]) == 0
    said = [
        "dpo", str(RECIPES / "feedback.toml"), "-o", str(trained), "--model.path", str(model_dir),
        "--data.set", str(made), "--optimizer.learning-rate", "3e-3", "--train.epochs", "3",
        "--train.evaluations", "1",
    ]  # fmt: skip
    assert main(said) == 0
    capsys.readouterr()
    compare = ["feedback", "compare", str(made), "--before", str(model_dir), "--json", "--after"]
    assert main([*compare, str(trained / "model")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["pairs"] >= 15
    assert document["before"]["value"] < 0.9
    assert document["after"]["value"] > document["before"]["value"]
    assert document["gain"]["low"] > 0
    # The same model has gained nothing, and that is a bad verdict.
    assert main([*compare, str(model_dir)]) == 1
    assert json.loads(capsys.readouterr().out)["gain"]["value"] == 0
