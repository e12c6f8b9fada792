"""Which documents are near duplicates: candidates by band key, verified, joined into clusters.

Not for computing signatures (`minhash`) nor for what becomes of a cluster (`duplicates`).
What is best kept has the smallest rank, so that the answer depends neither on the order in which
documents were read nor on how they were partitioned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isoflop.data.minhash import BANDS, PERMUTATIONS, agreement, band_key, has_signature

# Documents under one key are compared with so many neighbours, in order of preference. Larger
# groups hold copies of one text, which a chain of neighbours joins as well.
_MAX_NEIGHBOURS = 64
# Estimates so many standard deviations below the similarity asked for are given up,
# and so many above are believed; those between are settled by the sets of shingles themselves.
_GIVEN_UP, _BELIEVED = 3.0, 4.0

_Similar = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]


class Components:
    """Connected components of a growing graph (union-find over one array).

    Memory: 8 bytes a node.
    """

    def __init__(self, n: int) -> None:
        self._parent = np.arange(n)

    def find(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The smallest node of the component of each node."""
        roots = self._parent[nodes]
        while not np.array_equal(above := self._parent[roots], roots):
            roots = above
        self._parent[nodes] = roots
        return roots

    def join(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> None:
        """Add the edges first[i] – second[i]."""
        while first.size:
            a, b = self.find(first), self.find(second)
            apart = a != b
            first, second = first[apart], second[apart]
            low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
            # Of several edges at one root the least wins here, the others in the next round.
            np.minimum.at(self._parent, high, low)

    def labels(self) -> NDArray[np.int64]:
        """(n,) the smallest node of the component of every node."""
        return self.find(np.arange(self._parent.size))


@dataclass(frozen=True)
class ShingleSets:
    """The sets of shingles of some of D documents."""

    rows: NDArray[np.int64]
    """(D,) the row of each document; -1 where its set is not held."""
    hashes: NDArray[np.uint32]
    """(S,) the sets, row after row, each sorted and without repeats; may be mapped from a file."""
    bounds: NDArray[np.int64]
    """(R + 1,) where each row begins in `hashes`."""

    def of(self, document: int) -> NDArray[np.uint32]:
        """The set of a document."""
        row = self.rows[document]
        return self.hashes[self.bounds[row] : self.bounds[row + 1]]

    def jaccard(self, first: int, second: int) -> float:
        """The size of the intersection over that of the union of two documents' sets."""
        return jaccard(self.of(first), self.of(second))


def jaccard(first: NDArray[np.uint32], second: NDArray[np.uint32]) -> float:
    """The size of the intersection over that of the union of two sets, each without repeats."""
    both = np.sort(np.concatenate([first, second]))
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / max(both.size - shared, 1)


def equal_pairs(
    keys: NDArray[np.uint64], nodes: NDArray[np.int64], max_neighbours: int = _MAX_NEIGHBOURS
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of nodes under equal keys, the smaller node first.

    Under each key a node meets the `max_neighbours` after it in the order of the nodes, nearest
    first: batches come by distance in that order.
    """
    order = np.lexsort((nodes, keys))
    keys, nodes = keys[order], nodes[order]
    at = np.arange(keys.size)
    for distance in range(1, max_neighbours + 1):
        at = at[: np.searchsorted(at, keys.size - distance)]
        at = at[keys[at] == keys[at + distance]]
        if not at.size:
            return
        yield nodes[at], nodes[at + distance]


def near_clusters(
    signature: NDArray[np.uint32],
    rank: NDArray[np.int64],
    similarity: float,
    among: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Clusters of documents that may be near duplicates, by their signatures alone.

    Two documents that share a band are compared by all 110 numbers of their signatures; the
    clusters hold every pair that `confirmed_clusters` may confirm.

    Args:
        signature: (D, 110), in memory or mapped from a file.
        rank: (D,) a permutation of 0 … D - 1; what is better kept comes first.
        similarity: The Jaccard similarity of shingles from which two documents are duplicates.
        among: Numbers of the documents to compare; all when omitted.

    Returns:
        (D,) for each document the rank of the best one of its cluster; its own where it is alone
        or the best.
    """
    present = np.arange(rank.size) if among is None else among
    present = present[has_signature(signature[present])]
    least, _ = doubtful(similarity)

    def similar(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
        return agreement(signature, first, second) >= least

    def keys(band: int) -> NDArray[np.uint64]:
        return band_key(signature, band)[present]

    return _join(keys, present, rank, similar)


def confirmed_clusters(
    signature: NDArray[np.uint32],
    rank: NDArray[np.int64],
    clusters: NDArray[np.int64],
    sets: ShingleSets,
    similarity: float,
) -> NDArray[np.int64]:
    """What `near_clusters` found, each pair confirmed by the documents' sets of shingles.

    Clusters are treated apart, so they may be spread over any number of calls.

    Args:
        clusters: (D,) as `near_clusters` returns it.
        sets: At least those of the documents that are not alone in their cluster.

    Returns:
        (D,) as `near_clusters`: every document of a cluster of several has a Jaccard similarity
        of at least `similarity` to another one of it (or an estimate four standard deviations
        above it).
    """
    present = members(clusters)
    least, believed = doubtful(similarity)

    def similar(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
        shares = agreement(signature, first, second)
        found = shares >= believed
        for pair in np.flatnonzero((shares >= least) & ~found):
            found[pair] = sets.jaccard(int(first[pair]), int(second[pair])) >= similarity
        return found

    def keys(band: int) -> NDArray[np.uint64]:
        apart = clusters[present].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return band_key(signature[present], band) ^ apart

    return _join(keys, present, rank, similar)


def members(clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of the documents that are not alone in their cluster."""
    sizes = np.bincount(clusters, minlength=clusters.size)
    return np.flatnonzero(sizes[clusters] > 1)


def likely(similarity: float) -> float:
    """The estimate that 19 of 20 pairs of just this similarity reach; where no set can decide."""
    return similarity - 1.645 * _deviation(similarity)


def doubtful(similarity: float) -> tuple[float, float]:
    """The estimates of similarity between which the sets themselves decide."""
    deviation = _deviation(similarity)
    return similarity - _GIVEN_UP * deviation, similarity + _BELIEVED * deviation


def _deviation(similarity: float) -> float:
    return math.sqrt(similarity * (1.0 - similarity) / PERMUTATIONS)


def _join(
    keys: Callable[[int], NDArray[np.uint64]],
    present: NDArray[np.int64],
    rank: NDArray[np.int64],
    similar: _Similar,
) -> NDArray[np.int64]:
    """Components of the similar pairs among the documents `present`, one band after the other."""
    by_rank = np.empty_like(rank)
    by_rank[rank] = np.arange(rank.size)
    clusters = Components(rank.size)
    for band in range(BANDS):
        for first, second in equal_pairs(keys(band), rank[present]):
            apart = clusters.find(first) != clusters.find(second)
            first, second = first[apart], second[apart]
            yes = similar(by_rank[first], by_rank[second])
            clusters.join(first[yes], second[yes])
    return clusters.labels()[rank]
