"""Documents packed whole into windows, as few cut as can be; not for the stream (`loader`).

The stream of `loader.Loader` wastes no position and cuts every document that crosses the end of a
window. Best-fit packing cuts only documents longer than a window and pays with a little padding
(Ding et al. 2024, "Fewer truncations improve language modeling").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isoflop.core.errors import DataError
from isoflop.data.loader import IGNORED, Order, Stretches, Windows, shuffled
from isoflop.data.permutation import permute
from isoflop.data.shards import Split


@dataclass(frozen=True)
class Packing:
    """Pieces of documents in bins, bin after bin."""

    seq_len: int
    piece_starts: npt.NDArray[np.int64]
    """(pieces,) first token of each piece in the split, ordered by bin."""
    piece_lengths: npt.NDArray[np.int64]
    """(pieces,) tokens of each, at most `seq_len`."""
    bin_starts: npt.NDArray[np.int64]
    """(bins + 1,) first piece of each bin; the last entry is the number of pieces."""
    documents_cut: float
    """Share of documents that lie in more than one piece."""

    @property
    def n_bins(self) -> int:
        """Windows of an epoch."""
        return int(self.bin_starts.shape[0]) - 1

    @property
    def padding(self) -> float:
        """Share of all positions that hold no token."""
        return 1.0 - int(self.piece_lengths.sum()) / (self.n_bins * self.seq_len)


def pack(split: Split, seq_len: int, seed: int) -> Packing:
    """Pack a split's documents into bins of `seq_len` tokens by best-fit decreasing.

    Documents longer than a bin are cut into pieces of a whole bin and a rest. Pieces are taken
    longest first, equally long ones in an order fixed by the seed, and each goes to the fullest
    bin that still holds it. Runs over lengths, not over pieces, so that millions take seconds.

    Raises:
        DataError: The split holds no document.
    """
    if not split.n_documents:
        raise DataError("there is no document to pack", where=f"split {split.name}")
    return pack_documents(split.document_starts, seq_len, seed)


def pack_documents(document_starts: npt.NDArray[np.int64], seq_len: int, seed: int) -> Packing:
    """`pack`, for documents that lie anywhere.

    Args:
        document_starts: (documents + 1,) the first token of each, and the end of the last.
    """
    starts, lengths = _pieces(document_starts, seq_len)
    chance = permute(np.arange(lengths.shape[0]), lengths.shape[0], seed)
    order = np.lexsort((chance, -lengths))
    starts, lengths = starts[order], lengths[order]
    bin_of = _best_fit(lengths, seq_len)
    by_bin = np.argsort(bin_of, kind="stable")
    counts = np.bincount(bin_of)
    return Packing(
        seq_len=seq_len,
        piece_starts=starts[by_bin],
        piece_lengths=lengths[by_bin],
        bin_starts=np.concatenate([[0], np.cumsum(counts)]),
        documents_cut=float(np.mean(np.diff(document_starts) > seq_len)),
    )


def documents_cut_by_stream(split: Split, seq_len: int) -> float:
    """Share of documents that end in another window of the stream than they begin in."""
    first, last = split.document_starts[:-1], split.document_starts[1:] - 1
    return float(np.mean(first // seq_len != last // seq_len))


class PackedLoader(Order):
    """Windows of packed documents: each epoch a fresh permutation of all bins.

    Padding repeats the EOS id, counts in no loss, and is a document of its own.

    Args:
        split: The tokens.
        seq_len: T, the number of input tokens in a window.
        seed: Fixes the packing and the order.

    Raises:
        DataError: The split holds no document.
    """

    def __init__(self, split: Split, seq_len: int, seed: int) -> None:
        self.split, self.seq_len, self.seed = split, seq_len, seed
        self.packing = pack(split, seq_len, seed)
        self.n_windows = self.packing.n_bins

    def windows(self, indices: npt.ArrayLike) -> Windows:
        """The windows with these global indices."""
        asked = np.asarray(indices, dtype=np.int64)
        return gather(self.split, self.packing, shuffled(asked, self.n_windows, self.seed))

    def stretches(self, indices: npt.ArrayLike) -> Mapping[str, Stretches]:
        """Where the pieces of these windows stand in the split."""
        bins = shuffled(np.asarray(indices, dtype=np.int64), self.n_windows, self.seed)
        first, last = self.packing.bin_starts[bins], self.packing.bin_starts[bins + 1]
        piece = np.repeat(first, last - first) + _counting(last - first)
        return {"": Stretches(self.packing.piece_starts[piece], self.packing.piece_lengths[piece])}


def gather(split: Split, packing: Packing, bins_B: npt.NDArray[np.int64]) -> Windows:
    """The windows of some bins."""
    first, last = packing.bin_starts[bins_B], packing.bin_starts[bins_B + 1]
    counts = last - first
    piece = np.repeat(first, counts) + _counting(counts)
    starts, lengths = packing.piece_starts[piece], packing.piece_lengths[piece]
    split.check(starts, packing.seq_len + 1)
    positions = np.repeat(starts, lengths) + _counting(lengths)
    # The last token of a split ends a document, so what is read for its label is not used.
    after = np.minimum(positions + 1, split.n_tokens - 1)
    used_B = np.add.reduceat(lengths, np.cumsum(counts) - counts)
    held_BT = np.arange(packing.seq_len) < used_B[:, None]
    ids_BT = np.full(held_BT.shape, split.eos_id, dtype=np.int64)
    labels_BT = np.full(held_BT.shape, IGNORED, dtype=np.int64)
    document_BT = np.repeat(counts.astype(np.int32), packing.seq_len).reshape(held_BT.shape)
    ids_BT[held_BT] = split.tokens[positions]
    labels_BT[held_BT] = split.tokens[after]
    labels_BT[ids_BT == split.eos_id] = IGNORED
    document_BT[held_BT] = np.repeat(_counting(counts), lengths)
    return Windows(ids_BT, labels_BT, document_BT)


def _counting(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """0, 1, … counts[0] - 1, 0, 1, … counts[1] - 1, and so on."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def _pieces(
    document_starts: npt.NDArray[np.int64], seq_len: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(starts, lengths) of documents cut into whole bins and a rest."""
    lengths = np.diff(document_starts)
    counts = -(-lengths // seq_len)
    owner = np.repeat(np.arange(lengths.shape[0]), counts)
    first = np.cumsum(counts) - counts
    offsets = (np.arange(owner.shape[0]) - first[owner]) * seq_len
    starts = document_starts[owner] + offsets
    return starts, np.minimum(lengths[owner] - offsets, seq_len)


def _best_fit(lengths: npt.NDArray[np.int64], capacity: int) -> npt.NDArray[np.int64]:
    """The bin of each piece; `lengths` fall.

    Open bins are kept by the room they have left. Pieces of one length go to the bins of the
    least sufficient room first, each bin taking as many as it holds, as one by one they would.
    """
    bin_of = np.empty(lengths.shape[0], dtype=np.int64)
    rooms: dict[int, list[npt.NDArray[np.int64]]] = {}
    n_bins, done = 0, 0
    values, counts = np.unique(lengths, return_counts=True)
    for length, count in zip(values[::-1].tolist(), counts[::-1].tolist(), strict=True):
        todo = count
        for room in sorted(room for room in rooms if room >= length):
            bins = np.concatenate(rooms.pop(room))
            used = _fill(bins, room // length, bin_of[done : done + todo])
            _keep(rooms, bins, used, room, length, min(todo, used * (room // length)))
            placed = min(todo, used * (room // length))
            done, todo = done + placed, todo - placed
            if not todo:
                break
        if todo:
            each = capacity // length
            fresh = np.arange(n_bins, n_bins - (-todo // each))
            n_bins += fresh.shape[0]
            used = _fill(fresh, each, bin_of[done : done + todo])
            _keep(rooms, fresh, used, capacity, length, todo)
            done += todo
    return bin_of


def _fill(bins: npt.NDArray[np.int64], each: int, places: npt.NDArray[np.int64]) -> int:
    """Give the pieces at `places` bins, `each` to a bin; returns how many bins took any."""
    used = min(int(bins.shape[0]), -(-int(places.shape[0]) // each))
    filled = np.repeat(bins[:used], each)[: places.shape[0]]
    places[: filled.shape[0]] = filled
    return used


def _keep(
    rooms: dict[int, list[npt.NDArray[np.int64]]],
    bins: npt.NDArray[np.int64],
    used: int,
    room: int,
    length: int,
    placed: int,
) -> None:
    """File the bins under the room they have now: the untouched, the full, and the last one."""
    each = room // length
    whole = placed // each
    groups = [(bins[:whole], room - each * length), (bins[used:], room)]
    if whole < used:
        groups.append((bins[whole:used], room - (placed - whole * each) * length))
    for group, left in groups:
        if group.shape[0] and left > 0:
            rooms.setdefault(left, []).append(group)
