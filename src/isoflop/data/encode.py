"""The stage that turns row groups of a corpus into tokens; not for whole shards (`shards`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from isoflop.core.artifact import read_manifest, sha256_file
from isoflop.core.engine import Engine, Output, Piece, Work
from isoflop.core.errors import ArtifactError
from isoflop.data.checksums import block_checksums
from isoflop.data.choose import SPLITS
from isoflop.data.corpus import Corpus, read_row_groups, split_path
from isoflop.data.parts import part_paths
from isoflop.data.tokenizer import Tokenizer, load

TOKENS, LENGTHS, KINDS = "tokens.bin", "lengths.npy", "kinds.npy"
_PIECE_BYTES = 8_000_000


def encode(
    engine: Engine, corpus: Corpus, tokenizer_dir: Path, dtype: np.dtype[Any], kinds: Sequence[str]
) -> dict[str, list[Output]]:
    """Encode a corpus in pieces of some row groups.

    Returns:
        Split → outputs in the order of its documents. Each holds the tokens of every document and
        its end (`tokens.bin`, of `dtype`), how many each has (`lengths.npy`, int64) and its place
        in `kinds` (`kinds.npy`, uint8).
    """
    hashes = read_manifest(corpus.directory).files
    pieces, splits = list[Piece](), list[str]()
    for split in SPLITS:
        for path, groups, size in _pieces(corpus, split):
            name = path.relative_to(corpus.directory).as_posix()
            value = {"path": str(path.absolute()), "sha256": hashes.get(name), "groups": groups}
            pieces.append(Piece(f"{split}-{len(pieces):06d}", value, bytes=size))
            splits.append(split)
    parameters = {
        "tokenizer": str(tokenizer_dir.absolute()),
        "sha256": sha256_file(tokenizer_dir / "tokenizer.json"),
        "dtype": dtype.str,
        "kinds": list(kinds),
    }
    outputs = engine.map("encode", encode_piece, pieces, parameters)
    return {
        split: [o for own, o in zip(splits, outputs, strict=True) if own == split]
        for split in SPLITS
    }


def _pieces(corpus: Corpus, split: str) -> Iterator[tuple[Path, list[int], int]]:
    """(file, its row groups, bytes of text) of each piece, whatever the number of workers."""
    for path in part_paths(split_path(corpus.directory, split)):
        try:
            metadata = pq.read_metadata(path)
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(
                f"the documents cannot be read: {error}",
                where=str(path),
                fix="Build the corpus again with `isoflop data build`",
            ) from None
        column = metadata.schema.to_arrow_schema().names.index("text")
        gathered, size = list[int](), 0
        for number in range(metadata.num_row_groups):
            gathered.append(number)
            size += metadata.row_group(number).column(column).total_uncompressed_size
            if size >= _PIECE_BYTES:
                yield path, gathered, size
                gathered, size = [], 0
        if gathered:
            yield path, gathered, size


@lru_cache(1)
def _tokenizer(directory: Path, sha256: str) -> Tokenizer:
    return load(directory)


def encode_piece(work: Work) -> dict[str, Any]:
    """The task: the tokens of some row groups, document after document."""
    parameters = work.parameters
    tokenizer = _tokenizer(Path(parameters["tokenizer"]), parameters["sha256"])
    dtype, kinds = np.dtype(parameters["dtype"]), parameters["kinds"]
    end = np.array([tokenizer.eos_id], np.uint32)
    number_of = {kind: number for number, kind in enumerate(kinds)}
    lengths, found = list[int](), list[int]()
    tokens_of, bytes_of = [0] * len(kinds), [0] * len(kinds)
    path = Path(work.value["path"])
    with open(work.out / TOKENS, "wb") as file:
        for table in read_row_groups(path, ["text", "language"], work.value["groups"]):
            work.place = f"{path}, a row group of {len(table)} documents"
            texts, languages = (table[name].to_pylist() for name in ("text", "language"))
            encoded = tokenizer.encode_batch(texts, work.threads)
            ended = [part for ids in encoded for part in (ids, end)]
            file.write(np.concatenate(ended).astype(dtype).tobytes())
            for ids, language in zip(encoded, languages, strict=True):
                kind = number_of[language]
                lengths.append(ids.size + 1)
                found.append(kind)
                tokens_of[kind] += ids.size + 1
                bytes_of[kind] += int(tokenizer.byte_lengths[ids].sum())
    np.save(work.out / LENGTHS, np.array(lengths, np.int64))
    np.save(work.out / KINDS, np.array(found, np.uint8))
    return {"tokens": tokens_of, "bytes": bytes_of}


def assemble(
    outputs: Sequence[Output], split: str, kinds: Sequence[str], out: Path
) -> dict[str, Any]:
    """Write one split's tokens and document table; returns its entry in the index."""
    path = out / f"{split}.bin"
    with open(path, "wb") as file:
        for output in outputs:
            with open(output.directory / TOKENS, "rb") as part:
                shutil.copyfileobj(part, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    np.save(out / f"{split}.crc32.npy", block_checksums(path))
    lengths, numbers = (
        np.concatenate([np.load(output.directory / name) for output in outputs])
        for name in (LENGTHS, KINDS)
    )
    starts = np.concatenate([[0], np.cumsum(lengths)])
    np.save(out / f"{split}.starts.npy", starts.astype("<i8"))
    np.save(out / f"{split}.kinds.npy", numbers)
    tokens, size = (
        [sum(output.statistics[name][number] for output in outputs) for number in range(len(kinds))]
        for name in ("tokens", "bytes")
    )
    return {
        "tokens": int(starts[-1]),
        "documents": len(lengths),
        "bytes": sum(size),
        "sha256": sha256_file(path),
        "by_kind": {
            kind: {"tokens": tokens[number], "bytes": size[number]}
            for number, kind in enumerate(kinds)
        },
    }
