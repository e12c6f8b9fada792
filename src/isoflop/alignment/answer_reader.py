"""Logits after the tokens of many answers to prompts of one length, as they are written.

By the native library where it knows the decoder's form, else by torch. Not for choosing tokens
(`rollout.py`).

Shape suffixes: B answers under way, P prompts, T time, V vocabulary, G key–value heads, K head
width.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from isoflop.models.decoder import Decoder
from isoflop.models.decoder_weights import DecoderWeights, weights_of
from isoflop.models.layers import KVCache
from isoflop.models.native.decode import NativeDecoder, decodes

_BLOCK = 32
"""Positions of a block of the native library's memory."""

Prompts = Sequence[tuple[int, ...]]


class Reader(Protocol):
    """Answers to the same prompts, copies of a prompt one after the other."""

    def begin(self) -> Tensor:
        """(P, V) logits after the prompts."""

    def read(self, ids_B: Tensor) -> Tensor:
        """(B, V) logits after one more token of each answer."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these of the answers."""


def open_reader(model: Decoder, prompts: Prompts, copies: int, capacity: int) -> Reader:
    """What reads the answers.

    Args:
        prompts: Of one length.
        copies: Answers to each.
        capacity: Most positions of a prompt and its answer.
    """
    weights = weights_of(model)
    if _is_plain(model, weights) and decodes(weights):
        return _NativeReader(weights, prompts, copies, capacity)
    return _TorchReader(model, prompts, copies, capacity)


def _is_plain(model: Decoder, weights: DecoderWeights) -> bool:
    """Whether the weights are all there is: no adapters beside them, none spread over ranks."""
    with torch.device("meta"):
        names = {name for name, _ in Decoder(model.config).named_parameters()}
    return names == weights.tensors.keys() and all(
        type(tensor) is Tensor for tensor in weights.tensors.values()
    )


class _NativeReader:
    """Every answer has its own blocks of memory."""

    def __init__(
        self, weights: DecoderWeights, prompts: Prompts, copies: int, capacity: int
    ) -> None:
        self._prompts, self._copies = prompts, copies
        self._blocks, count = -(-capacity // _BLOCK), len(prompts) * copies
        self._native = NativeDecoder(weights, count * self._blocks, _BLOCK)
        self._rows, self._length = list(range(count)), len(prompts[0])

    def begin(self) -> Tensor:
        """(P, V) logits after the prompts."""
        numbers = range(len(self._prompts))
        ids = array("i", [token for prompt in self._prompts for token in prompt])
        positions = array("i", [place for _ in numbers for place in range(self._length)])
        rows = [number * self._copies for number in numbers]
        first = array("i", [n * self._blocks for n in numbers for _ in range(self._length)])
        states_ND = self._native.states(ids, positions, self._blocks_of(rows), first)
        memory = self._native.memory
        n_layers, _, *block = memory.shape
        answers = memory.view(n_layers, len(self._prompts), self._copies, self._blocks, *block)
        answers[:, :, 1:] = answers[:, :, :1]
        return self._native.logits(states_ND[self._length - 1 :: self._length].contiguous())

    def read(self, ids_B: Tensor) -> Tensor:
        """(B, V) logits after one more token of each answer."""
        count = len(self._rows)
        states_BD = self._native.states(
            array("i", ids_B.tolist()),
            array("i", [self._length]) * count,
            self._blocks_of(self._rows),
            array("i", range(0, count * self._blocks, self._blocks)),
        )
        self._length += 1
        return self._native.logits(states_BD)

    def keep(self, rows: Tensor) -> None:
        """Go on with these of the answers."""
        self._rows = [self._rows[row] for row in rows.tolist()]

    def _blocks_of(self, rows: Sequence[int]) -> array[int]:
        return array("i", [row * self._blocks + i for row in rows for i in range(self._blocks)])


class _TorchReader:
    """Answers are the rows of a batch."""

    def __init__(self, model: Decoder, prompts: Prompts, copies: int, capacity: int) -> None:
        self._model, self._prompts, self._copies = model, prompts, copies
        self._cache = _RowCache(model.config.n_layers, capacity)

    def begin(self) -> Tensor:
        """(P, V) logits after the prompts."""
        logits_PV = self._logits(torch.tensor(self._prompts))
        self._cache.take(torch.arange(len(self._prompts)).repeat_interleave(self._copies))
        return logits_PV

    def read(self, ids_B: Tensor) -> Tensor:
        """(B, V) logits after one more token of each answer."""
        return self._logits(ids_B[:, None])

    def keep(self, rows: Tensor) -> None:
        """Go on with these of the answers."""
        self._cache.take(rows)

    def _logits(self, ids_BT: Tensor) -> Tensor:
        hidden_BTD = self._model.hidden(ids_BT, cache=self._cache)
        logits_BV: Tensor = self._model.lm_head(hidden_BTD[:, -1])
        return logits_BV


class _RowCache(KVCache):
    """Keys and values in buffers of full size, whose rows can be repeated and dropped.

    Args:
        capacity: Most positions.
    """

    def __init__(self, n_layers: int, capacity: int) -> None:
        super().__init__(n_layers)
        self._capacity = capacity
        self._buffers: list[tuple[Tensor, Tensor] | None] = [None] * n_layers
        self._filled = [0] * n_layers

    @property
    def length(self) -> int:
        """How many positions are cached."""
        return self._filled[0]

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Append new keys and values and return all of them."""
        held = self._buffers[layer]
        if held is None:
            shape = (*k_BGTK.shape[:2], self._capacity, k_BGTK.shape[3])
            held = k_BGTK.new_empty(shape), v_BGTK.new_empty(shape)
            self._buffers[layer] = held
        start = self._filled[layer]
        self._filled[layer] = end = start + k_BGTK.shape[2]
        held[0][:, :, start:end] = k_BGTK
        held[1][:, :, start:end] = v_BGTK
        return held[0][:, :, :end], held[1][:, :, :end]

    def take(self, rows: Tensor) -> None:
        """Keep these rows, in this order; a row may come several times."""
        self._buffers = [
            None if held is None else (held[0][rows], held[1][rows]) for held in self._buffers
        ]
