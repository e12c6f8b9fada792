"""Pairs of sentences for next-sentence prediction (Devlin et al. 2019, appendix A.2); numpy only.

A row is [CLS] A [SEP] B [SEP]. "Sentences" are stretches of text of any length: A and B together
are a piece of a document that fills the row, cut where a sentence or line ends. In half of the rows
B is replaced by a stretch of another document. Not for what is masked in them (`masking`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isoflop.core.errors import DataError
from isoflop.data.buckets import BucketLoader, in_pieces
from isoflop.data.chance import uniforms
from isoflop.data.loader import Stretches
from isoflop.data.shards import Split

ADDED = 3
"""[CLS] and twice [SEP]."""
ENDS_OF_SENTENCES = tuple(mark.encode() for mark in ".!?。！？；")


@dataclass(frozen=True)
class PairRows:
    """B rows of T tokens."""

    ids_BT: npt.NDArray[np.int64]
    type_BT: npt.NDArray[np.int64]
    """0 from [CLS] to the first [SEP], 1 to the second; 0 in the padding."""
    padding_BT: npt.NDArray[np.bool_]
    text_BT: npt.NDArray[np.bool_]
    """Neither special tokens nor padding."""
    random_B: npt.NDArray[np.int64]
    """0 where B follows A, 1 where it comes from another document (BERT's labels)."""
    rows_B: npt.NDArray[np.int64]
    """Global index of each row: epoch times pieces plus the piece."""


@dataclass(frozen=True)
class PairMarks:
    """The tokens that make a row of two sentences."""

    cls_id: int
    sep_id: int
    pad_id: int


_Pair = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int | None]
"""A, B, and the piece that B is from where it is a random one."""


class PairLoader:
    """Batches of pairs of similar length; an index counts batches, as in `BucketLoader`.

    Args:
        split: The tokens.
        seq_len: Most tokens of a row.
        batch_tokens: Most positions of a batch, padding included.
        seed: Fixes the order, the cuts and the random sentences.
        token_bytes: Bytes of every id.

    Raises:
        DataError: There are not two documents, or the sizes cannot be.
    """

    def __init__(
        self,
        split: Split,
        seq_len: int,
        batch_tokens: int,
        seed: int,
        marks: PairMarks,
        token_bytes: Sequence[bytes],
    ) -> None:
        if split.n_documents < 2:
            raise DataError(
                "random second sentences come from another document, and there is but one",
                where=f"split {split.name}",
                fix="Give more documents, or set objective.sentence_pairs = false",
            )
        longest = seq_len - ADDED
        self.split, self.seed, self.marks = in_pieces(split, longest), seed, marks
        self._loader = BucketLoader(self.split, longest, batch_tokens, seed, added=ADDED)
        self.n_batches = self._loader.n_windows
        # Where a document's pieces begin: a random piece must come from outside of them.
        document = np.searchsorted(split.document_starts, self.split.document_starts[:-1], "right")
        self._first = np.searchsorted(document, document, "left")
        self._after = np.searchsorted(document, document, "right")
        self._ends = np.array([_ends_sentence(piece) for piece in token_bytes])

    def batch(self, index: int) -> PairRows:
        """The batch with this global index."""
        rows_B, pairs = self._pairs(index)
        width = max(a.shape[0] + b.shape[0] + ADDED for a, b, _ in pairs)
        shape = (len(pairs), width)
        ids_BT = np.full(shape, self.marks.pad_id, dtype=np.int64)
        type_BT = np.zeros(shape, dtype=np.int64)
        padding_BT = np.ones(shape, dtype=np.bool_)
        text_BT = np.zeros(shape, dtype=np.bool_)
        for row, (a, b, _) in enumerate(pairs):
            second, end = a.shape[0] + 2, a.shape[0] + b.shape[0] + ADDED
            ids_BT[row, 0], ids_BT[row, [second - 1, end - 1]] = (
                self.marks.cls_id,
                self.marks.sep_id,
            )
            ids_BT[row, 1 : second - 1], ids_BT[row, second : end - 1] = a, b
            type_BT[row, second:end] = 1
            padding_BT[row, :end] = False
            text_BT[row, 1 : second - 1] = text_BT[row, second : end - 1] = True
        random_B = np.array([other is not None for _, _, other in pairs], dtype=np.int64)
        return PairRows(ids_BT, type_BT, padding_BT, text_BT, random_B, rows_B)

    def stretches(self, index: int) -> Stretches:
        """Where the pieces that this batch is made of stand in the split."""
        rows_B, pairs = self._pairs(index)
        others = [other for _, _, other in pairs if other is not None]
        pieces = np.append(rows_B % self.split.n_documents, others).astype(np.int64)
        starts = self.split.document_starts
        return Stretches(starts[pieces], starts[pieces + 1] - starts[pieces])

    def _pairs(self, index: int) -> tuple[npt.NDArray[np.int64], list[_Pair]]:
        """(global index of each row, its pair)."""
        pieces = self._loader.documents(index)
        rows_B = index // self.n_batches * self.split.n_documents + pieces
        chance = uniforms(self.seed, "sentence pairs", rows_B, 4)
        return rows_B, [self._pair(int(piece), u) for piece, u in zip(pieces, chance, strict=True)]

    def _pair(self, piece: int, chance: npt.NDArray[np.float64]) -> _Pair:
        """The pair of a piece; `chance` holds four numbers."""
        ids = self._tokens(piece)
        at = self._cut(ids, chance[0])
        rest = max(0, ids.shape[0] - at)
        # A piece of a single token has no second sentence of its own.
        if chance[1] >= 0.5 and rest:
            return ids[:at], ids[at:], None
        first, after = int(self._first[piece]), int(self._after[piece])
        others = self.split.n_documents - (after - first)
        other = int(chance[2] * others)
        other += after - first if other >= first else 0
        ids_other = self._tokens(other)
        wanted = max(1, rest)
        begin = self._cut(ids_other, chance[3]) if ids_other.shape[0] > wanted else 0
        begin = min(begin, max(0, ids_other.shape[0] - wanted))
        return ids[:at], ids_other[begin : begin + wanted], other

    def _tokens(self, piece: int) -> npt.NDArray[np.int64]:
        """The piece's text, without the end of its document."""
        start, end = self.split.document_starts[piece : piece + 2].tolist()
        tokens = self.split.windows(np.array([start]), end - start)[0]
        ids: npt.NDArray[np.int64] = tokens.astype(np.int64)
        return ids[:-1] if ids[-1] == self.split.eos_id else ids

    def _cut(self, ids: npt.NDArray[np.int64], chance: float) -> int:
        """Where a second sentence begins: after the end of one, or anywhere if there is none."""
        places = np.flatnonzero(self._ends[ids[:-1]]) + 1
        if not places.shape[0]:
            places = np.arange(1, max(2, ids.shape[0]))
        return int(places[int(chance * places.shape[0])])


def _ends_sentence(piece: bytes) -> bool:
    return b"\n" in piece or piece.rstrip().endswith(ENDS_OF_SENTENCES)
