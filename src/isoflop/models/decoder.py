"""The decoder-only transformer: a strict subset of Qwen3, readable top to bottom.

Pre-norm RMSNorm, rotary positions, grouped-query attention with QK-norm, SwiGLU, no biases
(Qwen3 technical report, 2025). Not for its loss (`training/objectives.py`), its initial values
(`initialise.py`), its cost (`accounting.py`) or its files (`convert.py`).

Shape suffixes: B batch, T time, D model width, H query heads, G key–value heads, K head width,
F feed-forward width, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.models import fused, fused_attention
from isoflop.models.config import DecoderConfig
from isoflop.models.layers import (
    DocumentMask,
    RotaryPositions,
    causal_attention,
    fused_applies,
)


class KVCache:
    """Keys and values of the tokens seen so far, one pair per layer, for generation."""

    def __init__(self, n_layers: int) -> None:
        self._layers: list[tuple[Tensor, Tensor] | None] = [None] * n_layers

    @property
    def length(self) -> int:
        """How many positions are cached."""
        first = self._layers[0]
        return 0 if first is None else first[0].shape[-2]

    def extend(self, layer: int, k_BGTK: Tensor, v_BGTK: Tensor) -> tuple[Tensor, Tensor]:
        """Append new keys and values and return all of them."""
        seen = self._layers[layer]
        if seen is not None:
            k_BGTK = torch.cat((seen[0], k_BGTK), dim=-2)
            v_BGTK = torch.cat((seen[1], v_BGTK), dim=-2)
        self._layers[layer] = (k_BGTK, v_BGTK)
        return k_BGTK, v_BGTK


class Attention(nn.Module):
    """Grouped-query attention with RMS-normalised queries and keys."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads
        width, query = config.d_model, config.n_heads * config.head_dim
        key = config.n_kv_heads * config.head_dim
        self.q_proj = nn.Linear(width, query, bias=False)
        self.k_proj = nn.Linear(width, key, bias=False)
        self.v_proj = nn.Linear(width, key, bias=False)
        self.o_proj = nn.Linear(query, width, bias=False)
        self.q_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
        self.k_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)

    def forward(
        self,
        x_BTD: Tensor,
        norm: nn.RMSNorm,
        rotary: RotaryPositions,
        documents: DocumentMask | None,
        cache: KVCache | None,
        start: int,
    ) -> Tensor:
        """The stream `x_BTD` with what its normalised tokens attend to added."""
        if cache is None and fused_applies(x_BTD):
            return self._fused(x_BTD, norm, rotary, documents)
        h_BTD = norm(x_BTD)
        q_BTHK = torch.unflatten(self.q_proj(h_BTD), -1, (-1, self.head_dim))
        k_BTGK = torch.unflatten(self.k_proj(h_BTD), -1, (-1, self.head_dim))
        v_BTGK = torch.unflatten(self.v_proj(h_BTD), -1, (-1, self.head_dim))
        q_BHTK = rotary(self.q_norm(q_BTHK).transpose(1, 2), start)
        k_BGTK = rotary(self.k_norm(k_BTGK).transpose(1, 2), start)
        v_BGTK = v_BTGK.transpose(1, 2)
        if cache is not None:
            k_BGTK, v_BGTK = cache.extend(self.layer, k_BGTK, v_BGTK)
        mixed_BHTK = causal_attention(q_BHTK, k_BGTK, v_BGTK, documents)
        out: Tensor = x_BTD + self.o_proj(mixed_BHTK.transpose(1, 2).flatten(-2))
        return out

    def _fused(
        self,
        x_BTD: Tensor,
        norm: nn.RMSNorm,
        rotary: RotaryPositions,
        documents: DocumentMask | None,
    ) -> Tensor:
        """The same, by the CPU's fused forms."""
        return fused_attention.attention(
            x_BTD,
            norm.weight,
            (self.q_proj.weight, self.k_proj.weight, self.v_proj.weight, self.o_proj.weight),
            (self.q_norm.weight, self.k_norm.weight),
            rotary.turn(0, x_BTD.shape[1], x_BTD.dtype),
            norm.eps or 0.0,
            documents.bias_R1TT[:, 0] if documents is not None and documents.n_mixed else None,
        )


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate(x)) · up(x))."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down_proj = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x_BTD: Tensor, norm: nn.RMSNorm) -> Tensor:
        """The stream `x_BTD` with what its normalised tokens bring forth added."""
        if fused_applies(x_BTD):
            gate, up, down = self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight
            return fused.feed_forward(x_BTD, norm.weight, gate, up, down, norm.eps or 0.0)
        h_BTD = norm(x_BTD)
        out: Tensor = x_BTD + self.down_proj(F.silu(self.gate_proj(h_BTD)) * self.up_proj(h_BTD))
        return out


class Block(nn.Module):
    """One layer: attention, then feed-forward, each normalised before and added after."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self,
        x_BTD: Tensor,
        rotary: RotaryPositions,
        documents: DocumentMask | None,
        cache: KVCache | None,
        start: int,
    ) -> Tensor:
        x_BTD = self.self_attn(x_BTD, self.input_layernorm, rotary, documents, cache, start)
        out: Tensor = self.mlp(x_BTD, self.post_attention_layernorm)
        return out


class Decoder(nn.Module):
    """Token ids in, next-token logits out. Parameter names are those of Qwen3 in transformers,
    less their `model.` prefix."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self.rotary = RotaryPositions(config.head_dim, config.max_seq_len, config.rope_theta)

    def hidden(
        self, ids_BT: Tensor, document_BT: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Final normalised states (B, T, D), before the output layer.

        Args:
            ids_BT: Token ids.
            document_BT: Document counter of each token; tokens see only their own document.
            cache: Earlier keys and values; extended in place.

        Raises:
            ValueError: More positions than `max_seq_len`.
        """
        start = 0 if cache is None else cache.length
        if start + ids_BT.shape[1] > self.config.max_seq_len:
            raise ValueError(
                f"{start + ids_BT.shape[1]} positions exceed max_seq_len = "
                f"{self.config.max_seq_len}"
            )
        x_BTD = self.embed_tokens(ids_BT)
        documents = None if document_BT is None else DocumentMask(document_BT, x_BTD.dtype)
        for block in self.layers:
            x_BTD = block(x_BTD, self.rotary, documents, cache, start)
        if fused_applies(x_BTD):
            return fused.norm(x_BTD, self.norm.weight, self.norm.eps or 0.0)
        out: Tensor = self.norm(x_BTD)
        return out

    def forward(
        self, ids_BT: Tensor, document_BT: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Next-token logits (B, T, V)."""
        logits_BTV: Tensor = self.lm_head(self.hidden(ids_BT, document_BT, cache))
        return logits_BTV
