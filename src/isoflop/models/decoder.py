"""The decoder-only transformer, readable top to bottom: Qwen3, Llama, GPT and their relatives.

Which norm, positions, feed-forward part and biases it has stands in `DecoderConfig`; the default
is Qwen3's: pre-norm RMSNorm, rotary positions, grouped-query attention with QK-norm, SwiGLU, no
biases (Qwen3 technical report, 2025). Not for its loss (`training/objectives.py`), its initial
values (`initialise.py`), its cost (`accounting.py`) or its files (`convert.py`).

Shape suffixes: B batch, T time, D model width, H query heads, G key–value heads, K head width,
F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.models import fused, fused_attention
from isoflop.models.config import GATED, DecoderConfig, Recompute
from isoflop.models.documents import DocumentMask, positions_in_documents
from isoflop.models.layers import (
    KVCache,
    RelativePositions,
    RotaryPositions,
    apply_norm,
    biased_attention,
    causal_attention,
    causal_bias,
    fused_applies,
    make_norm,
    sinusoids,
)
from isoflop.models.moe import MixtureOfExperts, Routing
from isoflop.models.recompute import again_in_backward


@dataclass(frozen=True)
class View:
    """What one forward pass lets its tokens look at; the same in all layers."""

    start: int
    """Position of the first token: how many the cache holds."""
    cache: KVCache | None
    documents: DocumentMask | None
    """For attention that only order and documents limit."""
    bias_BHTS: Tensor | None
    """For attention with a window, ALiBi or relative positions: added to the scores."""
    attend: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    """Takes the place of attention over these keys and values, where others lie elsewhere."""


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023)."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        width, query = config.d_model, config.n_heads * config.head_dim
        key = config.n_kv_heads * config.head_dim
        qkv_bias = config.bias or config.qkv_bias
        self.q_proj = nn.Linear(width, query, bias=qkv_bias)
        self.k_proj = nn.Linear(width, key, bias=qkv_bias)
        self.v_proj = nn.Linear(width, key, bias=qkv_bias)
        self.o_proj = nn.Linear(query, width, bias=config.bias)
        self.q_norm: nn.RMSNorm | None = None
        self.k_norm: nn.RMSNorm | None = None
        if config.qk_norm:
            self.q_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
            self.k_norm = nn.RMSNorm(config.head_dim, eps=config.norm_eps)
        self.relative: RelativePositions | None = None
        if config.positions == "relative":
            self.relative = RelativePositions(
                width, config.n_heads, config.head_dim, config.max_seq_len
            )

    def heads(
        self, h_BTD: Tensor, rotary: RotaryPositions | None, start: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, K), keys and values (B, G, T, K) of tokens from position `start` on."""
        q_BHTK = torch.unflatten(self.q_proj(h_BTD), -1, (-1, self.head_dim)).transpose(1, 2)
        k_BGTK = torch.unflatten(self.k_proj(h_BTD), -1, (-1, self.head_dim)).transpose(1, 2)
        v_BGTK = torch.unflatten(self.v_proj(h_BTD), -1, (-1, self.head_dim)).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q_BHTK = apply_norm(self.q_norm, q_BHTK)
            k_BGTK = apply_norm(self.k_norm, k_BGTK)
        if rotary is not None:
            q_BHTK, k_BGTK = rotary(q_BHTK, start), rotary(k_BGTK, start)
        return q_BHTK, k_BGTK, v_BGTK

    def forward(self, h_BTD: Tensor, rotary: RotaryPositions | None, view: View) -> Tensor:
        """What the tokens `h_BTD` attend to, (B, T, D)."""
        q_BHTK, k_BGTK, v_BGTK = self.heads(h_BTD, rotary, view.start)
        if view.cache is not None:
            k_BGTK, v_BGTK = view.cache.extend(self.layer, k_BGTK, v_BGTK)
        bias_BHTS = view.bias_BHTS
        if self.relative is not None and bias_BHTS is not None:
            bias_BHTS = bias_BHTS + self.relative(q_BHTK, k_BGTK.shape[-2])
            q_BHTK = q_BHTK + self.relative.content_bias[:, None]
        if view.attend is not None:
            mixed_BHTK = view.attend(q_BHTK, k_BGTK, v_BGTK)
        elif bias_BHTS is not None:
            mixed_BHTK = biased_attention(q_BHTK, k_BGTK, v_BGTK, bias_BHTS)
        else:
            mixed_BHTK = causal_attention(q_BHTK, k_BGTK, v_BGTK, view.documents)
        out: Tensor = self.o_proj(mixed_BHTK.transpose(1, 2).flatten(-2))
        return out

    def fused(self, x_BTD: Tensor, norm: nn.Module, rotary: RotaryPositions, view: View) -> Tensor:
        """The stream `x_BTD` with what its normalised tokens attend to added, by the CPU's fused
        form; for `DecoderConfig.is_fused` alone."""
        gain_D, head_gains, eps = self._gains(norm)
        return fused_attention.attention(
            x_BTD,
            gain_D,
            (self.q_proj.weight, self.k_proj.weight, self.v_proj.weight, self.o_proj.weight),
            head_gains,
            rotary.turn(0, x_BTD.shape[1], x_BTD.dtype),
            eps,
            view.documents,
        )

    def read(self, x_BTD: Tensor, norm: nn.Module, rotary: RotaryPositions, view: View) -> Tensor:
        """As `fused`, after what a cache holds and without a gradient."""
        q_BHTK, k_BGTK, v_BGTK = self.read_heads(x_BTD, norm, rotary, view)
        mixed_BHTK = causal_attention(q_BHTK, k_BGTK, v_BGTK)
        return fused.product(mixed_BHTK.transpose(1, 2).flatten(-2), self.o_proj.weight, x_BTD)

    def read_heads(
        self, x_BTD: Tensor, norm: nn.Module, rotary: RotaryPositions, view: View
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, and the keys and values of all that the cache then holds."""
        gain_D, head_gains, eps = self._gains(norm)
        if view.cache is None:
            raise ValueError("reading goes on after a cache")
        q_BHTK, k_BGTK, v_BGTK = fused_attention.read_heads(
            fused.norm(x_BTD, gain_D, eps),
            (self.q_proj.weight, self.k_proj.weight, self.v_proj.weight),
            head_gains,
            rotary.turn(view.start, x_BTD.shape[1], x_BTD.dtype),
            eps,
        )
        return q_BHTK, *view.cache.extend(self.layer, k_BGTK, v_BGTK)

    def _gains(self, norm: nn.Module) -> tuple[Tensor, tuple[Tensor, Tensor], float]:
        if self.q_norm is None or self.k_norm is None or not isinstance(norm, nn.RMSNorm):
            raise ValueError("the fused form of attention has RMSNorm and QK-norm")
        return norm.weight, (self.q_norm.weight, self.k_norm.weight), norm.eps or 0.0


class FeedForward(nn.Module):
    """down(silu(gate(x)) · up(x)) and its kin (Shazeer 2020), or down(gelu(up(x)))."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.activation = config.activation
        width, inner, bias = config.d_model, config.d_ff, config.bias
        self.gate_proj: nn.Linear | None = None
        if config.activation in GATED:
            self.gate_proj = nn.Linear(width, inner, bias=bias)
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, h_BTD: Tensor) -> Tensor:
        """What the normalised stream brings forth, (B, T, D)."""
        up_BTF = self.up_proj(h_BTD)
        if self.gate_proj is None:
            inner_BTF = activate(self.activation, up_BTF)
        else:
            inner_BTF = activate(self.activation, self.gate_proj(h_BTD)) * up_BTF
        out: Tensor = self.down_proj(inner_BTF)
        return out

    def fused(self, x_BTD: Tensor, norm: nn.Module) -> Tensor:
        """The stream with that added, by the CPU's fused form; for SwiGLU without biases."""
        if self.gate_proj is None or not isinstance(norm, nn.RMSNorm):
            raise ValueError("the fused form of the feed-forward part is RMSNorm and SwiGLU")
        gate, up, down = self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight
        return fused.feed_forward(x_BTD, norm.weight, gate, up, down, norm.eps or 0.0)


