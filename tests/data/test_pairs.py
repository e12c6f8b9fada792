"""Pairs of texts: read, held out by their source, dealt once an epoch, refused by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.core.errors import DataError
from isoflop.data import tokenizer
from isoflop.data.pairs import read_pairs
from isoflop.data.shards import Shards
from isoflop.data.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def words(tiny_shards: Shards) -> Tokenizer:
    return tokenizer.load(tiny_shards.tokenizer_directory)


def write(path: Path, sources: list[str]) -> Path:
    lines = [json.dumps({"source": s, "target": s[::-1], "note": 1}) for s in sources]
    path.write_text("\n".join([*lines, ""]), "utf-8")
    return path


def test_every_pair_is_dealt_once_an_epoch_and_no_source_is_on_both_sides(
    words: Tokenizer, tmp_path: Path
) -> None:
    sources = [f"loss {i % 150}" for i in range(300)]
    pairs = read_pairs(write(tmp_path / "p.jsonl", sources), words, 64)
    assert len(pairs.train) + len(pairs.held_out) == 300
    texts = [{words.decode(p.source) for p in side} for side in (pairs.train, pairs.held_out)]
    assert not texts[0] & texts[1]
    n = len(pairs.train)
    for epoch in range(2):
        dealt = [words.decode(p.source) for p in pairs.batch(epoch * n, n, seed=3)]
        assert sorted(dealt) == sorted(words.decode(p.source) for p in pairs.train)
    for pair in pairs.held_out:
        assert words.decode(pair.target) == words.decode(pair.source)[::-1]
        assert pair.source[-1] == pair.target[-1] == words.eos_id


def test_pairs_longer_than_a_sequence_are_counted(words: Tokenizer, tmp_path: Path) -> None:
    sources = [f"loss {i}" for i in range(100)] + ["law " * 200, "batch " * 90]
    assert read_pairs(write(tmp_path / "p.jsonl", sources), words, 40).too_long == 2


@pytest.mark.parametrize("bad", ["{", '{"source": "a"}', '{"source": 1, "target": "b"}', "[]"])
def test_a_line_that_is_no_pair_is_named(words: Tokenizer, tmp_path: Path, bad: str) -> None:
    path = write(tmp_path / "p.jsonl", ["loss"] * 3)
    path.write_text(path.read_text("utf-8") + bad + "\n", "utf-8")
    with pytest.raises(DataError) as error:
        read_pairs(path, words, 64)
    assert str(error.value.where).endswith("p.jsonl, line 4")


def test_too_few_pairs_are_refused(words: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0 held out|0 pairs"):
        read_pairs(write(tmp_path / "p.jsonl", ["loss"]), words, 64)
