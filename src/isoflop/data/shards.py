"""Token shards: a corpus as memory-mapped integers with an index; not for batches (`loader`)."""

from __future__ import annotations

import json
import tokenize as tokenize_module
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isoflop.core.artifact import (
    build_directory,
    read_json,
    read_manifest,
    sha256_file,
    write_json,
    write_manifest,
)
from isoflop.core.console import SILENT, Progress
from isoflop.core.engine import Engine, open_placement, work_folder
from isoflop.core.errors import ArtifactError, DataError
from isoflop.core.hardware import machine
from isoflop.data.checksums import BLOCK_BYTES, BlockGuard
from isoflop.data.choose import SPLITS
from isoflop.data.corpus import Corpus
from isoflop.data.encode import assemble, encode
from isoflop.data.tokenizer import artifact_or_file, load

_VERSION = 2


@dataclass(frozen=True)
class Split:
    """One memory-mapped split: documents one after the other, each ended by the EOS id."""

    name: str
    tokens: npt.NDArray[Any] = field(repr=False)
    """(n_tokens,) uint16 or uint32, read-only, on disk."""
    document_starts: npt.NDArray[np.int64] = field(repr=False)
    """(n_documents + 1,) index of each document's first token; the last entry is n_tokens."""
    document_kinds: npt.NDArray[np.uint8] = field(repr=False)
    """(n_documents,) index into `kinds`."""
    kinds: tuple[str, ...]
    """The languages of the documents (`code`, `en`, `zh`, …), the same in every split."""
    n_bytes: int
    """Bytes of UTF-8 text that the tokens stand for."""
    eos_id: int
    byte_lengths: npt.NDArray[np.int32] = field(repr=False)
    """(V,) text bytes each id stands for; 0 for special tokens."""
    guard: BlockGuard | None = field(default=None, repr=False)
    """Checks what is read of a file; None for tokens in memory."""

    def windows(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[Any]:
        """(B, length) tokens from each of the B starts on, after checking their blocks.

        Raises:
            ArtifactError: A block of the file is damaged; names the file and the offset.
        """
        self.check(starts, length)
        # Rows of a sliding view are copied whole, much faster than token by token.
        rows: npt.NDArray[Any] = np.lib.stride_tricks.sliding_window_view(self.tokens, length)
        return rows[starts]

    def check(self, starts: npt.NDArray[np.int64], length: int) -> None:
        """Check the blocks of `length` tokens from each of the starts on, as `windows` does.

        Raises:
            ArtifactError: A block of the file is damaged; names the file and the offset.
        """
        if self.guard is not None:
            size = self.tokens.dtype.itemsize
            self.guard.check(starts * size, length * size)

    @property
    def n_tokens(self) -> int:
        """Tokens in the split, ends of documents included."""
        return int(self.tokens.shape[0])

    @property
    def n_documents(self) -> int:
        """Documents in the split."""
        return int(self.document_kinds.shape[0])


@dataclass(frozen=True)
class Shards:
    """A finished shard directory, opened."""

    directory: Path
    train: Split
    held_out: Split
    vocab_size: int
    eos_id: int

    @property
    def tokenizer_directory(self) -> Path:
        """The copy of the tokenizer that travels with the shards."""
        return self.directory / "tokenizer"


def tokenize(
    corpus: Corpus,
    tokenizer_dir: Path,
    out: Path,
    progress: Progress = SILENT,
    *,
    placement: str = "inline",
    keep_work: bool = False,
) -> Shards:
    """Encode a corpus into shards, with a copy of the tokenizer beside them.

    Args:
        placement: Where the work is done, which does not change the shards; see
            `core.engine.open_placement`.
        keep_work: Keep the working folder beside `out`.

    Raises:
        ArtifactError: The corpus or the tokenizer is missing or damaged.
        RunError: A worker failed or was killed again and again.
    """
    tokenizer = load(tokenizer_dir)
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    total = sum(corpus.split_bytes(split) for split in SPLITS)
    kinds = sorted({k for s in SPLITS for k in corpus.funnel["splits"][s]["languages"]})
    progress.start("tokenize", total / 1e6, "MB")

    def report(stage: str, done: int, of: int) -> None:
        progress.advance(total / 1e6 * (done / of if of else 1.0))

    with (
        work_folder(out, keep_work) as work,
        build_directory(out) as aside,
        open_placement(placement, work, total) as place,
    ):
        engine = Engine(work, place, report)
        encoded = encode(engine, corpus, tokenizer_dir, dtype, kinds)
        splits = {split: assemble(encoded[split], split, kinds, aside) for split in SPLITS}
        copy = aside / "tokenizer"
        copy.mkdir()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (tokenizer_dir / name).exists():
                (copy / name).write_bytes((tokenizer_dir / name).read_bytes())
        index = {
            "version": _VERSION,
            "dtype": dtype.name,
            "vocab_size": tokenizer.vocab_size,
            "eos_id": tokenizer.eos_id,
            "kinds": kinds,
            "splits": splits,
        }
        write_json(aside / "index.json", index)
        write_manifest(
            aside,
            kind="shards",
            config=index,
            machine=machine(),
            inputs=[corpus.directory, artifact_or_file(tokenizer_dir)],
        )
        if keep_work:
            engine.prune()
    progress.finish(", ".join(f"{name}: {s['tokens']:,} tokens" for name, s in splits.items()))
    return open_shards(out)


def open_shards(directory: Path, *, verify: bool = False) -> Shards:
    """Memory-map a shard directory.

    Args:
        verify: Also hash every file (about a second per gigabyte). Sizes are checked always, and
            each block of tokens against its checksum when it is first read.

    Raises:
        ArtifactError: It is missing, unfinished, damaged, or of another version; names the file.
    """
    manifest = read_manifest(directory, "shards")
    index = read_json(directory / "index.json")
    if not isinstance(index, dict) or index.get("version") != _VERSION:
        raise ArtifactError(
            f"not an index of version {_VERSION}",
            where=str(directory / "index.json"),
            fix="Make the shards again with `isoflop tokenize`",
        )
    tokenizer = load(directory / "tokenizer")
    try:
        splits = {
            name: _open_split(directory, name, index, tokenizer.byte_lengths) for name in SPLITS
        }
        for name, expected in manifest.files.items():
            # Small, and read whole: where documents begin and end must not be another.
            if name.endswith(".npy") and sha256_file(directory / name) != expected:
                raise ArtifactError(
                    "the file differs from its hash in the manifest",
                    where=str(directory / name),
                    fix="Make the shards again with `isoflop tokenize`",
                )
        if verify:
            for split in splits.values():
                _check_whole(split)
            read_manifest(directory, verify=True)
        return Shards(
            directory=directory,
            train=splits["train"],
            held_out=splits["held_out"],
            vocab_size=int(index["vocab_size"]),
            eos_id=int(index["eos_id"]),
        )
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"the index lacks {error}",
            where=str(directory / "index.json"),
            fix="Make the shards again with `isoflop tokenize`",
        ) from None


