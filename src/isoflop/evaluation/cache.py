"""A cache of keys and values whose rows can be repeated, reordered or left out.

Not for the serving engine's blocks of memory, which outlive a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from torch import Tensor

from isoflop.models.decoder import Block, Decoder
from isoflop.models.layers import KVCache


class RowCache(KVCache):
    """`KVCache` for batches whose rows come and go."""

    def __init__(self, n_layers: int) -> None:
        super().__init__(n_layers)
        self._chosen: list[Sequence[int] | None] = [None] * n_layers

    def select(self, rows: Sequence[int]) -> None:
        """Keep the rows of these numbers, in this order; one may come several times."""
        self._chosen = [
            rows if before is None else [before[row] for row in rows] for before in self._chosen
        ]

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Append new keys and values and return all of them."""
        rows, seen = self._chosen[layer], self._layers[layer]
        if rows is None or seen is None:
            return super().extend(layer, k_BGTK, v_BGTK)
        # Chosen rows go to their places at once: chosen first, they would be copied twice.
        self._chosen[layer] = None
        both = _after(seen[0], rows, k_BGTK), _after(seen[1], rows, v_BGTK)
        self._layers[layer] = both
        return both


def _after(seen_BGSK: Tensor, rows: Sequence[int], new_BGTK: Tensor) -> Tensor:
    """The new ones after those seen in these rows."""
    _, n_groups, n_seen, width = seen_BGSK.shape
    whole = new_BGTK.new_empty(len(rows), n_groups, n_seen + new_BGTK.shape[2], width)
    line = 0
    for row, alike in groupby(rows):
        end = line + len(list(alike))
        whole[line:end, :, :n_seen] = seen_BGSK[row]
        line = end
    whole[:, :, n_seen:] = new_BGTK
    return whole


def remember(decoder: Decoder, ids_BT: Tensor, cache: RowCache) -> None:
    """Leave in the cache what `decoder.hidden(ids_BT, cache=cache)` would, less the work that only
    a prediction needs: of the last layer nobody reads more than its keys and values."""
    x_BTD = decoder.embed(ids_BT, cache.length, None)
    view = decoder.view(x_BTD, None, cache)
    for block in decoder.layers[:-1]:
        x_BTD, _ = block(x_BTD, decoder.rotary, view)
    last = decoder.layers[-1]
    if not isinstance(last, Block):
        raise TypeError("the layers of a decoder are blocks")
    last.remember(x_BTD, decoder.rotary, view)
