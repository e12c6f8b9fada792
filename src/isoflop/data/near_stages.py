"""The stages that find near duplicates: signatures, pairs by band, their texts' sets of shingles.

Not for joining them into clusters (`duplicate_stages`). Texts are compared as they were annotated,
before personal data is replaced, so that a changed threshold computes no signature again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoflop.core.engine import Engine, Output, Piece, Work
from isoflop.core.engine.records import KEY, others, read_partition, write_records
from isoflop.data.annotated import read_tables
from isoflop.data.document_keys import BY_RANK, FELL_FOR, RANK
from isoflop.data.judge import Shard
from isoflop.data.minhash import (
    BANDS,
    PERMUTATIONS,
    agreement,
    band_key,
    has_signature,
    signatures,
)
from isoflop.data.near_duplicates import Components, doubtful, equal_pairs, jaccard
from isoflop.data.shingles import shingle_sets

SIGNATURES = "signatures.npy"
_BANDS, _PAIRS, _EDGES = "bands.npy", "pairs.npy", "edges.npy"
_NUMBERS, _HASHES, _BOUNDS = "numbers.npy", "hashes.npy", "bounds.npy"
_BAND = np.dtype([(KEY, "<u8"), ("rank", "<u4")])
_PAIR = np.dtype([("first", "<u4"), ("second", "<u4"), ("sure", "?")])
_CHUNK = 1 << 14


def sign(engine: Engine, shards: Sequence[Shard]) -> list[Output]:
    """The MinHash signatures of every annotated document."""
    pieces = [
        Piece(
            f"{shard.source:03d}-{shard.piece:06d}",
            shard.documents,
            (shard.annotated,),
            bytes=int(shard.annotated.statistics["bytes"]),
        )
        for shard in shards
    ]
    return engine.map("signatures", sign_documents, pieces)


def sign_documents(work: Work) -> dict[str, Any]:
    """The task: (documents, 110) signatures of a shard."""
    found = np.empty((work.value, PERMUTATIONS), np.uint32)
    begin = 0
    for table in read_tables(work.inputs[0], ["text"]):
        found[begin : begin + len(table)] = signatures(table["text"].to_pylist())
        begin += len(table)
    np.save(work.out / SIGNATURES, found)
    return {}


def find_pairs(
    engine: Engine,
    shards: Sequence[Shard],
    signed: Sequence[Output],
    ranked: Output,
    similarity: float,
) -> tuple[Output, list[Output]]:
    """Pairs of documents that are near duplicates, and those that their texts must decide.

    Args:
        ranked: Says which documents are left, and their ranks.

    Returns:
        What `joined` reads: the pairs, and the sets of shingles by shard.
    """
    starts = np.cumsum([0, *(shard.documents for shard in shards)]).tolist()
    pieces = [
        Piece(
            f"{shard.source:03d}-{shard.piece:06d}",
            [start, stop],
            (ranked, own),
            bytes=shard.documents,
        )
        for shard, own, start, stop in zip(shards, signed, starts, starts[1:], strict=False)
    ]
    bands = engine.map("bands", cut_into_bands, pieces)
    parameters = {"starts": starts, "similarity": similarity}
    compared = engine.group("pairs", compare, bands, _BANDS, parameters, (ranked, *signed))
    (edges,) = engine.map("edges", gather_edges, [Piece("all", starts[-1], tuple(compared))])
    pieces = [
        Piece(
            f"{shard.source:03d}-{shard.piece:06d}",
            [start, stop],
            (edges, ranked, shard.annotated),
            bytes=int(shard.annotated.statistics["bytes"]),
        )
        for shard, start, stop in zip(shards, starts, starts[1:], strict=False)
    ]
    return edges, engine.map("shingles", shingle, pieces)


def cut_into_bands(work: Work) -> dict[str, Any]:
    """The task: a record for every band of every document of a shard that is still there."""
    start, stop = work.value
    ranked, signed = work.inputs
    alive = np.load(ranked / FELL_FOR, mmap_mode="r")[start:stop] == -1
    ranks = np.load(ranked / RANK, mmap_mode="r")[start:stop]
    records = np.empty((BANDS, int(alive.sum())), _BAND)
    filled = 0
    for at in range(0, stop - start, _CHUNK):
        # Mapped anew for each chunk: what was read of it does not stay in memory.
        rows = np.load(signed / SIGNATURES, mmap_mode="r")[at : at + _CHUNK]
        here = np.flatnonzero(alive[at : at + _CHUNK] & has_signature(rows))
        rows, part = rows[here], slice(filled, filled + here.size)
        records["rank"][:, part] = ranks[at + here]
        for band in range(BANDS):
            records[KEY][band, part] = band_key(rows, band)
        filled += here.size
    write_records(work.out / _BANDS, records[:, :filled].ravel())
    return {}


def compare(work: Work) -> dict[str, Any]:
    """The task: of the pairs that share a band in a range of keys, those that look alike.

    Pairs whose documents surer pairs join already are left out. Memory: one partition, and 8
    bytes a document.
    """
    records, (ranked, *signed) = read_partition(work), others(work)
    by_rank = np.load(ranked / BY_RANK, mmap_mode="r")
    stored = _Signatures(signed, work.parameters["starts"])
    least, believed = doubtful(work.parameters["similarity"])
    joined = Components(by_rank.size)
    found = [np.empty(0, _PAIR)]
    for first, second in equal_pairs(records[KEY], records["rank"].astype(np.int64)):
        for at in range(0, first.size, _CHUNK):
            a, b = first[at : at + _CHUNK], second[at : at + _CHUNK]
            apart = joined.find(a) != joined.find(b)
            a, b = a[apart], b[apart]
            numbers, places = np.unique(np.concatenate([a, b]), return_inverse=True)
            shares = agreement(stored.of(by_rank[numbers]), places[: a.size], places[a.size :])
            pairs = np.empty(a.size, _PAIR)
            pairs["first"], pairs["second"], pairs["sure"] = a, b, shares >= believed
            found.append(np.unique(pairs[shares >= least]))
            joined.join(a[pairs["sure"]], b[pairs["sure"]])
    np.save(work.out / _PAIRS, np.unique(np.concatenate(found)))
    return {}


class _Signatures:
    """The signatures of all shards, mapped from their files.

    Args:
        starts: Where the documents of each shard begin when all are counted through.
    """

    def __init__(self, folders: Sequence[Path], starts: Sequence[int]) -> None:
        self._maps = [np.load(folder / SIGNATURES, mmap_mode="r") for folder in folders]
        self._starts = np.asarray(starts)

    def of(self, positions: NDArray[np.int64]) -> NDArray[np.uint32]:
        """(P, 110) the signatures of documents."""
        shards = np.searchsorted(self._starts, positions, side="right") - 1
        found = np.empty((positions.size, PERMUTATIONS), np.uint32)
        for shard in np.unique(shards).tolist():
            mine = shards == shard
            found[mine] = self._maps[shard][positions[mine] - self._starts[shard]]
        return found


def gather_edges(work: Work) -> dict[str, Any]:
    """The task: all sure pairs joined, and the doubtful ones that they do not join."""
    joined = Components(work.value)
    unsure = [np.empty(0, _PAIR)]
    for folder in work.inputs:
        pairs = np.load(folder / _PAIRS)
        sure = pairs[pairs["sure"]]
        joined.join(*_ends(sure))
        unsure.append(pairs[~pairs["sure"]])
    pairs = np.unique(np.concatenate(unsure))
    first, second = _ends(pairs)
    np.save(work.out / _PAIRS, pairs[joined.find(first) != joined.find(second)])
    np.save(work.out / _EDGES, joined.labels())
    return {}


def shingle(work: Work) -> dict[str, Any]:
    """The task: the sets of shingles of those documents of a shard that doubtful pairs name."""
    start, stop = work.value
    edges, ranked, annotated = work.inputs
    wanted = np.unique(np.concatenate(_ends(np.load(edges / _PAIRS))))
    positions = np.load(ranked / BY_RANK, mmap_mode="r")[wanted]
    own = np.sort(positions[(positions >= start) & (positions < stop)]) - start
    hashes, sizes, begin = [np.empty(0, np.uint32)], [np.zeros(1, np.int64)], 0
    for table in read_tables(annotated, ["text"]) if own.size else ():
        here = own[(own >= begin) & (own < begin + len(table))] - begin
        begin += len(table)
        found, bounds = shingle_sets(table["text"].take(here).to_pylist())
        hashes.append(found)
        sizes.append(np.diff(bounds))
    np.save(work.out / _NUMBERS, np.load(ranked / RANK, mmap_mode="r")[start + own])
    np.save(work.out / _HASHES, np.concatenate(hashes))
    np.save(work.out / _BOUNDS, np.cumsum(np.concatenate(sizes)))
    return {}


def joined(edges: Path, shingled: Sequence[Path], similarity: float) -> NDArray[np.int64]:
    """(D,) by rank, the least rank of each document's cluster.

    Memory: 30 bytes a document; the sets are mapped from their files.
    """
    labels = np.load(edges / _EDGES)
    clusters = Components(labels.size)
    clusters.join(np.arange(labels.size), labels)
    pairs = np.load(edges / _PAIRS)
    sets = _Sets(shingled)
    for pair in range(pairs.size):
        first, second = _ends(pairs[pair : pair + 1])
        if clusters.find(first)[0] != clusters.find(second)[0] and (
            jaccard(sets.of(int(first[0])), sets.of(int(second[0]))) >= similarity
        ):
            clusters.join(first, second)
    return clusters.labels()


class _Sets:
    """The sets of shingles of the documents in doubtful pairs, mapped from the files of shards."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._rows: dict[int, tuple[NDArray[np.uint32], int, int]] = {}
        for folder in folders:
            hashes = np.load(folder / _HASHES, mmap_mode="r")
            bounds = np.load(folder / _BOUNDS).tolist()
            for row, number in enumerate(np.load(folder / _NUMBERS).tolist()):
                self._rows[number] = hashes, bounds[row], bounds[row + 1]

    def of(self, rank: int) -> NDArray[np.uint32]:
        hashes, begin, end = self._rows[rank]
        return hashes[begin:end]


def _ends(pairs: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return pairs["first"].astype(np.int64), pairs["second"].astype(np.int64)
