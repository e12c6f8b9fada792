"""The native decoding step: whether it applies to a decoder, and calling it.

Not for which tokens are computed when (`serving/`). A step takes rows of many sequences; each row
comes out as the same bits whatever is computed beside it and however many threads there are.

Shape suffixes: N rows (tokens), D model width, V vocabulary.
"""

from __future__ import annotations

import ctypes
import math
from array import array
from typing import Any

import torch
from torch import Tensor

from isoflop.models import large_pages
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder_weights import DecoderWeights
from isoflop.models.layers import RotaryPositions
from isoflop.models.native import calls
from isoflop.models.native.build import library
from isoflop.models.packed_weights import Packed

_PRODUCTS = {
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj",
    "o": "self_attn.o_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}  # fmt: skip
_GAINS = {
    "before": "input_layernorm", "after": "post_attention_layernorm",
    "q_gain": "self_attn.q_norm", "k_gain": "self_attn.k_norm",
}  # fmt: skip


class _Matrix(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("codes", "scale", "offset")),
        *((name, ctypes.c_long) for name in ("rows", "columns", "bits", "group")),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, _Matrix) for name in _PRODUCTS),
        *((name, ctypes.c_void_p) for name in _GAINS),
        ("memory", ctypes.c_void_p),
    ]


class _Decoder(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_long)
            for name in ("D", "n_layers", "H", "G", "K", "F", "block", "positions")
        ),
        ("eps", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("cosine", "sine", "norm")),
        *((name, _Matrix) for name in ("embedding", "head")),
        ("layers", ctypes.c_void_p),
    ]


def has_native_form(config: DecoderConfig) -> bool:
    """Whether a decoder is of the form that the native step computes: Llama's or Qwen3's."""
    return (
        config.norm == "rms"
        and config.positions == "rotary"
        and config.activation == "swiglu"
        and config.window is None
        and config.experts is None
        and not (config.bias or config.qkv_bias or config.post_norm)
    )


def decodes(weights: DecoderWeights) -> bool:
    """Whether the native step can compute with these weights, on this machine and now."""
    return (
        has_native_form(weights.config)
        and all(map(_is_readable, weights.tensors.values()))
        and calls.in_use()
    )


def _is_readable(stored: Tensor | Packed) -> bool:
    if isinstance(stored, Packed):
        if stored.bits == 8:
            return True
        return 2 * stored.codes.shape[-1] // stored.scale.shape[-1] in (32, 64, 128)
    return stored.dtype == torch.float32 and stored.device.type == "cpu" and stored.is_contiguous()


class NativeDecoder:
    """A decoder's weights and its blocks of key–value memory, for the native step.

    Args:
        weights: Read where they lie; `decodes` must hold of them.
        n_blocks: Blocks of the memory.
        block: Positions of a block.
    """

    def __init__(self, weights: DecoderWeights, n_blocks: int, block: int) -> None:
        config = self.config = weights.config
        functions: Any = library().functions
        self._step, self._logits = functions.isoflop_decode, functions.isoflop_decode_logits
        self._floats = functions.isoflop_decode_room
        pointer, whole = ctypes.c_void_p, ctypes.c_long
        self._step.argtypes = [
            pointer, whole, pointer, pointer, pointer, pointer, whole, pointer, whole, pointer
        ]  # fmt: skip
        self._logits.argtypes = [pointer, pointer, whole, whole, pointer]
        self._floats.argtypes, self._floats.restype = [pointer, whole], whole
        self._step.restype = self._logits.restype = None
        # Everything that addresses point into is kept here.
        self._weights = weights
        self._rotary = RotaryPositions(
            config.head_dim, config.max_seq_len, config.rope_theta, config.rope_scaling
        )
        registers = -(-config.head_dim // calls.REGISTER_FLOATS) * calls.REGISTER_FLOATS
        one = block * (config.head_dim + registers)
        shape = config.n_layers, n_blocks, config.n_kv_heads, one
        self.memory = large_pages.zeros(4 * math.prod(shape)).view(torch.float32).view(shape)
        """Keys and values; what is in a block lies together."""
        self._layers = (_Layer * config.n_layers)(*map(self._layer, range(config.n_layers)))
        self._decoder = _Decoder(
            D=config.d_model, n_layers=config.n_layers, H=config.n_heads, G=config.n_kv_heads,
            K=config.head_dim, F=config.d_ff, block=block, positions=config.max_seq_len,
            eps=config.norm_eps, cosine=self._rotary.cos_PT.data_ptr(),
            sine=self._rotary.sin_PT.data_ptr(), norm=self._gain("norm"),
            embedding=_matrix(weights.tensors["embed_tokens.weight"]), head=_matrix(weights.head),
            layers=ctypes.addressof(self._layers),
        )  # fmt: skip
        self._address = ctypes.addressof(self._decoder)
        self._most, self._work = 0, torch.empty(0)

    def states(
        self, ids: array[int], positions: array[int], blocks: array[int], first: array[int]
    ) -> Tensor:
        """(N, D) final normalised states of N tokens; their keys and values go into memory.

        Args:
            ids: Token ids; this and the others are arrays of C's int.
            positions: The place of each in its sequence.
            blocks: Blocks of the sequences, one sequence after the other.
            first: For each token, where in `blocks` those of its sequence begin.
        """
        n_rows = len(ids)
        if n_rows > self._most:
            self._most = n_rows
            self._work = torch.zeros(self._floats(self._address, n_rows))
        states_ND = torch.empty(n_rows, self.config.d_model)
        self._step(
            self._address, n_rows, *(numbers.buffer_info()[0] for numbers in (ids, positions)),
            *(numbers.buffer_info()[0] for numbers in (blocks, first)), self._most,
            self._work.data_ptr(), torch.get_num_threads(), states_ND.data_ptr(),
        )  # fmt: skip
        return states_ND

    def logits(self, states_ND: Tensor) -> Tensor:
        """(N, V) next-token logits of final states, contiguous float32."""
        n_rows = len(states_ND)
        logits_NV = torch.empty(n_rows, self.config.vocab_size)
        self._logits(
            self._address, states_ND.data_ptr(), n_rows, torch.get_num_threads(),
            logits_NV.data_ptr(),
        )  # fmt: skip
        return logits_NV

    def _layer(self, index: int) -> _Layer:
        path = f"layers.{index}"
        products = {
            field: _matrix(self._weights.tensors[f"{path}.{name}.weight"])
            for field, name in _PRODUCTS.items()
        }
        gains = {field: self._gain(f"{path}.{name}") for field, name in _GAINS.items()}
        return _Layer(**products, **gains, memory=self.memory[index].data_ptr())

    def _gain(self, path: str) -> int | None:
        gain = self._weights.tensors.get(f"{path}.weight")
        return gain.data_ptr() if isinstance(gain, Tensor) else None


def _matrix(stored: Tensor | Packed) -> _Matrix:
    if isinstance(stored, Tensor):
        rows, columns = stored.shape
        return _Matrix(stored.data_ptr(), None, None, rows, columns, 32, columns)
    rows, columns = stored.codes.shape
    if stored.offset is None:
        return _Matrix(
            stored.codes.data_ptr(), stored.scale.data_ptr(), None, rows, columns, 8, columns
        )
    return _Matrix(
        stored.codes.data_ptr(), stored.scale.data_ptr(), stored.offset.data_ptr(), rows,
        2 * columns, 4, 2 * columns // stored.scale.shape[-1],
    )  # fmt: skip
