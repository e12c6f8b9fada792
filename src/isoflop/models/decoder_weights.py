"""The tensors of a decoder by name, packed ones as they are stored: what serving computes with.

Not a module to be trained (`decoder.py`) nor the layout of packed weights (`packed_weights.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from isoflop.models import large_pages
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.packed_weights import Packed

LINE = 64
"""Bytes of a line of the cache: tensors begin with one."""


@dataclass(frozen=True)
class DecoderWeights:
    """The weights of one decoder."""

    config: DecoderConfig
    tensors: Mapping[str, Tensor | Packed]
    """By the names of `Decoder`'s parameters; a tied output layer stands there as the embedding."""

    @property
    def n_bytes(self) -> int:
        """Bytes of all of them."""
        return sum(
            one.n_bytes if isinstance(one, Packed) else one.numel() * one.element_size()
            for one in self.tensors.values()
        )

    @property
    def head(self) -> Tensor | Packed:
        """The output layer."""
        tied = self.config.tie_embeddings
        return self.tensors["embed_tokens.weight" if tied else "lm_head.weight"]

    def decoder(self) -> Decoder:
        """A decoder with these weights, packed ones as float32, ready to be asked."""
        with torch.device("meta"):
            decoder = Decoder(self.config)
        for name, stored in self.tensors.items():
            tensor = stored.unpack() if isinstance(stored, Packed) else stored
            path, _, leaf = name.rpartition(".")
            parameter = nn.Parameter(tensor, requires_grad=False)
            setattr(decoder.get_submodule(path), leaf, parameter)
        if self.config.tie_embeddings:
            decoder.lm_head.weight = decoder.embed_tokens.weight
        return decoder.eval()


def weights_of(decoder: Decoder) -> DecoderWeights:
    """The weights of a decoder, as they lie in its memory."""
    tensors = {name: parameter.detach() for name, parameter in decoder.named_parameters()}
    return DecoderWeights(decoder.config, tensors)


def in_large_pages(weights: DecoderWeights) -> DecoderWeights:
    """A copy in one piece of memory, for a step that reads all of it (`large_pages.py`)."""
    tensors = [part for one in weights.tensors.values() for part in _parts(one)]
    most = sum(-(-part.nbytes // LINE) * LINE for part in tensors)
    room = large_pages.zeros(most)
    used = 0

    def placed(tensor: Tensor) -> Tensor:
        nonlocal used
        place = room[used : used + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        used += -(-tensor.nbytes // LINE) * LINE
        return place.copy_(tensor)

    def copied(one: Tensor | Packed) -> Tensor | Packed:
        if isinstance(one, Tensor):
            return placed(one)
        offset = None if one.offset is None else placed(one.offset)
        return Packed(placed(one.codes), placed(one.scale), offset)

    return replace(weights, tensors={name: copied(one) for name, one in weights.tensors.items()})


def _parts(one: Tensor | Packed) -> list[Tensor]:
    if isinstance(one, Tensor):
        return [one]
    return [part for part in (one.codes, one.scale, one.offset) if part is not None]
