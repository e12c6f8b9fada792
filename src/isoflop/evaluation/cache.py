"""A cache of keys and values whose rows can be repeated, reordered or left out.

Not for the serving engine's blocks of memory, which outlive a batch.
"""

from __future__ import annotations

from torch import Tensor

from isoflop.models.decoder import Block, Decoder
from isoflop.models.layers import KVCache


class RowCache(KVCache):
    """`KVCache` for batches whose rows come and go."""

    def select(self, index_B: Tensor) -> None:
        """Keep the rows of these numbers, in this order; one may come several times."""
        self._layers = [
            None if pair is None else (pair[0][index_B], pair[1][index_B]) for pair in self._layers
        ]


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
    h_BTD = x_BTD if last.post_norm else last.input_layernorm(x_BTD)
    _, k_BGTK, v_BGTK = last.self_attn.heads(h_BTD, decoder.rotary, view.start)
    cache.extend(last.self_attn.layer, k_BGTK, v_BGTK)
