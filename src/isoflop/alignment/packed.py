"""Conversations packed into windows, each alone in its attention; not for templates (`chat.py`).

Labels come from spans: no id, the end of a text or padding included, means anything by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from isoflop.alignment.chat import Encoded
from isoflop.core.errors import DataError
from isoflop.data.loader import IGNORED, Order, Windows, shuffled
from isoflop.data.packing import pack_documents


class Conversations(Order):
    """Windows of whole conversations by best fit; each epoch a fresh permutation of all windows.

    Args:
        encoded: The conversations, none longer than `seq_len` + 1: the last id of each is a label
            and never an input.
        seq_len: T, input ids in a window.
        seed: Fixes packing and order.
        pad_id: Fills the rest of a window, as a document of its own that nothing is learnt from.

    Raises:
        DataError: There is none, one is too long, or one has nothing to learn; it is numbered.
    """

    def __init__(
        self, encoded: Sequence[Encoded], seq_len: int, seed: int, pad_id: int = 0
    ) -> None:
        self.seq_len, self.seed, self._pad = seq_len, seed, pad_id
        lengths = np.array([len(each.ids) - 1 for each in encoded], dtype=np.int64)
        if not len(encoded):
            raise DataError("there is no conversation to learn from")
        for number, each in enumerate(encoded):
            if not any(each.supervised[1:]):
                raise DataError("nothing in it is to be learnt", where=f"conversation {number}")
            if len(each.ids) > seq_len + 1:
                raise DataError(
                    f"it has {len(each.ids)} tokens and a window {seq_len}",
                    where=f"conversation {number}",
                )
        inputs = [each.ids[:-1] for each in encoded]
        labels = [
            [index if learn else IGNORED for index, learn in zip(e.ids, e.supervised, strict=True)]
            for e in encoded
        ]
        self._ids = np.concatenate([np.array(ids, dtype=np.int64) for ids in inputs])
        self._labels = np.concatenate([np.array(row[1:], dtype=np.int64) for row in labels])
        starts = np.concatenate([[0], np.cumsum(lengths)])
        self._packing = pack_documents(starts, seq_len, seed)
        self.n_windows = self._packing.n_bins
        self.n_labels = int(np.count_nonzero(self._labels != IGNORED))
        """Ids to learn in an epoch."""

    @property
    def padding(self) -> float:
        """Share of all positions that hold no token."""
        return self._packing.padding

    def windows(self, indices: npt.ArrayLike) -> Windows:
        """The windows with these global indices."""
        asked = np.asarray(indices, dtype=np.int64)
        return self.at(shuffled(asked, self.n_windows, self.seed))

    def at(self, bins: npt.NDArray[np.int64]) -> Windows:
        """The windows by their place in the packing."""
        packing, shape = self._packing, (len(bins), self.seq_len)
        ids_BT = np.full(shape, self._pad, dtype=np.int64)
        labels_BT = np.full(shape, IGNORED, dtype=np.int64)
        document_BT = np.zeros(shape, dtype=np.int32)
        for row, number in enumerate(bins):
            first, last = packing.bin_starts[number], packing.bin_starts[number + 1]
            at = 0
            for document, piece in enumerate(range(first, last)):
                start, length = packing.piece_starts[piece], packing.piece_lengths[piece]
                here, there = slice(at, at + length), slice(start, start + length)
                ids_BT[row, here], labels_BT[row, here] = self._ids[there], self._labels[there]
                document_BT[row, here] = document
                at += length
            document_BT[row, at:] = last - first
        return Windows(ids_BT, labels_BT, document_BT)
