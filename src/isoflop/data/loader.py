"""Windows of tokens in an order that is a pure function of (seed, epoch, index); numpy only.

Not for devices, ranks or batch sizes: whoever asks for windows i, j, k gets the same ones in every
layout of a run, which is what makes runs comparable and resumable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isoflop.core.errors import DataError
from isoflop.data.shards import Split

IGNORED = -100
"""The label of a position that takes no part in the loss (torch's `ignore_index`)."""


@dataclass(frozen=True)
class Windows:
    """B windows of T tokens; the suffixes give the shapes."""

    ids_BT: npt.NDArray[np.int64]
    """Input tokens."""
    labels_BT: npt.NDArray[np.int64]
    """The next token, or `IGNORED` where the input ends a document: nothing in a document
    foretells the first token of the next."""
    document_BT: npt.NDArray[np.int32]
    """Counts documents within a window from 0; attention stays within equal numbers."""

    @property
    def n_labels(self) -> int:
        """Positions that count in the loss."""
        return int(np.count_nonzero(self.labels_BT != IGNORED))


@dataclass(frozen=True)
class EvalWindows(Windows):
    """Windows for evaluation, with what bits per byte and losses by kind need."""

    kind_BT: npt.NDArray[np.uint8]
    """Index into `kinds` of the document each input token belongs to."""
    kinds: tuple[str, ...]
    text_bytes: int
    """Bytes of text that the counted labels stand for (an end of document stands for none):
    bits per byte = summed loss in nats / ln 2 / text_bytes."""
    text_bytes_by_kind: dict[str, int]


class Loader:
    """Endless windows of a split: epoch after epoch, each a fresh permutation of all windows.

    Window w covers tokens [w·T, w·T + T]: T inputs, and labels one to the right.

    Args:
        split: The tokens.
        seq_len: T, the number of input tokens in a window.
        seed: Fixes the order.

    Raises:
        DataError: The split is shorter than one window.
    """

    def __init__(self, split: Split, seq_len: int, seed: int) -> None:
        self.split, self.seq_len, self.seed = split, seq_len, seed
        self.n_windows = count_windows(split, seq_len)
        self._orders: dict[int, npt.NDArray[np.int64]] = {}

    def windows(self, indices: npt.ArrayLike) -> Windows:
        """The windows with these global indices (epoch · n_windows + place in the epoch)."""
        asked = np.asarray(indices, dtype=np.int64)
        epochs, places = np.divmod(asked, self.n_windows)
        chosen = np.empty_like(asked)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            chosen[here] = self._order(int(epoch))[places[here]]
        return Windows(*_cut(self.split, self.seq_len, chosen))

    def batch(self, first_index: int, count: int) -> Windows:
        """Windows `first_index` to `first_index + count - 1`."""
        return self.windows(np.arange(first_index, first_index + count))

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._orders:
            # A batch touches two epochs at most; older orders can be made again.
            self._orders = {e: o for e, o in self._orders.items() if abs(e - epoch) <= 1}
            self._orders[epoch] = permutation(self.n_windows, self.seed, epoch)
        return self._orders[epoch]


def count_windows(split: Split, seq_len: int) -> int:
    """Whole windows in a split; the last tokens that do not fill one are left out.

    Raises:
        DataError: There is not even one.
    """
    n_windows = (split.n_tokens - 1) // seq_len
    if n_windows < 1:
        raise DataError(
            f"{split.n_tokens} tokens do not fill one window of {seq_len} and the next token",
            where=f"split {split.name}",
            fix="Use a shorter context or more text",
        )
    return n_windows


def eval_windows(split: Split, seq_len: int, max_tokens: int | None = None) -> EvalWindows:
    """The same windows at every call: an even sample of the split, at most `max_tokens` inputs.

    A larger `max_tokens` adds windows to those of a smaller one.
    """
    order = permutation(count_windows(split, seq_len), seed=0, epoch=0)
    if max_tokens is not None:
        order = order[: max(1, max_tokens // seq_len)]
    ids_BT, labels_BT, document_BT = _cut(split, seq_len, order)
    counted_BT = labels_BT != IGNORED
    bytes_BT = np.where(counted_BT, split.byte_lengths[np.where(counted_BT, labels_BT, 0)], 0)
    positions_BT = order[:, None] * seq_len + np.arange(seq_len)
    document_of_BT = np.searchsorted(split.document_starts, positions_BT, side="right") - 1
    kind_BT = split.document_kinds[document_of_BT]
    return EvalWindows(
        ids_BT=ids_BT,
        labels_BT=labels_BT,
        document_BT=document_BT,
        kind_BT=kind_BT,
        kinds=split.kinds,
        text_bytes=int(bytes_BT.sum()),
        text_bytes_by_kind={
            kind: int(bytes_BT[kind_BT == index].sum()) for index, kind in enumerate(split.kinds)
        },
    )


def permutation(n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """(n,) a permutation of 0 … n - 1 that depends on its arguments alone.

    Sorts by SplitMix64 (Steele, Lea & Flood 2014) of the index, keyed by seed and epoch. numpy's
    own generators may change their streams between versions; this may not.
    """
    key = np.array([seed % (1 << 64), epoch], dtype=np.uint64)
    key = _mix(_mix(key[:1]) ^ key[1:])
    # 64-bit keys of n windows collide once in 2^64 / n² draws; a stable sort settles even that.
    return np.argsort(_mix(np.arange(n, dtype=np.uint64) ^ key), kind="stable")


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's step: wraps around modulo 2^64 by intent."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _cut(
    split: Split, seq_len: int, windows_B: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """(ids, labels, document) of the windows, gathered in one indexing of the memory map."""
    positions = windows_B[:, None] * seq_len + np.arange(seq_len + 1)
    tokens = split.tokens[positions].astype(np.int64)
    ids_BT = tokens[:, :-1]
    ends_BT = ids_BT == split.eos_id
    labels_BT = np.where(ends_BT, IGNORED, tokens[:, 1:])
    # An EOS closes its own document: the count rises one position after it.
    document_BT = np.cumsum(ends_BT, axis=1, dtype=np.int32) - ends_BT
    return np.ascontiguousarray(ids_BT), labels_BT, document_BT.astype(np.int32)
