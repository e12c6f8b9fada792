"""Whole documents in batches of their own length, for encoders and conversations; not for streams.

A batch holds as many documents as fit into its tokens when padded to their bucket, so that short
documents come many at a time and little is padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from isoflop.core.errors import DataError
from isoflop.data.loader import IGNORED, Order, Stretches, Windows, shuffled
from isoflop.data.permutation import mix
from isoflop.data.shards import Split


def bucket_bounds(shortest: int, longest: int, ratio: float = 1.25) -> list[int]:
    """Upper bounds of buckets, each `ratio` times the last, the last one `longest`.

    A document fills at least about 1/`ratio` of its row.
    """
    bounds = [min(shortest, longest)]
    while bounds[-1] < longest:
        bounds.append(min(longest, max(bounds[-1] + 1, int(bounds[-1] * ratio))))
    return bounds


def in_pieces(split: Split, longest: int) -> Split:
    """The same tokens as documents of at most `longest` each, every document cut into as few pieces
    as that takes, of equal length within a token; nothing is left out."""
    lengths = np.diff(split.document_starts)
    counts = -(-lengths // longest)
    owner = np.repeat(np.arange(lengths.shape[0]), counts)
    number = np.arange(owner.shape[0]) - (np.cumsum(counts) - counts)[owner]
    starts = split.document_starts[owner] + number * lengths[owner] // counts[owner]
    return replace(
        split,
        document_starts=np.append(starts, split.document_starts[-1]),
        document_kinds=split.document_kinds[owner],
    )


class BucketLoader(Order):
    """Batches of documents of similar length; here an index counts batches, not rows.

    In each epoch every document comes once: shuffled within its bucket, and the batches of all
    buckets shuffled among each other. What `windows` is asked for together is padded to the
    longest of it; a training asks for one index at a step.

    Args:
        split: The tokens; documents longer than `max_len` are cut there.
        max_len: Most tokens of a row.
        batch_tokens: Most positions of a batch, padding included; at least `max_len`.
        seed: Fixes the order.
        bounds: Longest row of each bucket, rising to `max_len`; `bucket_bounds` when omitted.
        added: Tokens that will be added to each row, and count in the batch.

    Raises:
        DataError: There is no document, or the bounds or sizes cannot be.
    """

    def __init__(
        self,
        split: Split,
        max_len: int,
        batch_tokens: int,
        seed: int,
        bounds: Sequence[int] | None = None,
        added: int = 0,
    ) -> None:
        self.split, self.max_len, self.seed = split, max_len, seed
        self.bounds = list(bucket_bounds(16, max_len) if bounds is None else bounds)
        rising = all(a < b for a, b in pairwise(self.bounds)) and self.bounds[-1] == max_len
        too_small = batch_tokens < max_len + added or self.bounds[0] < 1
        if not split.n_documents or not rising or too_small:
            raise DataError(
                f"{split.n_documents} documents, batches of {batch_tokens} tokens and buckets up "
                f"to {self.bounds} for rows of at most {max_len}",
                where=f"split {split.name}",
                fix="Let the bounds rise to the longest row, and a batch hold at least one row",
            )
        self.lengths = np.minimum(np.diff(split.document_starts), max_len)
        bucket = np.searchsorted(self.bounds, self.lengths)
        self._documents = [np.flatnonzero(bucket == b) for b in range(len(self.bounds))]
        self._rows = [batch_tokens // (bound + added) for bound in self.bounds]
        batches = [
            -(-len(documents) // rows)
            for documents, rows in zip(self._documents, self._rows, strict=True)
        ]
        self._first = np.concatenate([[0], np.cumsum(batches)])
        self.n_windows = int(self._first[-1])

    def documents(self, index: int) -> npt.NDArray[np.int64]:
        """The documents of the batch with this global index."""
        epoch = index // self.n_windows
        batch = int(shuffled(np.array([index]), self.n_windows, self.seed)[0])
        bucket = int(np.searchsorted(self._first, batch, side="right")) - 1
        members, rows = self._documents[bucket], self._rows[bucket]
        start = (batch - int(self._first[bucket])) * rows
        places = np.arange(start, min(start + rows, len(members))) + epoch * len(members)
        return members[shuffled(places, len(members), self._bucket_seed(bucket))]

    def windows(self, indices: npt.ArrayLike) -> Windows:
        """The batches with these global indices, one under the other.

        Padding repeats the EOS id, counts in no loss, and is a document of its own.
        """
        chosen = [self.documents(int(index)) for index in np.asarray(indices, dtype=np.int64)]
        documents = np.concatenate(chosen)
        lengths = self.lengths[documents]
        shape = (documents.shape[0], int(lengths.max()))
        ids_BT = np.full(shape, self.split.eos_id, dtype=np.int64)
        labels_BT = np.full(shape, IGNORED, dtype=np.int64)
        for row, (document, length) in enumerate(zip(documents, lengths, strict=True)):
            start = self.split.document_starts[document : document + 1]
            tokens = self.split.windows(start, int(length))[0]
            ids_BT[row, :length] = tokens
            labels_BT[row, : length - 1] = tokens[1:]
        padding_BT = np.arange(shape[1]) >= lengths[:, None]
        return Windows(ids_BT, labels_BT, padding_BT.astype(np.int32))

    def stretches(self, indices: npt.ArrayLike) -> Mapping[str, Stretches]:
        """Where the documents of these batches stand in the split."""
        asked = np.asarray(indices, dtype=np.int64).ravel().tolist()
        documents = np.concatenate([self.documents(index) for index in asked])
        return {"": Stretches(self.split.document_starts[documents], self.lengths[documents])}

    def _bucket_seed(self, bucket: int) -> int:
        """Buckets of one size would otherwise be shuffled alike, and like the batches."""
        return int(mix(np.array([(self.seed + bucket + 1) % (1 << 64)], dtype=np.uint64))[0])
