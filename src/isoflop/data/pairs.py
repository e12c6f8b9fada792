"""Pairs of source and target from JSON lines, as token ids in a fixed order; not spans (`spans`).

The pairs a model is judged on are chosen by a hash of their source, so that no source is on both
sides, whatever the order of the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isoflop.core.errors import DataError
from isoflop.data.loader import shuffled
from isoflop.data.tokenizer import Tokenizer

HELD_OUT_OF = 20
"""One pair of so many is held out."""


@dataclass(frozen=True)
class TextPair:
    """A pair in tokens, each side with its end token."""

    source: npt.NDArray[np.int64]
    target: npt.NDArray[np.int64]
    line: int
    """Of the file, from 1."""


@dataclass(frozen=True)
class TextPairs:
    """All pairs of a file."""

    train: Sequence[TextPair]
    held_out: Sequence[TextPair]
    too_long: int
    """Pairs left out because a side has more tokens than a sequence."""

    def batch(self, first_index: int, count: int, seed: int) -> list[TextPair]:
        """Training pairs by global index, in an order that is new in every epoch."""
        asked = np.arange(first_index, first_index + count)
        return [self.train[i] for i in shuffled(asked, len(self.train), seed).tolist()]


def read_pairs(path: Path, tokenizer: Tokenizer, longest: int) -> TextPairs:
    """Read `{"source": text, "target": text}`, one a line; other keys are ignored.

    Args:
        longest: Most tokens of a side, its end token included; longer pairs are counted.

    Raises:
        DataError: A line is no such pair (it is named), or one of the two parts is empty.
    """
    train: list[TextPair] = []
    held_out: list[TextPair] = []
    too_long = 0
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        source, target = _parse(line, f"{path}, line {number}")
        pair = TextPair(_ids(tokenizer, source), _ids(tokenizer, target), number)
        if max(pair.source.shape[0], pair.target.shape[0]) > longest:
            too_long += 1
            continue
        digest = hashlib.sha256(source.encode()).digest()
        side = held_out if int.from_bytes(digest[:8], "little") % HELD_OUT_OF == 0 else train
        side.append(pair)
    if not train or not held_out:
        raise DataError(
            f"{len(train)} pairs to train on and {len(held_out)} held out, {too_long} longer than "
            f"{longest} tokens",
            where=str(path),
            fix="Give more pairs, or a longer train.seq_len",
        )
    return TextPairs(train, held_out, too_long)


def _parse(line: str, where: str) -> tuple[str, str]:
    try:
        value = json.loads(line)
        source, target = value["source"], value["target"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"not a pair of source and target ({error!r})", where=where) from None
    if not isinstance(source, str) or not isinstance(target, str):
        raise DataError("source and target must be texts", where=where)
    return source, target


def _ids(tokenizer: Tokenizer, text: str) -> npt.NDArray[np.int64]:
    return np.array([*tokenizer.encode(text), tokenizer.eos_id], dtype=np.int64)
