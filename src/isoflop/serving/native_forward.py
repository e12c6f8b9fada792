"""The forward pass over tokens of many sequences by the native library, and which pass is taken.

Not for the forms of decoder that the library does not know, nor for GPUs: `forward.py` computes
these with torch. Rows of the native pass are computed one by one, so that neither the batch nor the
cut of a prompt shows in any bit, and packed weights are read as they are stored.

Shape suffixes: N rows (tokens of all units), D model width, V vocabulary.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from isoflop.models.decoder import Decoder
from isoflop.models.decoder_weights import DecoderWeights, in_large_pages, weights_of
from isoflop.models.native.decode import NativeDecoder, decodes
from isoflop.serving.forward import Paged, PagedDecoder, Unit
from isoflop.serving.settings import BLOCK


class NativePagedDecoder:
    """A decoder with a key–value cache in blocks, computed by the native library.

    Args:
        weights: Of the form that the library computes (`native.decode.decodes`); copied.
        n_blocks: Blocks of the cache, `BLOCK` positions each.
    """

    def __init__(self, weights: DecoderWeights, n_blocks: int) -> None:
        self.config, self.device = weights.config, torch.device("cpu")
        self._native = NativeDecoder(in_large_pages(weights), n_blocks, BLOCK)

    def hidden(self, units: Sequence[Unit]) -> Tensor:
        """(N, D) final normalised states of the units' tokens, in order; the cache is extended."""
        ids, positions, blocks, first = (array("i") for _ in range(4))
        for unit in units:
            length = len(unit.tokens)
            ids.extend(unit.tokens)
            positions.extend(range(unit.start, unit.start + length))
            first.extend([len(blocks)] * length)
            blocks.extend(unit.blocks)
        return self._native.states(ids, positions, blocks, first)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """(N, V) next-token logits of final states, float32."""
        return self._native.logits(hidden_ND.contiguous())

    def copy_block(self, source: int, target: int) -> None:
        """Let one block hold what another does."""
        self._native.memory[:, target] = self._native.memory[:, source]


def paged(model: Decoder | DecoderWeights, n_blocks: int) -> Paged:
    """The native pass where the library and the decoder allow it, else that of torch."""
    weights = weights_of(model) if isinstance(model, Decoder) else model
    if decodes(weights):
        return NativePagedDecoder(weights, n_blocks)
    return PagedDecoder(model if isinstance(model, Decoder) else model.decoder(), n_blocks)