def _open_split(
    directory: Path, name: str, index: dict[str, Any], byte_lengths: npt.NDArray[np.int32]
) -> Split:
    entry, dtype = index["splits"][name], np.dtype(index["dtype"]).newbyteorder("<")
    path = directory / f"{name}.bin"
    expected = entry["tokens"] * dtype.itemsize
    actual = path.stat().st_size if path.exists() else None
    if actual != expected:
        size = "is missing" if actual is None else f"has {actual:,} bytes, not {expected:,}"
        raise ArtifactError(
            f"the token file {size}",
            where=str(path),
            fix="Make the shards again with `isoflop tokenize`",
        )
    if not expected:
        raise DataError("the split holds no token", where=str(path), fix="Add documents")
    starts = _load_array(directory / f"{name}.starts.npy", entry["documents"] + 1)
    tokens = np.memmap(path, dtype=dtype, mode="r")
    checksums = _load_array(directory / f"{name}.crc32.npy", -(-expected // BLOCK_BYTES))
    return Split(
        name=name,
        tokens=tokens,
        guard=BlockGuard(path, tokens.view(np.uint8), checksums),
        document_starts=starts,
        document_kinds=_load_array(directory / f"{name}.kinds.npy", entry["documents"]),
        kinds=tuple(index["kinds"]),
        n_bytes=int(entry["bytes"]),
        eos_id=int(index["eos_id"]),
        byte_lengths=byte_lengths,
    )


def _check_whole(split: Split) -> None:
    """Check every block of a split's tokens."""
    if split.guard is not None:
        size = split.n_tokens * split.tokens.dtype.itemsize
        split.guard.check(np.arange(0, size, BLOCK_BYTES), 1)


def _load_array(path: Path, length: int) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, tokenize_module.TokenError) as error:
        # The header of an .npy file is a Python literal, and damage makes it no Python.
        raise ArtifactError(
            f"cannot be read: {error}", where=str(path), fix="Make the shards again"
        ) from None
    if array.shape != (length,):
        raise ArtifactError(
            f"holds {array.shape[0]:,} entries, not {length:,}",
            where=str(path),
            fix="Make the shards again with `isoflop tokenize`",
        )
    return array


def shard_summary(shards: Shards) -> dict[str, Any]:
    """The index of a shard directory as its command prints it."""
    value: dict[str, Any] = json.loads((shards.directory / "index.json").read_text("utf-8"))
    return value
