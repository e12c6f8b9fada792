"""Span corruption: a text with holes, and what fills them (Raffel et al. 2020, section 3.1.4).

Of a segment's tokens 15 % are dropped in spans of three on average; in the source each span is
replaced by a sentinel of its own, and the target is each sentinel followed by what it stands for.
Not for masked tokens of an encoder (`masking`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isoflop.data.chance import uniforms

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Corrupted:
    """A segment of n tokens in two parts."""

    source: Ids
    """What is left, a sentinel for each dropped span, the end token."""
    target: Ids
    """Each sentinel and its span, the end token."""
    dropped: npt.NDArray[np.bool_]
    """(n,) which tokens were dropped."""


@dataclass(frozen=True)
class SpanCorruptor:
    """Drops spans, the same ones whenever a segment with the same index is asked for."""

    sentinels: Sequence[int]
    """Ids of `<extra_id_0>` …, of which a segment uses as many as it has spans."""
    end_id: int
    fraction: float
    mean_length: float
    seed: int

    def n_spans(self, n_tokens: int) -> tuple[int, int]:
        """(dropped tokens, spans) of a segment of so many tokens, as T5 rounds them."""
        if n_tokens < 2:
            return 0, 0
        dropped = min(max(round(n_tokens * self.fraction), 1), n_tokens - 1)
        spans = max(round(dropped / self.mean_length), 1)
        return dropped, min(spans, n_tokens - dropped)

    def __call__(self, ids: Ids, row: int) -> Corrupted:
        """Corrupt one segment of a document.

        Args:
            row: Global index of the segment; with the seed it decides everything.
        """
        n_tokens = ids.shape[0]
        n_dropped, n_spans = self.n_spans(n_tokens)
        dropped = np.zeros(n_tokens, dtype=np.bool_)
        end = np.array([self.end_id])
        if not n_spans:
            return Corrupted(np.concatenate([ids, end]), end, dropped)
        chance = uniforms(self.seed, "spans", np.array([row]), n_tokens)[0]
        # T5 begins with a run that is kept and ends with one that is dropped.
        kept = _parts(n_tokens - n_dropped, n_spans, chance[: n_tokens - n_dropped])
        lost = _parts(n_dropped, n_spans, chance[n_tokens - n_dropped :])
        edges = np.cumsum(np.stack((kept, lost), axis=1).ravel())
        source: list[Ids] = []
        target: list[Ids] = []
        place = 0
        for number in range(n_spans):
            begin, stop = int(edges[2 * number]), int(edges[2 * number + 1])
            sentinel = np.array([self.sentinels[number]])
            source += [ids[place:begin], sentinel]
            target += [sentinel, ids[begin:stop]]
            dropped[begin:stop] = True
            place = stop
        return Corrupted(np.concatenate([*source, end]), np.concatenate([*target, end]), dropped)


def _parts(total: int, parts: int, chance: npt.NDArray[np.float64]) -> Ids:
    """(parts,) lengths of at least 1 that add up to `total`, every way equally likely."""
    cuts = np.sort(chance[: total - 1].argsort()[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))
