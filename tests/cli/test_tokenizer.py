"""`isoflop tokenizer train`, `study` and `extend`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.cli.main import main
from isoflop.data import corpus as corpus_module
from isoflop.data.recipe import DataRecipe, SourceConfig


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    rows = [
        {"text": f"number {n}: 中文与English的混合文本,第{n}行。" * 3, "language": "zh"}
        for n in range(60)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sources = (
        SourceConfig("jsonl", path=folder / "rows.jsonl"),
        SourceConfig("word-problems", documents=300),
    )
    corpus_module.build(DataRecipe(sources, held_out_fraction=0.2), folder / "corpus")
    return folder / "corpus"


def run(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main([*map(str, args)]) == 0
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main([*map(str, args)]) == 2
    return capsys.readouterr().err


def test_training_reports_bytes_per_token_by_language(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ("tokenizer", "train", corpus, "--vocab-size", 320, "-o", tmp_path / "t")
    document = json.loads(run(capsys, *train, "--json"))
    assert set(document["bytes_per_token"]) == {"all", "en", "zh"}
    assert all(1 < value < 10 for value in document["bytes_per_token"].values())
    text = run(capsys, *train)
    assert f"{document['bytes_per_token']['zh']:.2f}" in text


def test_a_unigram_and_reserved_tokens_by_switch(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    switches = ("--model", "unigram", "--reserve", "<|think|>", "<|tool|>")
    train = ("tokenizer", "train", corpus, "--vocab-size", 300, "-o", tmp_path / "t")
    document = json.loads(run(capsys, *train, *switches, "--json"))
    assert document["special_ids"] == {
        "<|endoftext|>": 295, "<|im_start|>": 296, "<|im_end|>": 297,
        "<|think|>": 298, "<|tool|>": 299,
    }  # fmt: skip
    raw = json.loads((tmp_path / "t" / "tokenizer.json").read_text())
    assert raw["model"]["type"] == "Unigram"
    assert "--reserve" in refused(capsys, *train, "--reserve", "<|im_end|>")


def test_the_study_names_the_size_of_fewest_flops_per_byte(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = ("tokenizer", "study", corpus, "--vocab-sizes", "270,300,380", "--d-model", "64")
    document = json.loads(run(capsys, *study, "--json"))
    costs = {size["vocab_size"]: size["flops_per_byte"] for size in document["sizes"]}
    assert list(costs) == [270, 300, 380]
    assert document["best_vocab_size"] == min(costs, key=costs.__getitem__)
    text = run(capsys, *study)
    assert f"Fewest FLOPs per byte at {document['best_vocab_size']}" in text
    assert {"all", "en", "zh"} <= set(text.splitlines()[0].split())
    assert "`12,abc` is not a list" in refused(
        capsys, "tokenizer", "study", corpus, "--vocab-sizes", "12,abc"
    )
    assert "at least 259" in refused(capsys, "tokenizer", "study", corpus, "--vocab-sizes", "12")


def test_extending_shows_before_and_after(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "tokenizer", "train", corpus, "--vocab-size", 300, "-o", tmp_path / "old")
    extend = ("tokenizer", "extend", tmp_path / "old", corpus, "--add", 20, "-o", tmp_path / "new")
    document = json.loads(run(capsys, *extend, "--json"))
    assert (document["before"]["vocab_size"], document["vocab_size"]) == (300, 320)
    assert document["bytes_per_token"]["all"] > document["before"]["bytes_per_token"]["all"]
    assert "300 + 20 tokens" in run(capsys, *extend)
    assert "cannot be added" in refused(
        capsys, "tokenizer", "extend", tmp_path / "old", corpus, "--add=-1", "-o", tmp_path / "n"
    )
