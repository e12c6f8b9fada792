"""The encoder–decoder of T5 (Raffel et al. 2020) with cross-attention, readable top to bottom.

Pre-norm RMSNorm, no biases, attention scores that are not divided by √K, and one learned number
per head and bucket of distances in place of positions. T5 1.0 has ReLU and one embedding matrix
for all, T5 1.1 gated GELU and an output layer of its own. Not for making corrupted spans nor for
the loss (`training`), nor for files (`convert.py`).

Shape suffixes: B batch, S source time, T target time, D model width, H heads, K head width,
V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isoflop.models.config import GATED, EncoderDecoderConfig
from isoflop.models.decoder import activate
from isoflop.models.layers import KVCache, biased_attention, distances, same_document_bias


class DistanceBias(nn.Module):
    """A learned number per head and bucket of distances, added to the scores.

    Half of the buckets hold one distance each, the others ranges that grow by a constant factor
    up to `max_distance` (Raffel et al. 2020, section 2.1). An encoder has half of all for keys
    after the query.
    """

    def __init__(self, config: EncoderDecoderConfig, *, bidirectional: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.n_buckets, config.n_heads))
        self.bidirectional, self.max_distance = bidirectional, config.max_distance

    def forward(self, n_queries: int, n_keys: int) -> Tensor:
        """(1, H, T, S); the queries are the last positions."""
        before_TS = distances(n_queries, n_keys, self.weight.device)
        n_buckets, offset_TS = len(self.weight), torch.zeros_like(before_TS)
        if self.bidirectional:
            n_buckets //= 2
            offset_TS, before_TS = n_buckets * (before_TS < 0).long(), before_TS.abs()
        bucket_TS = distance_bucket(before_TS.clamp_min(0), n_buckets, self.max_distance)
        return self.weight[offset_TS + bucket_TS].permute(2, 0, 1)[None]


def distance_bucket(distance: Tensor, n_buckets: int, max_distance: int) -> Tensor:
    """The bucket, from 0 to n_buckets − 1, of each distance ≥ 0."""
    exact = n_buckets // 2
    # In float32 like the published models: a distance on the edge of two buckets may round.
    octaves = torch.log(distance.clamp_min(1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (octaves * (n_buckets - exact)).long()).clamp_max(n_buckets - 1)
    return torch.where(distance < exact, distance, far)


class UnscaledAttention(nn.Module):
    """Multi-head attention whose scores are not divided by √K; its queries start that much
    smaller (`initialise.py`)."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.head_dim, inner = config.head_dim, config.n_heads * config.head_dim
        self.q_proj = nn.Linear(config.d_model, inner, bias=False)
        self.k_proj = nn.Linear(config.d_model, inner, bias=False)
        self.v_proj = nn.Linear(config.d_model, inner, bias=False)
        self.o_proj = nn.Linear(inner, config.d_model, bias=False)

    def keys_values(self, x_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, K) of a sequence."""
        return self._heads(self.k_proj(x_BSD)), self._heads(self.v_proj(x_BSD))

    def forward(
        self, x_BTD: Tensor, k_BHSK: Tensor, v_BHSK: Tensor, bias_BHTS: Tensor | None
    ) -> Tensor:
        """What the tokens `x_BTD` take from the values, (B, T, D)."""
        q_BHTK = self._heads(self.q_proj(x_BTD))
        mixed_BHTK = biased_attention(q_BHTK, k_BHSK, v_BHSK, bias_BHTS, scale=1.0)
        out: Tensor = self.o_proj(mixed_BHTK.transpose(1, 2).flatten(-2))
        return out

    def _heads(self, x_BTE: Tensor) -> Tensor:
        return torch.unflatten(x_BTE, -1, (-1, self.head_dim)).transpose(1, 2)


class FeedForward(nn.Module):
    """down(relu(up(x))), or down(gelu(gate(x)) · up(x))."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.activation, width, inner = config.activation, config.d_model, config.d_ff
        self.gate_proj: nn.Linear | None = None
        if config.activation in GATED:
            self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, h_BTD: Tensor) -> Tensor:
        """What the normalised stream brings forth, (B, T, D)."""
        up_BTF = self.up_proj(h_BTD)
        if self.gate_proj is None:
            inner_BTF = activate(self.activation, up_BTF)
        else:
            inner_BTF = activate(self.activation, self.gate_proj(h_BTD)) * up_BTF
        out: Tensor = self.down_proj(inner_BTF)
        return out


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward, each normalised before and added after."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.self_attn_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.self_attn = UnscaledAttention(config)
        self.mlp_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x_BSD: Tensor, bias_BHSS: Tensor) -> Tensor:
        """The stream after this layer."""
        h_BSD = self.self_attn_norm(x_BSD)
        x_BSD = x_BSD + self.self_attn(h_BSD, *self.self_attn.keys_values(h_BSD), bias_BHSS)
        out: Tensor = x_BSD + self.mlp(self.mlp_norm(x_BSD))
        return out


class DecoderLayer(nn.Module):
    """Self-attention to earlier tokens, cross-attention to the source, feed-forward."""

    def __init__(self, config: EncoderDecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.self_attn_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.self_attn = UnscaledAttention(config)
        self.cross_attn_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.cross_attn = UnscaledAttention(config)
        self.mlp_norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)
        self.mlp = FeedForward(config)

    def forward(
        self,
        x_BTD: Tensor,
        source: tuple[Tensor, Tensor],
        bias_BHTT: Tensor,
        cross_bias_B1TS: Tensor | None,
        cache: KVCache | None,
    ) -> Tensor:
        """The stream after this layer; `source` is its keys and values of the source."""
        h_BTD = self.self_attn_norm(x_BTD)
        k_BHTK, v_BHTK = self.self_attn.keys_values(h_BTD)
        if cache is not None:
            k_BHTK, v_BHTK = cache.extend(self.layer, k_BHTK, v_BHTK)
        x_BTD = x_BTD + self.self_attn(h_BTD, k_BHTK, v_BHTK, bias_BHTT)
        x_BTD = x_BTD + self.cross_attn(self.cross_attn_norm(x_BTD), *source, cross_bias_B1TS)
        out: Tensor = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        return out


