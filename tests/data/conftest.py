"""A small corpus, tokenizer and shards, built once and shared by the tests of data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import isoflop.core.artifact
from isoflop.data import corpus as corpus_module
from isoflop.data import shards as shards_module
from isoflop.data import tokenizer as tokenizer_module
from isoflop.data.corpus import Corpus
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.shards import Shards
from isoflop.data.tokenizer import Tokenizer

MIXED_LINES = (
    "The quick brown fox doesn't jump over 1234567890 lazy dogs; it's raining.",
    "敏捷的棕色狐狸跳过了懒狗。北京大学有３７８４名学生，他们学习数学。",
    "def f(x: int) -> int:\n    return x ** 2 + 1  # naïve café — Ünïcödé\n\n\t\tpass",
    "Emoji 👩‍👩‍👧‍👦🇨🇳🏳️‍🌈 and e\u0301 combining, 𝔘𝔫𝔦𝔠𝔬𝔡𝔢, ﷽, عربي, हिन्दी, ไทย, 한국어",
    "  leading\r\nand trailing   \n\n\n   spaces\u00a0\u3000 'S 'LL I'M ſ's don't",
)


@pytest.fixture(scope="session")
def mixed_lines() -> tuple[str, ...]:
    """Scripts, emoji, code, spaces and contractions that tokenizers stumble over."""
    return MIXED_LINES


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python files of two subpackages as plain text, and a JSONL of mixed scripts."""
    folder = tmp_path_factory.mktemp("texts")
    package = Path(isoflop.core.artifact.__file__).parents[1]
    # Not all of it: what a fixed vocabulary learns must not shift with every module added.
    for path in sorted([*package.glob("core/*.py"), *package.glob("data/*.py")]):
        if len(content := path.read_text("utf-8")) > 200:
            (folder / f"{path.parent.name}_{path.stem}.txt").write_text(content, "utf-8")
    with open(folder / "mixed.jsonl", "w", encoding="utf-8") as file:
        for number in range(60):
            line = MIXED_LINES[number % len(MIXED_LINES)]
            file.write(json.dumps({"text": f"{number}: {line}", "language": "mixed"}) + "\n")
    return folder


@pytest.fixture(scope="session")
def recipe(text_folder: Path) -> DataRecipe:
    return DataRecipe(
        sources=(
            SourceConfig("text", path=text_folder, language="code"),
            SourceConfig("jsonl", path=text_folder / "mixed.jsonl"),
            SourceConfig("word-problems", documents=400),
        ),
        held_out_fraction=0.1,
        seed=3,
    )


@pytest.fixture(scope="session")
def corpus(recipe: DataRecipe, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus_module.build(recipe, tmp_path_factory.mktemp("built") / "corpus")


@pytest.fixture(scope="session")
def tokenizer(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_module.train(corpus, 512, tmp_path_factory.mktemp("built") / "tokenizer")


@pytest.fixture(scope="session")
def shards(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Shards:
    out = tmp_path_factory.mktemp("built") / "shards"
    return shards_module.tokenize(corpus, tokenizer.directory, out)
