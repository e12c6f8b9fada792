"""Windows of tokens in an order that is a pure function of (seed, epoch, index); numpy only.

Not for devices, ranks or batch sizes: whoever asks for windows i, j, k gets the same ones in every
layout of a run, which is what makes runs comparable and resumable. Here are windows of the stream
of tokens, in a random order or one after the other; whole documents are dealt by `packing` and
`buckets`, several directories by `mixture`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from isoflop.core.errors import DataError
from isoflop.data.permutation import permute
from isoflop.data.shards import Split

IGNORED = -100
"""The label of a position that takes no part in the loss (torch's `ignore_index`)."""
_STRETCH = 512
"""Places of an epoch that are computed together and kept for a while."""


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
    def position_BT(self) -> npt.NDArray[np.int32]:
        """Place of each token in its document, or in what the window holds of it, from 0."""
        steps = np.arange(self.document_BT.shape[1], dtype=np.int32)
        new_BT = np.diff(self.document_BT, axis=1, prepend=self.document_BT[:, :1]) != 0
        return steps - np.maximum.accumulate(np.where(new_BT, steps, 0), axis=1, dtype=np.int32)

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


@dataclass(frozen=True)
class Stretches:
    """Tokens of a split, stretch by stretch."""

    starts_N: npt.NDArray[np.int64]
    """The first token of each."""
    lengths_N: npt.NDArray[np.int64]


class Order(ABC):
    """Endless windows, epoch after epoch, each a pure function of its global index.

    Any rank of any number, any worker and any resumed run asks for the indices it needs and gets
    what every other would have got; no state is kept and nothing is skipped one by one.
    """

    n_windows: int
    """Windows of an epoch: the global index is epoch · n_windows + place in the epoch."""

    @abstractmethod
    def windows(self, indices: npt.ArrayLike) -> Windows:
        """The windows with these global indices."""

    def batch(self, first_index: int, count: int) -> Windows:
        """Windows `first_index` to `first_index + count - 1`."""
        return self.windows(np.arange(first_index, first_index + count))

    def stretches(self, indices: npt.ArrayLike) -> Mapping[str, Stretches]:
        """Where the tokens of these windows stand in their splits: by the name of the source of a
        mixture, and under "" where there is none. Nothing where windows are not cut from splits.
        """
        return {}


class Loader(Order):
    """Random windows of the stream: each epoch a fresh permutation of all windows.

    Window w covers tokens [w·T, w·T + T]: T inputs, and labels one to the right. Documents lie
    one after the other and are cut where a window ends.

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

    def windows(self, indices: npt.ArrayLike) -> Windows:
        """The windows with these global indices."""
        return Windows(*_cut(self.split, self._starts(indices), self.seq_len))

    def stretches(self, indices: npt.ArrayLike) -> Mapping[str, Stretches]:
        """Where the tokens of these windows stand in the split."""
        return equally_long(self._starts(indices), self.seq_len)

    def _starts(self, indices: npt.ArrayLike) -> npt.NDArray[np.int64]:
        asked = np.asarray(indices, dtype=np.int64)
        return shuffled(asked, self.n_windows, self.seed) * self.seq_len


class StreamLoader(Order):
    """The stream in its own order over `rows` parallel streams, as language models are evaluated
    and trained by truncated back-propagation through time (the form of WikiText-2).

    Row r of step s continues row r of step s - 1; the windows of a step are those with indices
    s·rows to s·rows + rows - 1. Documents run into each other, so the first token of each is
    foretold too.

    Args:
        split: The tokens.
        seq_len: T, the number of input tokens in a window.
        rows: Parallel streams.

    Raises:
        DataError: A stream is shorter than one window.
    """

    def __init__(self, split: Split, seq_len: int, rows: int) -> None:
        self.split, self.seq_len, self.rows = split, seq_len, rows
        self._steps = (split.n_tokens - 1) // rows // seq_len
        if self._steps < 1:
            raise DataError(
                f"{split.n_tokens} tokens do not fill {rows} streams of {seq_len}",
                where=f"split {split.name}",
                fix="Use fewer rows, a shorter context or more text",
            )
        self.n_windows = self._steps * rows

    def windows(self, indices: npt.ArrayLike) -> Windows:
        """The windows with these global indices."""
        tokens = self.split.windows(self._starts(indices), self.seq_len + 1).astype(np.int64)
        ids_BT = np.ascontiguousarray(tokens[:, :-1])
        return Windows(ids_BT, tokens[:, 1:], np.zeros(ids_BT.shape, dtype=np.int32))

    def stretches(self, indices: npt.ArrayLike) -> Mapping[str, Stretches]:
        """Where the tokens of these windows stand in the split."""
        return equally_long(self._starts(indices), self.seq_len)

    def _starts(self, indices: npt.ArrayLike) -> npt.NDArray[np.int64]:
        step, row = np.divmod(np.asarray(indices, dtype=np.int64) % self.n_windows, self.rows)
        starts: npt.NDArray[np.int64] = (row * self._steps + step) * self.seq_len
        return starts


def equally_long(starts_N: npt.NDArray[np.int64], length: int) -> Mapping[str, Stretches]:
    """Stretches of one length in the only source."""
    return {"": Stretches(starts_N, np.full_like(starts_N, length))}


def shuffled(indices: npt.NDArray[np.int64], n: int, seed: int) -> npt.NDArray[np.int64]:
    """What stands at these global indices when 0 … n - 1 are shuffled anew in each epoch."""
    epochs, places = np.divmod(indices, n)
    stretches, within = np.divmod(places, _STRETCH)
    chosen = np.empty_like(indices)
    for epoch, stretch in sorted(set(zip(epochs.tolist(), stretches.tolist(), strict=True))):
        here = (epochs == epoch) & (stretches == stretch)
        chosen[here] = _shuffled_stretch(stretch, n, seed, epoch)[within[here]]
    return chosen


@lru_cache(maxsize=256)
def _shuffled_stretch(stretch: int, n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    # Neighbours are asked for soon after, and hundreds cost little more than one.
    places = np.arange(stretch * _STRETCH, min((stretch + 1) * _STRETCH, n))
    return permute(places, n, seed, epoch)


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
    n_windows = count_windows(split, seq_len)
    wanted = n_windows if max_tokens is None else min(n_windows, max(1, max_tokens // seq_len))
    order = permute(np.arange(wanted), n_windows, seed=0)
    ids_BT, labels_BT, document_BT = _cut(split, order * seq_len, seq_len)
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


def _cut(
    split: Split, starts_B: npt.NDArray[np.int64], seq_len: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """(ids, labels, document) of the windows that begin at these tokens."""
    tokens = split.windows(starts_B, seq_len + 1)
    ends_BT = tokens[:, :-1] == split.eos_id
    labels_BT = tokens[:, 1:].astype(np.int64)
    document_BT = np.zeros(ends_BT.shape, dtype=np.int32)
    # Long documents leave most windows whole: only the others pay for counting.
    several = np.flatnonzero(ends_BT.any(axis=1))
    if several.shape[0]:
        labels_BT[ends_BT] = IGNORED
        ends = ends_BT[several]
        # An EOS closes its own document: the count rises one position after it.
        document_BT[several] = np.cumsum(ends, axis=1, dtype=np.int32) - ends
    return tokens[:, :-1].astype(np.int64), labels_BT, document_BT
