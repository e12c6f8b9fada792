"""A decoder's forward pass over tokens of many sequences at once, with keys and values in blocks.

Each row of the result depends on its own sequence alone, to the bit (on a CPU in float32):

- A row of a matrix product is the same in every batch whose rows are a multiple of four (of other
  sizes torch's CPU library cuts the batch into parts with kernels of their own), so batches are
  filled up to one.
- An exponential is another one in the rest of a vector than in full ones, and where threads cut
  a tensor in two, so activations are computed in whole pieces that one thread takes.
- Attention is computed unit by unit, and a unit is a function of its sequence alone: a block of a
  prompt, or one token of an answer.

`rows_are_independent` measures whether this machine keeps to it. Not for which tokens are
computed when (`scheduler.py`), for training (`models/decoder.py`), nor for what the native library
computes faster (`native_forward.py`).

Shape suffixes: N rows (tokens of all units), S keys, D model width, H query heads, G key–value
heads, K head width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Attention, Block, Decoder, FeedForward, activate
from isoflop.models.layers import (
    biased_attention,
    causal_attention,
    causal_bias,
)
from isoflop.models.moe import MixtureOfExperts, SharedExperts
from isoflop.serving.settings import BLOCK

ROWS = 4
"""Batches are filled up to a multiple of this."""
_VECTOR, _PIECE = 64, 16_384
"""Numbers in a multiple of which there is no rest, and that torch gives to one thread."""


@dataclass(frozen=True)
class Unit:
    """Consecutive tokens of one sequence whose attention is computed together."""

    tokens: Sequence[int]
    start: int
    """Position of the first; all before it are in the cache, or in units before this one."""
    blocks: Sequence[int]
    """The sequence's blocks, the last position of the unit among them."""


class Paged(Protocol):
    """A decoder with a key–value cache in blocks, by torch or by the native library."""

    config: DecoderConfig
    device: torch.device

    def hidden(self, units: Sequence[Unit]) -> Tensor:
        """(N, D) final normalised states of the units' tokens, in order; the cache is extended."""

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """(N, V) next-token logits of final states, float32."""

    def copy_block(self, source: int, target: int) -> None:
        """Let one block hold what another does."""


@dataclass(frozen=True)
class _Place:
    """Where a unit's rows and keys are."""

    rows: slice
    keys: slice | Tensor
    """Slots of all positions up to the unit's last."""
    bias_BHTS: Tensor | None


