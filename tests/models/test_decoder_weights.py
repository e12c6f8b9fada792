"""Weights copied into one piece of memory are the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from isoflop.compression.quantize import plan_bits, quantize_decoder
from isoflop.models.decoder_weights import LINE, DecoderWeights, in_large_pages, weights_of
from isoflop.models.packed_weights import Packed


def _parts(one: Tensor | Packed) -> list[Tensor]:
    if isinstance(one, Tensor):
        return [one]
    return [part for part in (one.codes, one.scale, one.offset) if part is not None]


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_a_copy_in_large_pages_holds_the_same_bits_and_nothing_of_the_original(
    decoder_of, bits: int
) -> None:
    decoder = decoder_of(d_model=32, head_dim=16)
    weights = weights_of(decoder)
    if bits < 32:
        packed = quantize_decoder(decoder, plan_bits(decoder, bits, 16))
        weights = DecoderWeights(decoder.config, {**weights.tensors, **packed})
    kept = {name: [part.clone() for part in _parts(one)] for name, one in weights.tensors.items()}

    copy = in_large_pages(weights)
    for one in weights.tensors.values():
        for part in _parts(one):
            part.zero_()
    assert copy.n_bytes == weights.n_bytes
    for name, parts in kept.items():
        for found, wanted in zip(_parts(copy.tensors[name]), parts, strict=True):
            assert torch.equal(found, wanted)
            assert found.dtype == wanted.dtype
            assert found.data_ptr() % LINE == 0
