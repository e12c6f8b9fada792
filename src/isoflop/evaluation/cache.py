"""A cache of keys and values whose rows can be repeated, reordered or left out.

Not for the serving engine's blocks of memory, which outlive a batch.
"""

from __future__ import annotations

from torch import Tensor

from isoflop.models.layers import KVCache


class RowCache(KVCache):
    """`KVCache` for batches whose rows come and go."""

    def select(self, index_B: Tensor) -> None:
        """Keep the rows of these numbers, in this order; one may come several times."""
        self._layers = [
            None if pair is None else (pair[0][index_B], pair[1][index_B]) for pair in self._layers
        ]