class EncoderStack(nn.Module):
    """All layers of the encoder, its distance bias and last norm."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.distance_bias = DistanceBias(config, bidirectional=True)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)

    def forward(self, x_BSD: Tensor, document_BS: Tensor | None) -> Tensor:
        """(B, S, D) normalised states of the source."""
        length = x_BSD.shape[1]
        bias_BHSS = self.distance_bias(length, length)
        if document_BS is not None:
            bias_BHSS = bias_BHSS + same_document_bias(document_BS, document_BS, x_BSD.dtype)
        for layer in self.layers:
            x_BSD = layer(x_BSD, bias_BHSS)
        out: Tensor = self.norm(x_BSD)
        return out


class DecoderStack(nn.Module):
    """All layers of the decoder, its distance bias and last norm."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.distance_bias = DistanceBias(config, bidirectional=False)
        depth = range(config.n_decoder_layers)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in depth)
        self.norm = nn.RMSNorm(config.d_model, eps=config.norm_eps)

    def source(self, states_BSD: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each layer's keys and values of the source; generation computes them once."""
        attentions = (layer.get_submodule("cross_attn") for layer in self.layers)
        return [
            attention.keys_values(states_BSD)
            for attention in attentions
            if isinstance(attention, UnscaledAttention)
        ]

    def forward(
        self,
        x_BTD: Tensor,
        source: list[tuple[Tensor, Tensor]],
        document_BT: Tensor | None,
        source_document_BS: Tensor | None,
        cache: KVCache | None,
    ) -> Tensor:
        """(B, T, D) normalised states of the target."""
        length, start = x_BTD.shape[1], 0 if cache is None else cache.length
        later_TT = distances(length, start + length, x_BTD.device) < 0
        bias_BHTT = self.distance_bias(length, start + length).masked_fill(later_TT, -torch.inf)
        cross_B1TS: Tensor | None = None
        if document_BT is not None and source_document_BS is not None:
            other_B1TT = (document_BT[:, :, None] != document_BT[:, None, :])[:, None]
            bias_BHTT = bias_BHTT.masked_fill(other_B1TT, -torch.inf)
            cross_B1TS = same_document_bias(document_BT, source_document_BS, x_BTD.dtype)
        for layer, keys_values in zip(self.layers, source, strict=True):
            x_BTD = layer(x_BTD, keys_values, bias_BHTT, cross_B1TS, cache)
        out: Tensor = self.norm(x_BTD)
        return out


class EncoderDecoder(nn.Module):
    """Source ids and target ids in, logits of the token after each target id out."""

    def __init__(self, config: EncoderDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = EncoderStack(config)
        self.decoder = DecoderStack(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    def encode(self, source_BS: Tensor, source_document_BS: Tensor | None = None) -> Tensor:
        """(B, S, D) states of the source.

        Raises:
            ValueError: More positions than `max_seq_len`.
        """
        self._check(source_BS.shape[1])
        states: Tensor = self.encoder(self.embed_tokens(source_BS), source_document_BS)
        return states

    def hidden(
        self,
        source_BS: Tensor,
        target_BT: Tensor,
        source_document_BS: Tensor | None = None,
        target_document_BT: Tensor | None = None,
    ) -> Tensor:
        """States (B, T, D) that the output layer takes.

        Args:
            source_BS: Ids that the encoder reads.
            target_BT: Ids that the decoder has so far, its start token first.
            source_document_BS: Which document each source token belongs to.
            target_document_BT: The same of target tokens: they see their own document on both
                sides. Both are given, or neither. Padding is a document of its own.

        Raises:
            ValueError: More positions than `max_seq_len`, or documents of one side only.
        """
        if (source_document_BS is None) != (target_document_BT is None):
            raise ValueError("documents are given for both sides or for neither")
        self._check(target_BT.shape[1])
        source = self.decoder.source(self.encode(source_BS, source_document_BS))
        x_BTD = self.embed_tokens(target_BT)
        states = self.decoder(x_BTD, source, target_document_BT, source_document_BS, None)
        return self._scaled(states)

    def forward(
        self,
        source_BS: Tensor,
        target_BT: Tensor,
        source_document_BS: Tensor | None = None,
        target_document_BT: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, T, V); arguments and errors as of `hidden`."""
        logits: Tensor = self.lm_head(
            self.hidden(source_BS, target_BT, source_document_BS, target_document_BT)
        )
        return logits

    def decode(
        self, target_BT: Tensor, source: list[tuple[Tensor, Tensor]], cache: KVCache
    ) -> Tensor:
        """Logits (B, T, V) of further target ids, with `decoder.source(encode(…))` made once.

        Raises:
            ValueError: More positions than `max_seq_len`.
        """
        self._check(cache.length + target_BT.shape[1])
        states = self.decoder(self.embed_tokens(target_BT), source, None, None, cache)
        logits: Tensor = self.lm_head(self._scaled(states))
        return logits

    def _scaled(self, x_BTD: Tensor) -> Tensor:
        """A tied output layer gets states of the size that embeddings have (T5 1.0)."""
        return x_BTD * self.config.d_model**-0.5 if self.config.tie_embeddings else x_BTD

    def _check(self, length: int) -> None:
        if length > self.config.max_seq_len:
            raise ValueError(f"{length} positions exceed max_seq_len = {self.config.max_seq_len}")
