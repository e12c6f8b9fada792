"""Byte-level BPE: training it, saving it as a Hugging Face tokenizer, encoding and decoding.

Not for chat templates nor for tokenizers that are not byte-level. Any text, in any script, goes
to ids and back unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import rustbpe
import tiktoken
import tokenizers

from isoflop.core.artifact import (
    build_directory,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import DataError
from isoflop.core.hardware import machine
from isoflop.data.corpus import Corpus

# The split pattern of Qwen2 (2024): contractions, words with one leading mark, single digits,
# punctuation, line ends, spaces. Single digits let a small model do arithmetic by place.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")
_BYTES = 256
# A vocabulary of some thousand words is settled by far less text than a corpus holds.
_SAMPLE_BYTES = 16_000_000
_TEXTS_A_TASK = 32


class _Backend(Protocol):
    """An encoder of plain text (nothing in it is a special token)."""

    def __call__(self, text: str) -> npt.NDArray[np.uint32]: ...


@dataclass(frozen=True)
class Tokenizer:
    """A loaded tokenizer; ids of its special tokens come after all others."""

    directory: Path
    vocab_size: int
    eos_id: int
    """Id of `<|endoftext|>`, which ends a document and pads a batch."""
    special_ids: dict[str, int]
    token_bytes: tuple[bytes, ...] = field(repr=False)
    """Bytes each id stands for, in id order; b"" for special tokens."""
    byte_lengths: npt.NDArray[np.int32] = field(repr=False)
    """(V,) number of text bytes each id stands for; 0 for special tokens."""
    backend: str
    """`tiktoken`, or `tokenizers` where the file is not one that `train` writes."""
    _encode: _Backend = field(repr=False)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text.

        Args:
            special: Read `<|endoftext|>` and its kin as special tokens; they are plain text
                otherwise, so that a document cannot smuggle one in.
        """
        ids: list[int] = [] if special else self._encode(text).tolist()
        if not special:
            return ids
        for piece in _split_special(text, tuple(self.special_ids)):
            if piece in self.special_ids:
                ids.append(self.special_ids[piece])
            elif piece:
                ids.extend(self._encode(piece).tolist())
        return ids

    def encode_batch(self, texts: Sequence[str], threads: int = 1) -> list[npt.NDArray[np.uint32]]:
        """Ids of many texts as plain text, in order; both backends leave Python's lock."""
        if threads <= 1:
            return [self._encode(text) for text in texts]
        # Some dozens of texts a task: handing over single short ones costs more than encoding.
        tasks = [texts[i : i + _TEXTS_A_TASK] for i in range(0, len(texts), _TEXTS_A_TASK)]
        with ThreadPoolExecutor(threads) as pool:
            return [ids for task in pool.map(self.encode_batch, tasks) for ids in task]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids; special tokens contribute none."""
        return b"".join(self.token_bytes[index] for index in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; bytes that are not UTF-8 (a cut-off character) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")


def train(corpus: Corpus, vocab_size: int, out: Path, progress: Progress = SILENT) -> Tokenizer:
    """Train a byte-level BPE (Sennrich et al. 2016) on the training split and save it.

    Args:
        vocab_size: All ids: 256 bytes, merges, and the special tokens.

    Raises:
        DataError: The vocabulary is too small, or the text too short to fill it.
    """
    n_ordinary = vocab_size - len(SPECIAL_TOKENS)
    if n_ordinary < _BYTES:
        raise DataError(
            f"a vocabulary of {vocab_size} cannot hold the {_BYTES} bytes and the "
            f"{len(SPECIAL_TOKENS)} special tokens",
            where="--vocab-size",
            fix=f"Ask for at least {_BYTES + len(SPECIAL_TOKENS)}",
        )
    sample = min(_SAMPLE_BYTES, corpus.split_bytes("train"))
    progress.start("tokenizer train", sample / 1e6, "MB")
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(
        _sample(corpus, progress), vocab_size=n_ordinary, pattern=QWEN2_PATTERN
    )
    ranks = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    if len(ranks) < n_ordinary:
        raise DataError(
            f"the text gives only {len(ranks) + len(SPECIAL_TOKENS)} tokens, not {vocab_size}",
            where=str(corpus.directory),
            fix="Ask for a smaller --vocab-size, or train on more text",
        )
    with build_directory(out) as aside:
        write_json(aside / "tokenizer.json", _hugging_face_json(ranks))
        write_json(aside / "tokenizer_config.json", _hugging_face_config())
        write_manifest(
            aside,
            kind="tokenizer",
            config={"vocab_size": vocab_size, "pattern": QWEN2_PATTERN},
            machine=machine(),
            inputs=[corpus.directory],
        )
    progress.finish(f"vocabulary of {vocab_size:,}")
    return load(out)


def load(directory: Path) -> Tokenizer:
    """Open a tokenizer directory (one with `tokenizer.json`; a model directory is one too).

    Raises:
        ArtifactError: It is missing or damaged.
        DataError: It is not a byte-level BPE with `<|endoftext|>`.
    """
    path = directory / "tokenizer.json"
    if (directory / "manifest.json").exists():
        read_manifest(directory, verify=True)
    raw = read_json(path)
    try:
        vocab: dict[str, int] = raw["model"]["vocab"]
        special = {token["content"]: int(token["id"]) for token in raw["added_tokens"]}
        size = max([*vocab.values(), *special.values()]) + 1
        token_bytes = [b""] * size
        for token, index in vocab.items():
            if token not in special:
                token_bytes[index] = bytes(_CHARACTER_TO_BYTE[c] for c in token)
        eos_id = special[END_OF_TEXT]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not a byte-level BPE with {END_OF_TEXT} ({error!r})",
            where=str(path),
            fix="Train one with `isoflop tokenizer train`",
        ) from None
    ours = _is_ours(raw, token_bytes, special)
    return Tokenizer(
        directory=directory,
        vocab_size=size,
        eos_id=eos_id,
        special_ids=special,
        token_bytes=tuple(token_bytes),
        byte_lengths=np.array([len(token) for token in token_bytes], dtype=np.int32),
        backend="tiktoken" if ours else "tokenizers",
        _encode=_tiktoken(token_bytes, special) if ours else _hugging_face(path),
    )


# --- training ------------------------------------------------------------------------------


def _sample(corpus: Corpus, progress: Progress) -> Iterator[str]:
    """Training documents spread evenly over the split, about `_SAMPLE_BYTES` of them."""
    keep, credit, done = _SAMPLE_BYTES / max(1, corpus.split_bytes("train")), 0.0, 0
    for rows in corpus.documents("train"):
        for row in rows:
            size = len(row["text"].encode())
            credit += keep * size
            if credit > 0:
                credit -= size
                done += size
                yield row["text"]
        progress.advance(done / 1e6)


def _merges(ranks: dict[bytes, int]) -> list[list[str]]:
    """The merge that makes each token, in order of rank.

    A token's parts are what merging its own bytes with all earlier merges leaves: two pieces.
    """
    merges: list[list[str]] = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if rank < _BYTES:
            continue
        pieces = [bytes([byte]) for byte in token]
        while len(pieces) > 2:
            made = [ranks.get(a + b, rank) for a, b in pairwise(pieces)]
            best = made.index(min(made))
            pieces[best : best + 2] = [pieces[best] + pieces[best + 1]]
        merges.append([_printable(piece) for piece in pieces])
    return merges


# --- the Hugging Face file -----------------------------------------------------------------


def _byte_to_character() -> dict[int, str]:
    """GPT-2's map (Radford et al. 2019): a printable character for every byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in plain}
    for offset, byte in enumerate(byte for byte in range(_BYTES) if byte not in table):
        table[byte] = chr(_BYTES + offset)
    return table


