from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.core.errors import DataError
from isoflop.data.corpus import Corpus, build
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.tokenizer import Tokenizer, load, train
from isoflop.data.tokenizer_extend import extend
from isoflop.data.tokenizer_study import compression

CHINESE = "北京大学的学生学习数学和语言。今天天气很好,我们去公园散步。机器学习模型需要数据。"
N_ADDED = 40


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("zh")
    with open(folder / "zh.jsonl", "w", encoding="utf-8") as file:
        for number in range(80):
            cut = number % len(CHINESE)
            text = f"{CHINESE[cut:]}{number}。{CHINESE[:cut]}{CHINESE}"
            file.write(json.dumps({"text": text, "language": "zh"}) + "\n")
    source = SourceConfig("jsonl", path=folder / "zh.jsonl")
    return build(DataRecipe(sources=(source,), held_out_fraction=0.2), folder / "corpus")


@pytest.fixture(scope="module")
def extended(
    tokenizer: Tokenizer, chinese: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    return extend(tokenizer.directory, chinese, N_ADDED, tmp_path_factory.mktemp("x") / "t")


def test_old_ids_keep_their_meaning_and_new_ones_follow(
    tokenizer: Tokenizer, extended: Tokenizer, mixed_lines: tuple[str, ...]
) -> None:
    old = tokenizer.vocab_size
    assert extended.vocab_size == old + N_ADDED
    assert extended.token_bytes[:old] == tokenizer.token_bytes
    assert (extended.special_ids, extended.eos_id) == (tokenizer.special_ids, tokenizer.eos_id)
    assert len(set(extended.token_bytes[old:])) == N_ADDED
    for line in mixed_lines:
        assert extended.decode(tokenizer.encode(line)) == line


@settings(deadline=None)
@given(text=st.one_of(st.text(max_size=80), st.text(alphabet=CHINESE + " a<|endoftext|>1")))
def test_any_text_comes_back_and_the_hugging_face_library_agrees(
    extended: Tokenizer, text: str
) -> None:
    assert extended.backend == "tiktoken"
    ids = extended.encode(text)
    assert extended.decode(ids) == text
    assert not set(ids) & set(extended.special_ids.values())
    theirs = tokenizers.Tokenizer.from_file(str(extended.directory / "tokenizer.json"))
    theirs.encode_special_tokens = True
    assert theirs.encode(text, add_special_tokens=False).ids == ids


def test_the_new_language_takes_fewer_tokens(
    tokenizer: Tokenizer, extended: Tokenizer, chinese: Corpus
) -> None:
    before, after = compression(tokenizer, chinese)[0], compression(extended, chinese)[0]
    assert after.text_bytes == before.text_bytes
    assert after.tokens < 0.5 * before.tokens


def test_extending_continues_as_one_long_training_would(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Ties may be broken differently; the bulk of what both learn is the same."""
    train(corpus, 384, tmp_path / "short")
    grown = extend(tmp_path / "short", corpus, 128, tmp_path / "grown")
    assert grown.vocab_size == tokenizer.vocab_size == 512
    both = set(grown.token_bytes) & set(tokenizer.token_bytes)
    assert len(both) >= 0.98 * 512


def test_extending_twice_gives_the_same_file_and_can_go_on(
    tokenizer: Tokenizer, extended: Tokenizer, chinese: Corpus, tmp_path: Path
) -> None:
    again = extend(tokenizer.directory, chinese, N_ADDED, tmp_path / "again")
    name = "tokenizer.json"
    assert (again.directory / name).read_bytes() == (extended.directory / name).read_bytes()
    further = extend(extended.directory, chinese, 5, tmp_path / "further")
    assert further.token_bytes[: extended.vocab_size] == extended.token_bytes
    assert further.encode(CHINESE) != tokenizer.encode(CHINESE)


def test_what_cannot_be_extended_is_refused(
    corpus: Corpus, tokenizer: Tokenizer, chinese: Corpus, tmp_path: Path
) -> None:
    unigram = train(corpus, 300, tmp_path / "u", model="unigram")
    with pytest.raises(DataError, match="only a byte-level BPE"):
        extend(unigram.directory, chinese, 5, tmp_path / "t")
    with pytest.raises(DataError, match=r"only \d+ more tokens, not 100000"):
        extend(tokenizer.directory, chinese, 100_000, tmp_path / "t")
    with pytest.raises(DataError, match="0 tokens cannot be added"):
        extend(tokenizer.directory, chinese, 0, tmp_path / "t")
    assert not (tmp_path / "t").exists()
    assert load(tokenizer.directory) is not None
