"""Several sources mixed by weights, on the fly and to the window; not for finding the weights.

Windows are dealt in blocks. In each block every source gets its share by the largest remainder,
what was rounded off is carried to the next, and a source's windows are spread evenly over the
block: after any block the realised counts are within a window or so of the weights, and any batch
is nearly as mixed as the whole. Nothing is drawn at random, so that the counts are promises.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from isoflop.core.errors import DataError
from isoflop.data.loader import Order, Stretches, Windows

BLOCK_WINDOWS = 64
"""Windows dealt together: a curriculum moves in steps of so many, and a source of smaller weight
than one in so many still has its turns."""
_BLOCKS_KEPT = 256


@dataclass(frozen=True)
class Source:
    """One source of a mixture."""

    name: str
    order: Order
    """Deals its windows."""
    weight: tuple[tuple[float, float], ...]
    """(progress, weight) points: linear between them, constant before the first and after the
    last; one point is a constant weight. Progress runs from 0 to 1 over the training, and the
    weights of all sources are normalised at every moment."""


@dataclass(frozen=True)
class Realised:
    """What a source has given so far."""

    share: float
    """Of all windows dealt."""
    epochs: float
    """Times it was gone through."""


def tempered(sizes: Sequence[float], temperature: float) -> list[float]:
    """Weights proportional to size^(1/temperature), summing to 1.

    1 keeps the proportions; above 1 small sources get more, towards equal weights (Arivazhagan et
    al. 2019).

    Raises:
        DataError: A size or the temperature is not positive.
    """
    if temperature <= 0 or min(sizes) <= 0:
        raise DataError(
            f"temperature ({temperature:g}) and sizes must be positive", where="mixture"
        )
    powers = [size ** (1.0 / temperature) for size in sizes]
    return [power / sum(powers) for power in powers]


class MixtureLoader(Order):
    """Windows of several sources, dealt by weights that may change over the training.

    The window of a global index is a pure function of the sources, the weights and the index: the
    counts of all blocks are made once, at the start, whatever the index of the first one asked
    for.

    Args:
        sources: At least one.
        n_windows: Windows of the whole training, over which progress runs; more may be asked for,
            at the last weights.

    Raises:
        DataError: There is no source, two have one name, or their weights cannot be used.
    """

    def __init__(self, sources: Sequence[Source], n_windows: int) -> None:
        _check(sources)
        self.sources = tuple(sources)
        self.n_windows = n_windows
        # Row b: windows of each source before block b; rows up to `_counted` are filled.
        self._before = np.zeros((1, len(sources)), dtype=np.int64)
        self._counted = 0
        self._owed = [0.0] * len(sources)
        self._extend(-(-n_windows // BLOCK_WINDOWS))
        self._dealt: dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}

    def windows(self, indices: npt.ArrayLike) -> Windows:
        """The windows with these global indices, in that order."""
        asked = np.asarray(indices, dtype=np.int64)
        source, own_index = self._dealt_at(asked)
        rows = [np.flatnonzero(source == number) for number in range(len(self.sources))]
        parts = [
            (mine, self.sources[number].order.windows(own_index[mine]))
            for number, mine in enumerate(rows)
            if mine.shape[0]
        ]
        return parts[0][1] if len(parts) == 1 else _in_order(parts, asked.shape[0])

    def stretches(self, indices: npt.ArrayLike) -> Mapping[str, Stretches]:
        """Where the tokens of these windows stand in the splits of their sources."""
        source, own_index = self._dealt_at(np.asarray(indices, dtype=np.int64))
        return {
            self.sources[number].name: own
            for number in np.unique(source)
            for own in self.sources[number].order.stretches(own_index[source == number]).values()
        }

    def realised(self, n_dealt: int) -> dict[str, Realised]:
        """By source, what the first `n_dealt` windows hold."""
        block, place = divmod(n_dealt, BLOCK_WINDOWS)
        self._extend(block)
        counts = self._before[block].copy()
        if place:
            dealt, _ = self._deal(block)
            counts += np.bincount(dealt[:place], minlength=len(self.sources))
        return {
            source.name: Realised(int(count) / max(1, n_dealt), int(count) / source.order.n_windows)
            for source, count in zip(self.sources, counts, strict=True)
        }

    def _dealt_at(
        self, asked: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(source, index within the source) of the windows with these global indices."""
        source, own_index = np.empty_like(asked), np.empty_like(asked)
        blocks, places = np.divmod(asked, BLOCK_WINDOWS)
        for block in np.unique(blocks):
            here = blocks == block
            sources, indices_of = self._deal(int(block))
            source[here], own_index[here] = sources[places[here]], indices_of[places[here]]
        return source, own_index

    def _deal(self, block: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(source, index within the source) of each window of a block."""
        if block not in self._dealt:
            self._extend(block + 1)
            before = self._before[block]
            counts = self._before[block + 1] - before
            source = np.repeat(np.arange(len(counts)), counts)
            rank = np.concatenate([np.arange(count) for count in counts])
            # The m-th of n windows stands at (m + 1/2)/n of the block.
            order = np.argsort((2 * rank + 1) / counts[source], kind="stable")
            if len(self._dealt) >= _BLOCKS_KEPT:
                self._dealt.clear()
            self._dealt[block] = (source[order], (before[source] + rank)[order])
        return self._dealt[block]

    def _extend(self, n_blocks: int) -> None:
        """Count windows by source up to the end of block `n_blocks - 1`."""
        total = max(1, self.n_windows)
        if n_blocks >= len(self._before):
            longer = max(n_blocks + 1, 2 * self._counted)
            more = np.zeros((longer - len(self._before), len(self.sources)), dtype=np.int64)
            self._before = np.concatenate([self._before, more])
        while self._counted < n_blocks:
            middle = (self._counted + 0.5) * BLOCK_WINDOWS / total
            weights = weights_at(self.sources, min(1.0, middle))
            owed = [a + BLOCK_WINDOWS * b for a, b in zip(self._owed, weights, strict=True)]
            counts = _apportion(owed, BLOCK_WINDOWS)
            self._owed = [a - b for a, b in zip(owed, counts, strict=True)]
            self._before[self._counted + 1] = self._before[self._counted] + counts
            self._counted += 1


def weights_at(sources: Sequence[Source], progress: float) -> list[float]:
    """The weights of the sources at a point of the training, summing to 1.

    Raises:
        DataError: All are zero there.
    """
    raw = [_interpolate(source.weight, progress) for source in sources]
    total = sum(raw)
    if not total > 0:
        raise DataError(
            f"all weights are zero at {progress:.0%} of the training",
            where="mixture",
            fix="Let at least one source have a positive weight at any time",
        )
    return [weight / total for weight in raw]


def _interpolate(points: Sequence[tuple[float, float]], at: float) -> float:
    place = bisect_right(points, at, key=lambda point: point[0])
    if place == 0:
        return points[0][1]
    if place == len(points):
        return points[-1][1]
    (x0, y0), (x1, y1) = points[place - 1], points[place]
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)


def _apportion(owed: Sequence[float], total: int) -> list[int]:
    """Whole numbers that sum to `total`, by the largest remainder, none below zero.

    What is owed may be slightly negative where a source was rounded up before.
    """
    counts = [max(0, int(each // 1)) for each in owed]
    left = total - sum(counts)
    while left:
        step = 1 if left > 0 else -1
        open_places = [i for i, count in enumerate(counts) if left > 0 or count > 0]
        chosen = max(open_places, key=lambda i: (step * (owed[i] - counts[i]), -i))
        counts[chosen] += step
        left -= step
    return counts


def _check(sources: Sequence[Source]) -> None:
    names = [source.name for source in sources]
    if not sources or len(set(names)) < len(names):
        raise DataError(
            "a mixture needs at least one source, and a name of its own for each",
            where=f"mixture ({', '.join(names)})",
            fix="Give each source a `name`",
        )
    for source in sources:
        at = [progress for progress, _ in source.weight]
        good = all(weight >= 0 and np.isfinite(weight) for _, weight in source.weight)
        inside = all(0 <= progress <= 1 for progress in at)
        if not at or not good or not inside or any(b <= a for a, b in pairwise(at)):
            raise DataError(
                f"weights {list(source.weight)} are not (progress, weight) points with progress "
                "rising within 0 to 1 and no weight below 0",
                where=f"mixture, source {source.name}",
            )
    for progress in sorted(
        {point for source in sources for point, _ in source.weight} | {0.0, 1.0}
    ):
        weights_at(sources, progress)


def _in_order(parts: Sequence[tuple[npt.NDArray[np.intp], Windows]], n_rows: int) -> Windows:
    """Rows of several sources, each at its place."""
    length = parts[0][1].ids_BT.shape[1]
    ids_BT = np.empty((n_rows, length), dtype=np.int64)
    labels_BT = np.empty((n_rows, length), dtype=np.int64)
    document_BT = np.empty((n_rows, length), dtype=np.int32)
    for rows, part in parts:
        ids_BT[rows], labels_BT[rows] = part.ids_BT, part.labels_BT
        document_BT[rows] = part.document_BT
    return Windows(ids_BT, labels_BT, document_BT)
