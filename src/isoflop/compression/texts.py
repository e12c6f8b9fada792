"""What compression looks at: texts to calibrate on, others to foretell with, others to judge.

The three never overlap. Not for training on (`data/loader.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isoflop.core.artifact import MANIFEST, sha256_file
from isoflop.core.errors import DataError
from isoflop.data.loader import IGNORED, EvalWindows, eval_windows
from isoflop.data.shards import Split, open_shards
from isoflop.data.tokenizer import Tokenizer

FEWEST_WINDOWS = 8
"""Windows that each of the three needs: fewer tell nothing of how they differ."""


@dataclass(frozen=True)
class Texts:
    """Windows of three uses."""

    calibration: EvalWindows
    """What GPTQ, Wanda and their like take the layers' inputs from."""
    probe: EvalWindows
    """What sensitivity is measured on."""
    held_out: EvalWindows
    """What the result is judged on."""
    train: Split
    """What a student learns from; calibration and probe are windows of it."""


def open_texts(data: Path, tokenizer: Tokenizer, seq_len: int, tokens: int) -> Texts:
    """Windows of a shard directory (calibration and probe from its training split, the judging
    ones held out) or of a text file (its first quarter, second quarter and second half).

    Args:
        seq_len: Tokens of a window.
        tokens: Tokens of each use at most.

    Raises:
        DataError: The text is too short, not UTF-8, or the shards have another tokenizer.
        ArtifactError: The shards cannot be read.
    """
    if (data / MANIFEST).exists() or data.is_dir():
        shards = open_shards(data)
        own, theirs = tokenizer.directory, shards.tokenizer_directory
        if sha256_file(own / "tokenizer.json") != sha256_file(theirs / "tokenizer.json"):
            raise DataError(
                "the shards were made with another tokenizer than the model's", where=str(data)
            )
        train = shards.train
        judged = eval_windows(shards.held_out, seq_len, tokens)
    else:
        try:
            text = data.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"the text is not UTF-8 ({error.reason})", where=str(data)) from None
        ids = np.array(tokenizer.encode(text), dtype=np.uint32)
        middle = len(ids) // 2
        train = _split("first half", ids[:middle], tokenizer)
        judged = eval_windows(_split("second half", ids[middle:], tokenizer), seq_len, tokens)
    both = eval_windows(train, seq_len, 2 * tokens)
    half = len(both.ids_BT) // 2
    lengths = tokenizer.byte_lengths
    calibration, probe = part(both, 0, half, lengths), part(both, half, 2 * half, lengths)
    uses = {"calibration": calibration, "probe": probe, "held-out": judged}
    for use, windows in uses.items():
        n = len(windows.ids_BT)
        if n < FEWEST_WINDOWS:
            raise DataError(
                f"there are {n} windows of {seq_len} tokens for {use} "
                f"text, and {FEWEST_WINDOWS} are needed",
                where=str(data),
                fix="Give more text, or more --tokens",
            )
    return Texts(calibration, probe, judged, train)


def part(
    windows: EvalWindows, start: int, end: int, byte_lengths: npt.NDArray[np.int32]
) -> EvalWindows:
    """Some of the windows, with the bytes of their own text; kinds are not told apart."""
    labels = windows.labels_BT[start:end]
    counted = labels != IGNORED
    n_bytes = int(byte_lengths[labels[counted]].sum())
    return replace(
        windows,
        ids_BT=windows.ids_BT[start:end],
        labels_BT=labels,
        document_BT=windows.document_BT[start:end],
        kind_BT=np.zeros_like(windows.kind_BT[start:end]),
        kinds=("text",),
        text_bytes=n_bytes,
        text_bytes_by_kind={"text": n_bytes},
    )


def _split(name: str, ids: npt.NDArray[np.uint32], tokenizer: Tokenizer) -> Split:
    """A text in memory as one document."""
    return Split(
        name=name,
        tokens=ids,
        document_starts=np.array([0, len(ids)]),
        document_kinds=np.zeros(1, dtype=np.uint8),
        kinds=("text",),
        n_bytes=int(tokenizer.byte_lengths[ids].sum()),
        eos_id=tokenizer.eos_id,
        byte_lengths=tokenizer.byte_lengths,
    )