def activate(kind: str, x: Tensor) -> Tensor:
    """SiLU for `swiglu`, GELU in its tanh form for `gelu` and `geglu`, or ReLU."""
    if kind == "swiglu":
        return F.silu(x)
    return F.relu(x) if kind == "relu" else F.gelu(x, approximate="tanh")


class Block(nn.Module):
    """One layer: attention, then feed-forward, each normalised before and added after (or, in
    the oldest form, added and then normalised)."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.post_norm = config.post_norm
        self.fuses_attention = config.is_fused
        self.fuses_feed_forward = (
            config.norm == "rms"
            and config.activation == "swiglu"
            and not (config.bias or config.post_norm or config.experts)
        )
        self.recompute: Recompute = "none"
        """What of it is computed again in the backward pass."""
        self.input_layernorm = make_norm(config.norm, config.d_model, config.norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = make_norm(config.norm, config.d_model, config.norm_eps)
        self.mlp: FeedForward | MixtureOfExperts = (
            FeedForward(config)
            if config.experts is None
            else MixtureOfExperts(config.d_model, config.experts)
        )

    def forward(
        self, x_BTD: Tensor, rotary: RotaryPositions | None, view: View
    ) -> tuple[Tensor, Routing | None]:
        """The stream after this layer, and where its experts' tokens went."""
        if self.recompute == "attention" and view.cache is None:
            x_BTD = again_in_backward(self.attended, x_BTD, rotary, view)
        else:
            x_BTD = self.attended(x_BTD, rotary, view)
        after, fused_here = self.post_attention_layernorm, fused_applies(x_BTD)
        if isinstance(self.mlp, MixtureOfExperts):
            out_BTD, routing = self.mlp(x_BTD if self.post_norm else after(x_BTD))
            x_BTD = x_BTD + out_BTD
            return after(x_BTD) if self.post_norm else x_BTD, routing
        if fused_here and self.fuses_feed_forward:
            return self.mlp.fused(x_BTD, after), None
        if self.post_norm:
            return after(x_BTD + self.mlp(x_BTD)), None
        return x_BTD + self.mlp(after(x_BTD)), None

    def attended(self, x_BTD: Tensor, rotary: RotaryPositions | None, view: View) -> Tensor:
        """The stream after the layer's first half."""
        before = self.input_layernorm
        if self._fuses_attention_of(x_BTD, view) and rotary is not None:
            if view.cache is None:
                return self.self_attn.fused(x_BTD, before, rotary, view)
            return self.self_attn.read(x_BTD, before, rotary, view)
        out_BTD: Tensor
        if self.post_norm:
            out_BTD = before(x_BTD + self.self_attn(x_BTD, rotary, view))
        else:
            out_BTD = x_BTD + self.self_attn(before(x_BTD), rotary, view)
        return out_BTD

    def remember(self, x_BTD: Tensor, rotary: RotaryPositions | None, view: View) -> None:
        """Extend the view's cache as `forward` would, and nothing more."""
        before, attention = self.input_layernorm, self.self_attn
        if self._fuses_attention_of(x_BTD, view) and rotary is not None:
            attention.read_heads(x_BTD, before, rotary, view)
        elif view.cache is not None:
            h_BTD = x_BTD if self.post_norm else before(x_BTD)
            _, k_BGTK, v_BGTK = attention.heads(h_BTD, rotary, view.start)
            view.cache.extend(attention.layer, k_BGTK, v_BGTK)

    def _fuses_attention_of(self, x_BTD: Tensor, view: View) -> bool:
        reads = view.cache is not None
        return (
            self.fuses_attention
            and fused_applies(x_BTD)
            and view.bias_BHTS is None
            and view.attend is None
            and not (reads and torch.is_grad_enabled())
        )


