from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.artifact import MANIFEST, read_manifest
from isoflop.core.errors import ArtifactError
from isoflop.data.checksums import BLOCK_BYTES
from isoflop.data.choose import SPLITS
from isoflop.data.corpus import Corpus
from isoflop.data.shards import Shards, Split, open_shards, shard_summary, tokenize
from isoflop.data.tokenizer import Tokenizer


@pytest.fixture
def copy(shards: Shards, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shards.directory, tmp_path / "copy"))


def splits(shards: Shards) -> dict[str, Split]:
    return {"train": shards.train, "held_out": shards.held_out}


@pytest.mark.parametrize("name", SPLITS)
def test_decoding_the_shards_gives_the_corpus_back(
    name: str, shards: Shards, corpus: Corpus, tokenizer: Tokenizer
) -> None:
    split = splits(shards)[name]
    rows = [row for group in corpus.documents(name) for row in group]
    assert split.n_documents == len(rows)
    for number, row in enumerate(rows):
        ids = split.tokens[split.document_starts[number] : split.document_starts[number + 1]]
        assert ids[-1] == shards.eos_id
        assert shards.eos_id not in ids[:-1]
        assert tokenizer.decode(ids) == row["text"]
        assert split.kinds[split.document_kinds[number]] == row["language"]


@pytest.mark.parametrize("name", SPLITS)
def test_the_index_counts_tokens_and_bytes_exactly(
    name: str, shards: Shards, corpus: Corpus
) -> None:
    split, entry = splits(shards)[name], shard_summary(shards)["splits"][name]
    texts = [row["text"] for group in corpus.documents(name) for row in group]
    assert split.n_bytes == entry["bytes"] == sum(len(text.encode()) for text in texts)
    assert split.n_tokens == entry["tokens"] == split.document_starts[-1]
    assert split.n_bytes == split.byte_lengths[split.tokens].sum()
    assert sum(kind["tokens"] for kind in entry["by_kind"].values()) == split.n_tokens
    assert sum(kind["bytes"] for kind in entry["by_kind"].values()) == split.n_bytes


def test_tokens_are_sixteen_bit_and_read_only(shards: Shards) -> None:
    assert shards.train.tokens.dtype == np.uint16
    assert isinstance(shards.train.tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        shards.train.tokens[0] = 1


def test_the_same_corpus_and_tokenizer_give_the_same_bytes(
    corpus: Corpus, tokenizer: Tokenizer, shards: Shards, tmp_path: Path
) -> None:
    again = tokenize(corpus, tokenizer.directory, tmp_path / "again")
    assert read_manifest(again.directory).files == read_manifest(shards.directory).files


def test_the_tokenizer_travels_with_the_shards(shards: Shards, tokenizer: Tokenizer) -> None:
    ours = shards.tokenizer_directory / "tokenizer.json"
    assert ours.read_bytes() == (tokenizer.directory / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    "name", ["train.bin", "held_out.starts.npy", "held_out.kinds.npy", "train.crc32.npy"]
)
def test_a_truncated_file_is_named_at_opening(copy: Path, name: str) -> None:
    path = copy / name
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ArtifactError, match=rf"{name}.*again"):
        open_shards(copy)


@pytest.mark.parametrize("name", ["train.bin", "held_out.starts.npy", "tokenizer/tokenizer.json"])
def test_a_missing_file_is_named_at_opening(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        open_shards(copy)


@pytest.mark.parametrize("offset", [0, 70_000, -1])
def test_one_changed_bit_is_named_by_file_and_offset_when_it_is_read(
    copy: Path, offset: int, shards: Shards
) -> None:
    path = copy / "train.bin"
    content = bytearray(path.read_bytes())
    assert len(content) > 70_000 + 2 * BLOCK_BYTES
    at = offset % len(content)
    content[at] ^= 8
    path.write_bytes(content)
    block = at // BLOCK_BYTES * BLOCK_BYTES
    message = rf"train\.bin: bytes {block:,} to .* \(offset {block:#x}\) differ"
    with pytest.raises(ArtifactError, match=message):
        open_shards(copy, verify=True)
    damaged = open_shards(copy).train
    for start in range(0, damaged.n_tokens - 10, 1000):
        touched = {(start * 2) // BLOCK_BYTES, ((start + 10) * 2 - 1) // BLOCK_BYTES}
        if block // BLOCK_BYTES in touched:
            with pytest.raises(ArtifactError, match=message):
                damaged.windows(np.array([0, start]), 10)
            break
        found = damaged.windows(np.array([start]), 10)[0]
        assert np.array_equal(found, shards.train.tokens[start : start + 10])
    else:
        with pytest.raises(ArtifactError, match=message):
            damaged.windows(np.array([damaged.n_tokens - 10]), 10)


@pytest.mark.parametrize("name", ["held_out.starts.npy", "held_out.kinds.npy", "index.json"])
def test_one_changed_byte_is_found_by_verifying(copy: Path, name: str) -> None:
    open_shards(copy, verify=True)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name}.*(differs|cannot be read|not valid)"):
        open_shards(copy, verify=True)


def test_an_index_of_another_version_or_without_its_parts_is_refused(copy: Path) -> None:
    index = json.loads((copy / "index.json").read_text())
    (copy / "index.json").write_text(json.dumps({**index, "version": 99}))
    with pytest.raises(ArtifactError, match="not an index of version 2"):
        open_shards(copy)
    del index["dtype"]
    (copy / "index.json").write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match="the index lacks 'dtype'"):
        open_shards(copy)


def test_an_unfinished_directory_is_refused(copy: Path) -> None:
    (copy / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match="not a finished shards"):
        open_shards(copy)


def test_a_corpus_is_not_taken_for_shards(corpus: Corpus) -> None:
    with pytest.raises(ArtifactError, match="this is a corpus, not a shards"):
        open_shards(corpus.directory)