class PagedDecoder:
    """A decoder with a key–value cache in blocks.

    Args:
        decoder: Its queries', keys' and values' matrices are laid side by side in memory; it
            stays usable.
        n_blocks: Blocks of the cache, `BLOCK` positions each.
    """

    def __init__(self, decoder: Decoder, n_blocks: int) -> None:
        self.decoder, self.config = decoder.eval().requires_grad_(False), decoder.config
        config = self.config
        self.device = decoder.embed_tokens.weight.device
        self._slots = n_blocks * BLOCK
        self._memory = [
            torch.zeros(
                self._slots + 1, 2 * config.n_kv_heads, config.head_dim,
                dtype=decoder.embed_tokens.weight.dtype, device=self.device,
            )
            for _ in range(config.n_layers)
        ]  # fmt: skip  # the last slot is that of rows that fill a batch up
        self._qkv = [_side_by_side(_qkv_of(layer.self_attn)) for layer in _blocks(decoder)]
        self._gate_up = [_side_by_side(_gate_up_of(layer.mlp)) for layer in _blocks(decoder)]
        self._biased = config.window is not None or config.positions in ("alibi", "relative")

    @torch.inference_mode()
    def hidden(self, units: Sequence[Unit]) -> Tensor:
        """(N, D) final normalised states of the units' tokens, in order; the cache is extended."""
        ids = [token for unit in units for token in unit.tokens]
        n_rows = len(ids)
        fill = -n_rows % ROWS
        positions = [unit.start + i for unit in units for i in range(len(unit.tokens))]
        slots = [
            unit.blocks[position // BLOCK] * BLOCK + position % BLOCK
            for unit in units
            for position in range(unit.start, unit.start + len(unit.tokens))
        ]
        slot_N = self._tensor(slots + [self._slots] * fill)
        position_N = self._tensor(positions + [0] * fill)
        x_ND = self._embed(self._tensor(ids + [0] * fill), position_N)
        turn = None
        if self.decoder.rotary is not None:
            rotary = self.decoder.rotary
            cos_NP, sin_NP = (
                table_PT.t()[position_N].to(x_ND.dtype)
                for table_PT in (rotary.cos_PT, rotary.sin_PT)
            )
            turn = (cos_NP[:, None], sin_NP[:, None])
        places = self._places(units, x_ND.dtype)
        for index, block in enumerate(_blocks(self.decoder)):
            h_ND = x_ND if block.post_norm else block.input_layernorm(x_ND)
            x_ND = x_ND + self._attend(index, block.self_attn, h_ND, turn, slot_N, places)
            if block.post_norm:
                x_ND = block.input_layernorm(x_ND)
            h_ND = x_ND if block.post_norm else block.post_attention_layernorm(x_ND)
            x_ND = x_ND + self._feed_forward(index, block.mlp, h_ND)
            if block.post_norm:
                x_ND = block.post_attention_layernorm(x_ND)
        if self.decoder.norm is not None:
            x_ND = self.decoder.norm(x_ND)
        return x_ND[:n_rows]

    @torch.inference_mode()
    def logits(self, hidden_ND: Tensor) -> Tensor:
        """(N, V) next-token logits of final states, float32."""
        n_rows = len(hidden_ND)
        filled_ND = F.pad(hidden_ND, (0, 0, 0, -n_rows % ROWS))
        out: Tensor = self.decoder.lm_head(filled_ND)[:n_rows].float()
        return out

    def copy_block(self, source: int, target: int) -> None:
        """Let one block hold what another does."""
        here, there = (slice(block * BLOCK, (block + 1) * BLOCK) for block in (source, target))
        for memory in self._memory:
            memory[there] = memory[here]

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self.device)

    def _embed(self, ids_N: Tensor, position_N: Tensor) -> Tensor:
        decoder = self.decoder
        x_ND: Tensor = decoder.embed_tokens(ids_N)
        if decoder.embed_positions is not None:
            x_ND = x_ND + decoder.embed_positions(position_N)
        elif self.config.positions == "sinusoidal":
            table_TD = decoder.get_buffer("sinusoid_TD").to(x_ND.dtype)
            x_ND = table_TD[position_N] + x_ND * self.config.d_model**0.5
        return x_ND

    def _places(self, units: Sequence[Unit], dtype: torch.dtype) -> list[_Place]:
        places = []
        row = 0
        for unit in units:
            length = len(unit.tokens)
            n_keys = unit.start + length
            blocks = unit.blocks[: -(-n_keys // BLOCK)]
            keys: slice | Tensor
            if all(block == blocks[0] + i for i, block in enumerate(blocks)):
                keys = slice(blocks[0] * BLOCK, blocks[0] * BLOCK + n_keys)
            else:
                first_S = self._tensor(list(blocks))[:, None] * BLOCK
                within_S = torch.arange(BLOCK, device=self.device)
                keys = (first_S + within_S).flatten()[:n_keys]
            bias = None
            if self._biased:
                bias = causal_bias(self.config, length, n_keys, None, dtype, self.device)
            places.append(_Place(slice(row, row + length), keys, bias))
            row += length
        return places

    def _attend(
        self,
        index: int,
        attention: Attention,
        h_ND: Tensor,
        turn: tuple[Tensor, Tensor] | None,
        slot_N: Tensor,
        places: Sequence[_Place],
    ) -> Tensor:
        """(N, D) what the rows attend to."""
        n_heads, n_groups = self.config.n_heads, self.config.n_kv_heads
        both = n_heads + n_groups
        qkv = F.linear(h_ND, *self._qkv[index]).view(len(h_ND), both + n_groups, -1)
        q, k, v = torch.split(qkv, [n_heads, n_groups, n_groups], dim=1)
        if attention.q_norm is not None and attention.k_norm is not None:
            q, k = attention.q_norm(q), attention.k_norm(k)
        if turn is not None:
            q, k = _turned(q, *turn), _turned(k, *turn)
        memory = self._memory[index]
        memory.index_copy_(0, slot_N, torch.cat((k, v), dim=1))
        mixed_NHK = torch.zeros_like(q, memory_format=torch.contiguous_format)
        for place in places:
            kept = memory[place.keys]
            k_1GSK, v_1GSK = (
                part.transpose(0, 1)[None] for part in torch.split(kept, n_groups, dim=1)
            )
            q_1HTK = q[place.rows].transpose(0, 1)[None]
            bias = place.bias_BHTS
            if attention.relative is not None and bias is not None:
                bias = bias + attention.relative(q_1HTK, k_1GSK.shape[-2])
                q_1HTK = q_1HTK + attention.relative.content_bias[:, None]
            if bias is not None:
                out_1HTK = biased_attention(q_1HTK, k_1GSK, v_1GSK, bias)
            elif q_1HTK.shape[2] == 1:  # the queries of a group as if they were tokens
                grouped = q_1HTK.reshape(1, n_groups, -1, q_1HTK.shape[-1])
                out_1HTK = F.scaled_dot_product_attention(grouped, k_1GSK, v_1GSK)
                out_1HTK = out_1HTK.reshape(q_1HTK.shape)
            else:
                out_1HTK = causal_attention(q_1HTK, k_1GSK, v_1GSK)
            mixed_NHK[place.rows] = out_1HTK[0].transpose(0, 1)
        out_ND: Tensor = attention.o_proj(mixed_NHK.flatten(1))
        return out_ND

    def _feed_forward(
        self, index: int, part: FeedForward | MixtureOfExperts, h_ND: Tensor
    ) -> Tensor:
        if isinstance(part, MixtureOfExperts):
            return _experts(part, h_ND)
        weights = F.linear(h_ND, *self._gate_up[index])
        if part.gate_proj is None:
            inner = _activated(part.activation, weights)
        else:
            gate, up = weights.chunk(2, dim=-1)
            inner = _activated(part.activation, gate) * up
        out_ND: Tensor = part.down_proj(inner)
        return out_ND


def _blocks(decoder: Decoder) -> list[Block]:
    return [block for block in decoder.layers if isinstance(block, Block)]


def _turned(x_NHK: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, half-split."""
    low, high = x_NHK.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


def _qkv_of(attention: Attention) -> list[nn.Linear]:
    return [attention.q_proj, attention.k_proj, attention.v_proj]


def _gate_up_of(part: FeedForward | MixtureOfExperts) -> list[nn.Linear]:
    if isinstance(part, MixtureOfExperts):
        return []
    return [part.up_proj] if part.gate_proj is None else [part.gate_proj, part.up_proj]


def _side_by_side(linears: list[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weights and biases of layers with one input as those of one layer; the layers become views
    of them, so that nothing is kept twice."""
    if not linears:
        return torch.empty(0), None
    with torch.no_grad():
        weight = torch.cat([linear.weight for linear in linears])
        bias = None
        if linears[0].bias is not None:
            bias = torch.cat([linear.bias for linear in linears])
        row = 0
        for linear in linears:
            rows = slice(row, row + linear.out_features)
            linear.weight = nn.Parameter(weight[rows], requires_grad=False)
            if bias is not None:
                linear.bias = nn.Parameter(bias[rows], requires_grad=False)
            row = rows.stop
    return weight, bias


def _experts(part: MixtureOfExperts, h_ND: Tensor) -> Tensor:
    """(N, D) of a mixture of experts; the rows of each expert are filled up too, and each row's
    experts are summed in the order of its own choices."""
    index_NX, share_NX, _ = part.gate(h_ND[None])
    experts, n_rows = part.experts, len(h_ND)
    chosen_NXD = h_ND.new_zeros(n_rows, index_NX.shape[1], h_ND.shape[1])
    for expert in index_NX.unique().tolist():
        row, choice = (index_NX == expert).nonzero(as_tuple=True)
        x = F.pad(h_ND[row], (0, 0, 0, -len(row) % ROWS))
        inner = _activated("swiglu", F.linear(x, experts.gate_proj[expert]))
        inner = inner * F.linear(x, experts.up_proj[expert])
        chosen_NXD[row, choice] = F.linear(inner, experts.down_proj[expert])[: len(row)]
    out_ND: Tensor = (chosen_NXD * share_NX[..., None]).sum(1)
    return out_ND if part.shared is None else out_ND + _shared(part.shared, h_ND)


def _shared(part: SharedExperts, h_ND: Tensor) -> Tensor:
    inner = _activated("swiglu", part.gate_proj(h_ND)) * part.up_proj(h_ND)
    out_ND: Tensor = part.down_proj(inner)
    return out_ND


def _activated(kind: str, x: Tensor) -> Tensor:
    """`activate(kind, x)`, every number the same bits wherever it stands in `x`."""
    flat = x.flatten()
    flat = F.pad(flat, (0, -len(flat) % _VECTOR))
    if len(flat) <= _PIECE:
        out = activate(kind, flat)
    else:
        out = torch.cat([activate(kind, piece) for piece in torch.split(flat, _PIECE)])
    return out[: x.numel()].view(x.shape)


def rows_are_independent(model: Paged, most_rows: int) -> bool:
    """Whether the rows of one sequence are the same bits alone and among others, on this machine.

    Args:
        most_rows: Rows that the engine computes at once; batches of some sizes up to it are tried.
            The first blocks of the cache are overwritten.
    """
    draw = torch.Generator().manual_seed(0)
    length = min(BLOCK, model.config.max_seq_len)
    one = Unit(tuple(torch.randint(model.config.vocab_size, (length,), generator=draw).tolist()),
               0, (0,))  # fmt: skip
    alone = model.logits(model.hidden([one]))
    beside = Unit((one.tokens[0],), 0, (1,))
    for extra in sorted({1, 3, 5, 6, 9, max(1, most_rows // 2), max(1, most_rows - length)}):
        rows = model.hidden([beside] * extra + [one])
        if not torch.equal(model.logits(rows)[extra:], alone):
            return False
    return True
