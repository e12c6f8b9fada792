"""Tokenizers: training them, saving them as Hugging Face does, encoding and decoding.

Byte-level BPE by default, a byte-level unigram model by switch: any text, in any script, goes to
ids and back unchanged. Not for the form of the file (`tokenizer_file`), for choosing a size of
vocabulary (`tokenizer_study`), nor for chat templates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import rustbpe
import tiktoken
import tokenizers

from isoflop.core.artifact import (
    MANIFEST,
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
from isoflop.data.tokenizer_file import (
    BYTES,
    END_OF_TEXT,
    QWEN2_PATTERN,
    SPECIAL_TOKENS,
    bpe_json,
    bytes_of,
    config_json,
    pre_tokenizer_json,
    printable,
    unigram_json,
)

ModelName = Literal["bpe", "unigram"]
# A vocabulary of some thousand words is settled by far less text than a corpus holds.
SAMPLE_BYTES = 16_000_000
# The unigram trainer takes minutes for what the other does in seconds.
UNIGRAM_SAMPLE_BYTES = 4_000_000
_TEXTS_A_TASK = 32


class Backend(Protocol):
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
    """`tiktoken`, or `tokenizers` where the file is not a BPE that `train` writes."""
    _encode: Backend = field(repr=False)

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


def train(
    corpus: Corpus,
    vocab_size: int,
    out: Path,
    progress: Progress = SILENT,
    *,
    model: ModelName = "bpe",
    reserve: Sequence[str] = (),
) -> Tokenizer:
    """Train a tokenizer on the training split and save it.

    Args:
        vocab_size: All ids: 256 bytes, merges or pieces, and the special tokens.
        model: `bpe` (Sennrich et al. 2016) or `unigram` (Kudo 2018), both over bytes. Training
            a BPE twice gives the same file; the unigram trainer of the `tokenizers` library
            visits words in an order of chance, and its scores differ in the third digit.
        reserve: Special tokens beside `SPECIAL_TOKENS`, for later use in conversations.

    Raises:
        DataError: The vocabulary is too small, the text too short to fill it, or a special
            token is named twice or empty.
    """
    names = (*SPECIAL_TOKENS, *reserve)
    if len(set(names)) < len(names) or not all(names):
        raise DataError(
            "a special token is named twice or empty",
            where="--reserve",
            fix=f"{', '.join(SPECIAL_TOKENS)} are reserved already",
        )
    n_ordinary = vocab_size - len(names)
    if n_ordinary < BYTES:
        raise DataError(
            f"a vocabulary of {vocab_size} cannot hold the {BYTES} bytes and the "
            f"{len(names)} special tokens",
            where="--vocab-size",
            fix=f"Ask for at least {BYTES + len(names)}",
        )
    special = {name: n_ordinary + offset for offset, name in enumerate(names)}
    if model == "bpe":
        content = bpe_json(train_bpe(corpus, n_ordinary, progress), special)
    else:
        content = unigram_json(_train_unigram(corpus, n_ordinary, progress), special)
    write_tokenizer(out, content, {"vocab_size": vocab_size, "model": model}, [corpus.directory])
    progress.finish(f"vocabulary of {vocab_size:,}")
    return load(out)


def train_bpe(corpus: Corpus, n_ordinary: int, progress: Progress = SILENT) -> dict[bytes, int]:
    """Token → id of a BPE of `n_ordinary` tokens: the bytes, then merges, the most frequent first.

    The first n of them are the BPE of n tokens: a smaller vocabulary is a cut of a larger one.

    Raises:
        DataError: The text is too short for as many.
    """
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(
        _training_texts(corpus, SAMPLE_BYTES, progress),
        vocab_size=n_ordinary,
        pattern=QWEN2_PATTERN,
    )
    ids = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    _require(len(ids), n_ordinary, corpus)
    return ids


def write_tokenizer(
    out: Path, content: Mapping[str, Any], config: Mapping[str, Any], inputs: Sequence[Path]
) -> None:
    """Write a tokenizer directory, whole or not at all.

    Args:
        content: The file `tokenizer.json`.
        config: What it was made with, for the manifest.
        inputs: What it was made from, for the manifest.
    """
    special = [token["content"] for token in content["added_tokens"]]
    with build_directory(out) as aside:
        write_json(aside / "tokenizer.json", content)
        write_json(aside / "tokenizer_config.json", config_json(special))
        write_manifest(
            aside,
            kind="tokenizer",
            config={**config, "pattern": QWEN2_PATTERN},
            machine=machine(),
            inputs=inputs,
        )


def artifact_or_file(directory: Path) -> Path:
    """What a manifest names as its input: the directory, or the file of a plain copy of it."""
    return directory if (directory / MANIFEST).exists() else directory / "tokenizer.json"


def load(directory: Path) -> Tokenizer:
    """Open a tokenizer directory (one with `tokenizer.json`; a model directory is one too).

    Raises:
        ArtifactError: It is missing or damaged.
        DataError: It is not byte-level, or lacks `<|endoftext|>`.
    """
    path = directory / "tokenizer.json"
    if (directory / MANIFEST).exists():
        read_manifest(directory, verify=True)
    raw = read_json(path)
    try:
        special = {token["content"]: int(token["id"]) for token in raw["added_tokens"]}
        ids = {
            bytes_of(token): index
            for token, index in _vocabulary(raw["model"]).items()
            if token not in special
        }
        token_bytes = [b""] * (max([*ids.values(), *special.values()]) + 1)
        for token, index in ids.items():
            token_bytes[index] = token
        eos_id = special[END_OF_TEXT]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not a byte-level tokenizer with {END_OF_TEXT} ({error!r})",
            where=str(path),
            fix="Train one with `isoflop tokenizer train`",
        ) from None
    ours = _is_ours(raw, ids, special)
    return Tokenizer(
        directory=directory,
        vocab_size=len(token_bytes),
        eos_id=eos_id,
        special_ids=special,
        token_bytes=tuple(token_bytes),
        byte_lengths=np.array([len(token) for token in token_bytes], dtype=np.int32),
        backend="tiktoken" if ours else "tokenizers",
        _encode=bpe_encoder(ids) if ours else _hugging_face(path),
    )


# --- training ------------------------------------------------------------------------------


def sample(
    corpus: Corpus, split: str, max_bytes: int, progress: Progress = SILENT
) -> Iterator[dict[str, str]]:
    """Rows `{text, language}` spread evenly over a split, about `max_bytes` of text."""
    keep, credit, done = max_bytes / max(1, corpus.split_bytes(split)), 0.0, 0
    for rows in corpus.documents(split):
        for row in rows:
            size = len(row["text"].encode())
            credit += keep * size
            if credit > 0:
                credit -= size
                done += size
                yield row
        progress.advance(done / 1e6)


def _training_texts(corpus: Corpus, max_bytes: int, progress: Progress) -> Iterator[str]:
    size = min(max_bytes, corpus.split_bytes("train"))
    progress.start("tokenizer train", size / 1e6, "MB")
    return (row["text"] for row in sample(corpus, "train", max_bytes, progress))


def _train_unigram(corpus: Corpus, n_ordinary: int, progress: Progress) -> list[tuple[str, float]]:
    """Pieces and their log probabilities; the 256 bytes are always among them."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizer()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=n_ordinary,
        show_progress=False,
        initial_alphabet=sorted(printable(bytes([byte])) for byte in range(BYTES)),
    )
    texts = _training_texts(corpus, UNIGRAM_SAMPLE_BYTES, progress)
    tokenizer.train_from_iterator(texts, trainer)
    pieces = [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    _require(len(pieces), n_ordinary, corpus)
    return sorted(pieces, key=lambda piece: (-piece[1], piece[0]))


def _require(found: int, wanted: int, corpus: Corpus) -> None:
    if found < wanted:
        raise DataError(
            f"the text gives only {found} tokens beside the special ones, not {wanted}",
            where=str(corpus.directory),
            fix="Ask for a smaller vocabulary, or train on more text",
        )


# --- encoding ------------------------------------------------------------------------------


def pre_tokenizer() -> Any:
    """What cuts text into words, as an object of the `tokenizers` library."""
    shell = {"version": "1.0", "added_tokens": [], "pre_tokenizer": pre_tokenizer_json()}
    model = {"type": "BPE", "vocab": {}, "merges": []}
    whole = tokenizers.Tokenizer.from_str(json.dumps({**shell, "model": model}))
    return whole.pre_tokenizer


def bpe_encoder(ids: Mapping[bytes, int]) -> Backend:
    """An encoder that merges by id, lowest first; with the 256 bytes among the ids."""
    encoding = tiktoken.Encoding(
        "isoflop", pat_str=QWEN2_PATTERN, mergeable_ranks=dict(ids), special_tokens={}
    )

    def encode(text: str) -> npt.NDArray[np.uint32]:
        found: npt.NDArray[np.uint32] = encoding.encode_to_numpy(
            text, allowed_special=set(), disallowed_special=()
        )
        return found

    return encode


def _vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    """Spelled token → id, from either kind of model."""
    vocab = model["vocab"]
    if isinstance(vocab, list):
        return {piece: index for index, (piece, _) in enumerate(vocab)}
    return dict(vocab)


def _is_ours(raw: Any, ids: Mapping[bytes, int], special: Mapping[str, int]) -> bool:
    """Whether the file says exactly what `train` would write for its tokens as a BPE.

    Only then do tiktoken (which merges by id) and tokenizers (which merges by list) agree.
    """
    if len(ids) != len(raw["model"]["vocab"]) or raw["model"].get("type") != "BPE":
        return False
    single = [token for token, index in ids.items() if index < BYTES and len(token) == 1]
    return len(single) == BYTES and bool(raw == bpe_json(ids, special))


def _hugging_face(path: Path) -> Backend:
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
    """The text cut before and after each special token: the earliest first, the longest of those
    that begin together."""
    while text:
        found = [(at, -len(token), token) for token in special if (at := text.find(token)) >= 0]
        if not found:
            yield text
            return
        at, _, token = min(found)
        yield text[:at]
        yield token
        text = text[at + len(token) :]
