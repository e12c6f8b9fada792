"""Whatever is misspelt, the message names what was probably meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
TRAIN = str(ROOT / "recipes" / "train.toml")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tran", "train"),
        ("shwo x", "show"),
        ("data biuld x", "build"),
        ("laws predcit x", "predict"),
        ("train RECIPE -o run --train.tokns 9", "--train.tokens"),
        ("runs --al", "--all"),
        ("report x --comapre", "--compare"),
        ("laws published besiroglo", "besiroglu"),
        ("laws fit runs.csv --form chinchila", "chinchilla"),
        ("plan --gpus 8 --gpu h100-80bg --hours 2", "h100-80gb"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_right_one(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [TRAIN if word == "RECIPE" else word for word in typed.split()]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert meant in said
    assert "Traceback" not in said


def test_a_misspelt_key_of_a_recipe_is_answered_with_the_right_one_and_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "train.toml"
    recipe.write_text('[data]\nshards = "s"\n[train]\ntokns = 9\n')
    assert main(["train", str(recipe), "-o", str(tmp_path / "run"), "--json"]) == 2
    said = capsys.readouterr()
    assert "tokens" in said.err
    assert "4" in said.err
    assert "tokens" in json.dumps(json.loads(said.out)["error"])


def test_a_misspelt_task_is_answered_with_the_right_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", str(tmp_path / "scores")]
    assert main(["eval", str(tmp_path), "--tasks", "cloz", *out]) == 2
    assert "cloze" in capsys.readouterr().err