class Decoder(nn.Module):
    """Token ids in, next-token logits out. Parameter names are those of Qwen3 in transformers,
    less their `model.` prefix, in every form."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        width, length = config.d_model, config.max_seq_len
        self.embed_tokens = nn.Embedding(config.vocab_size, width)
        self.embed_positions: nn.Embedding | None = None
        if config.positions == "learned":
            self.embed_positions = nn.Embedding(length, width)
        self.layers = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.compiled: tuple[Callable[..., tuple[Tensor, Routing | None]], ...] = ()
        """What is called in place of each layer where a gradient is to come; none if empty."""
        self.norm = None if config.post_norm else make_norm(config.norm, width, config.norm_eps)
        self.fuses_norm = config.norm == "rms"
        self.lm_head = nn.Linear(width, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self.rotary: RotaryPositions | None = None
        if config.positions == "rotary":
            self.rotary = RotaryPositions(
                config.head_dim, length, config.rope_theta, config.rope_scaling
            )
        if config.positions == "sinusoidal":
            self.register_buffer("sinusoid_TD", sinusoids(length, width), persistent=False)

    def embed(self, ids_BT: Tensor, start: int, document_BT: Tensor | None) -> Tensor:
        """(B, T, D) the stream before the first layer.

        Positions that are added count from the start of each document; sinusoids, of size 1, go
        with embeddings times √D (Vaswani et al. 2017, section 3.4).
        """
        x_BTD: Tensor = self.embed_tokens(ids_BT)
        if self.config.positions not in ("learned", "sinusoidal"):
            return x_BTD
        if document_BT is not None:
            place = positions_in_documents(document_BT)
        else:
            place = torch.arange(start, start + ids_BT.shape[1], device=ids_BT.device)
        if self.embed_positions is not None:
            placed: Tensor = x_BTD + self.embed_positions(place)
            return placed
        sinusoid_BTD = self.get_buffer("sinusoid_TD").to(x_BTD.dtype)[place]
        return torch.add(sinusoid_BTD, x_BTD, alpha=self.config.d_model**0.5)

    def view(self, x_BTD: Tensor, document_BT: Tensor | None, cache: KVCache | None) -> View:
        """What the tokens of a forward pass may look at."""
        config, length = self.config, x_BTD.shape[1]
        start = 0 if cache is None else cache.length
        total = start + length
        narrow = config.window is not None and config.window < total
        if narrow or config.positions in ("alibi", "relative"):
            bias_BHTS = causal_bias(config, length, total, document_BT, x_BTD.dtype, x_BTD.device)
            return View(start, cache, None, bias_BHTS)
        documents = None if document_BT is None else DocumentMask(document_BT, x_BTD.dtype)
        return View(start, cache, documents, None)

    def routed(
        self, ids_BT: Tensor, document_BT: Tensor | None = None, cache: KVCache | None = None
    ) -> tuple[Tensor, tuple[Routing, ...]]:
        """As `hidden`, and where each layer's tokens went (empty without experts)."""
        start = 0 if cache is None else cache.length
        total = start + ids_BT.shape[1]
        if total > self.config.max_seq_len:
            raise ValueError(f"{total} positions exceed max_seq_len = {self.config.max_seq_len}")
        x_BTD = self.embed(ids_BT, start, document_BT)
        view = self.view(x_BTD, document_BT, cache)
        calls: tuple[Callable[..., tuple[Tensor, Routing | None]], ...] = tuple(self.layers)
        if self.compiled and torch.is_grad_enabled() and cache is None:
            calls = self.compiled
        x_BTD, routing = through(calls, tuple(self.layers), x_BTD, self.rotary, view)
        return self.normalised(x_BTD), routing

    def normalised(self, x_BTD: Tensor) -> Tensor:
        """The stream after the last layer, ready for the output layer."""
        if self.norm is None:
            return x_BTD
        if isinstance(self.norm, nn.RMSNorm) and self.fuses_norm and fused_applies(x_BTD):
            return fused.norm(x_BTD, self.norm.weight, self.norm.eps or 0.0)
        out: Tensor = self.norm(x_BTD)
        return out

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
        return self.routed(ids_BT, document_BT, cache)[0]

    def forward(
        self, ids_BT: Tensor, document_BT: Tensor | None = None, cache: KVCache | None = None
    ) -> Tensor:
        """Next-token logits (B, T, V)."""
        logits_BTV: Tensor = self.lm_head(self.hidden(ids_BT, document_BT, cache))
        return logits_BTV


def through(
    calls: Sequence[Callable[..., tuple[Tensor, Routing | None]]],
    blocks: Sequence[nn.Module],
    x_BTD: Tensor,
    rotary: RotaryPositions | None,
    view: View,
) -> tuple[Tensor, tuple[Routing, ...]]:
    """The stream after some neighbouring layers, and where each one's tokens went.

    Args:
        calls: What is called for each layer: itself, or what was compiled of it.
        blocks: The layers.
    """
    routing = []
    for block, call in zip(blocks, calls, strict=True):
        if block.recompute == "block" and view.cache is None:
            x_BTD, went = again_in_backward(call, x_BTD, rotary, view)
        else:
            x_BTD, went = call(x_BTD, rotary, view)
        if went is not None:
            routing.append(went)
    return x_BTD, tuple(routing)
