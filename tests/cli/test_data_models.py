"""`isoflop data ngram` and `isoflop data classifier`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.cli.main import main

GOOD = "Anna buys {0} apples and {1} pears. How many pieces of fruit does she have now?"
BAD = "CLICK {0} here >>> best price {1} !!! buy buy now {0} {1} $$$ free"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, form in (("good", GOOD), ("bad", BAD)):
        rows = [{"text": form.format(n, 7 * n % 50), "fine": name == "good"} for n in range(150)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    both = (tmp_path / "good.jsonl").read_text() + (tmp_path / "bad.jsonl").read_text()
    (tmp_path / "both.jsonl").write_text(both)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    capsys.readouterr()
    assert main([*map(str, args)]) == 0
    return capsys.readouterr().out


def recipe(folder: Path, name: str, source: str, clean: str = "") -> Path:
    path = folder / f"{name}.toml"
    source_table = f'[[sources]]\nkind = "jsonl"\npath = "{source}"\nlanguage = "en"\n'
    path.write_text(f"held_out_fraction = 0.3\n{source_table}{clean}")
    return path


def dropped(capsys: pytest.CaptureFixture[str], folder: Path, clean: str) -> dict[str, int]:
    """How many documents of both kinds a build drops, by reason."""
    path = recipe(folder, "both", "both.jsonl", clean)
    out = json.loads(run(capsys, "data", "build", path, "-o", folder / "both", "--json"))
    return {reason: drop["documents"] for reason, drop in out["dropped"].items()}


def test_an_n_gram_model_of_good_text_filters_the_rest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "data", "build", recipe(folder, "good", "good.jsonl"), "-o", folder / "good")
    run(capsys, "tokenizer", "train", folder / "good", "--vocab-size", "280", "-o", folder / "tok")
    ask = ("data", "ngram", folder / "good", "--tokenizer", folder / "tok", "-o", folder / "model")
    made = json.loads(run(capsys, *ask, "--order", "3", "--json"))
    assert made["order"] == 3
    assert made["cutoffs"]["all"]["head"] <= made["cutoffs"]["all"]["middle"]
    assert "reference documents: perplexity" in run(capsys, *ask)
    clean = '[clean.perplexity]\nmodel = "model"\nmax = 8.0\n'
    assert dropped(capsys, folder, clean) == {"perplexity.high": 150}


@pytest.mark.parametrize(
    "examples", [("good.jsonl", "bad.jsonl"), ("both.jsonl", "--label", "fine")]
)
def test_a_classifier_of_examples_filters_the_rest(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    examples: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    ask = ("data", "classifier", *examples, "-o", "model")
    made = json.loads(run(capsys, *ask, "--json"))
    assert made["held_out"]["auc"] == 1.0
    assert (made["positive"], made["negative"]) == (150, 150)
    said = run(capsys, *ask)
    assert "calibration error" in said
    assert "min_score" in said
    clean = '[clean.classifier]\nmodel = "model"\nmin_score = 0.5\n'
    assert dropped(capsys, folder, clean) == {"classifier.low": 150}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("classifier", "good.jsonl", "-o", "m"), "1 paths of examples were given, not 2"),
        (("classifier", "a", "b", "--label", "x", "-o", "m"), "2 paths"),
        (("classifier", "good.jsonl", "none.jsonl", "-o", "m"), "none.jsonl"),
        (("ngram", "nowhere", "--tokenizer", "t", "-o", "m"), "no such corpus directory"),
    ],
)
def test_a_mistake_is_one_paragraph_and_exit_status_2(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(folder)
    assert main(["data", *args]) == 2
    assert said in capsys.readouterr().err