_BYTE_TO_CHARACTER = _byte_to_character()
_CHARACTER_TO_BYTE = {character: byte for byte, character in _BYTE_TO_CHARACTER.items()}


def _printable(token: bytes) -> str:
    return "".join(_BYTE_TO_CHARACTER[byte] for byte in token)


def _hugging_face_json(ranks: dict[bytes, int]) -> dict[str, Any]:
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": len(ranks) + offset,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for offset, token in enumerate(SPECIAL_TOKENS)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": QWEN2_PATTERN},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {**byte_level, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {**byte_level, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {_printable(token): rank for token, rank in ordered},
            "merges": _merges(ranks),
        },
    }


def _hugging_face_config() -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }


# --- encoding ------------------------------------------------------------------------------


def _is_ours(raw: dict[str, Any], token_bytes: list[bytes], special: dict[str, int]) -> bool:
    """Whether the file says exactly what `train` would write for its tokens.

    Only then do tiktoken (which merges by id) and tokenizers (which merges by list) agree.
    """
    n_ordinary = len(token_bytes) - len(special)
    ranks = {token: rank for rank, token in enumerate(token_bytes[:n_ordinary])}
    if len(ranks) != n_ordinary or any(len(token) != 1 for token in token_bytes[:_BYTES]):
        return False
    return bool(raw == _hugging_face_json(ranks))


def _tiktoken(token_bytes: list[bytes], special: dict[str, int]) -> _Backend:
    n_ordinary = len(token_bytes) - len(special)
    encoding = tiktoken.Encoding(
        "isoflop",
        pat_str=QWEN2_PATTERN,
        mergeable_ranks={token: rank for rank, token in enumerate(token_bytes[:n_ordinary])},
        special_tokens=special,
    )

    def encode(text: str) -> npt.NDArray[np.uint32]:
        ids: npt.NDArray[np.uint32] = encoding.encode_to_numpy(
            text, allowed_special=set(), disallowed_special=()
        )
        return ids

    return encode


def _hugging_face(path: Path) -> _Backend:
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower class than this
        raise DataError(
            f"the tokenizers library cannot read it: {error}",
            where=str(path),
            fix="Train one with `isoflop tokenizer train`",
        ) from error
    tokenizer.encode_special_tokens = True

    def encode(text: str) -> npt.NDArray[np.uint32]:
        return np.array(tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.uint32)

    return encode


def _split_special(text: str, special: tuple[str, ...]) -> Iterator[str]:
    """The text cut before and after each special token, earliest first."""
    while text:
        found = [(at, token) for token in special if (at := text.find(token)) >= 0]
        if not found:
            yield text
            return
        at, token = min(found)
        yield text[:at]
        yield token
        text = text[at + len(token) :]
