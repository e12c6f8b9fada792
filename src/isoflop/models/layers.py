"""The parts every architecture is made of: norms, positions, document-aware attention.

Not for whole models (see `decoder.py`, `encoder.py`, `encoder_decoder.py`) nor for their initial
values (`initialise.py`).

Shape suffixes, here and in every model file: B batch, T time, S keys' time, D model width,
H query heads, G key–value heads, K head width, P = K/2 rotary pairs, F feed-forward width,
V vocabulary, E experts.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.models import config
from isoflop.models.config import DecoderConfig, RopeScaling
from isoflop.models.documents import DocumentMask


def make_norm(kind: config.Norm, width: int, eps: float) -> nn.RMSNorm | nn.LayerNorm:
    """The norm of that kind over the last axis."""
    return nn.RMSNorm(width, eps=eps) if kind == "rms" else nn.LayerNorm(width, eps=eps)


def apply_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """`norm(x)` in the format of its gain: under autocast products come in a narrower one, in
    which squares may overflow."""
    gain = norm.weight
    out: Tensor = norm(x.to(gain.dtype) if isinstance(gain, Tensor) else x)
    return out


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


# --- positions -----------------------------------------------------------------------------


class RotaryPositions(nn.Module):
    """Rotary position embedding, half-split form (Su et al. 2021; the layout of Llama and Qwen).

    Coordinate i of the first half of a head is rotated together with coordinate i of the second
    half by the angle position · theta^(−2i/K).
    """

    cos_PT: Tensor
    sin_PT: Tensor

    def __init__(
        self, head_dim: int, max_seq_len: int, theta: float, scaling: RopeScaling | None = None
    ) -> None:
        super().__init__()
        # Computed in float64: float32 angles are off by 1e-4 at position 4096. On the CPU by name:
        # a model whose weights are made without memory needs its tables all the same.
        frequency_P = theta ** (-_count(0, head_dim, 2) / head_dim)
        if scaling is not None:
            frequency_P = _stretched(frequency_P, scaling)
        angle_PT = torch.outer(frequency_P, _count(0, max_seq_len, 1))
        self.register_buffer("cos_PT", angle_PT.cos().to(torch.float32), persistent=False)
        self.register_buffer("sin_PT", angle_PT.sin().to(torch.float32), persistent=False)

    def turn(self, start: int, length: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosine and sine (P, T) of every pair's angle at `length` positions from `start`."""
        here = slice(start, start + length)
        return self.cos_PT[:, here].to(dtype), self.sin_PT[:, here].to(dtype)

    def forward(self, x_BHTK: Tensor, start: int = 0) -> Tensor:
        """Rotate queries or keys whose first position is `start`."""
        cos_PT, sin_PT = self.turn(start, x_BHTK.shape[-2], x_BHTK.dtype)
        cos, sin = cos_PT.t(), sin_PT.t()
        low, high = x_BHTK.chunk(2, dim=-1)
        return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


def _count(start: int, end: int, step: int) -> Tensor:
    return torch.arange(start, end, step, dtype=torch.float64, device="cpu")


def _stretched(frequency_P: Tensor, scaling: RopeScaling) -> Tensor:
    """Llama 3.1's frequencies: by how often each turns within the original context."""
    turns_P = scaling.original_max_seq_len * frequency_P / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept_P = ((turns_P - low) / (high - low)).clamp(0, 1)
    mixed: Tensor = kept_P * frequency_P + (1 - kept_P) * frequency_P / scaling.factor
    return mixed


def sinusoids(length: int, width: int) -> Tensor:
    """(length, width) float32: sin(t · 10000^(−2i/width)) at even, cos at odd columns
    (Vaswani et al. 2017, section 3.5)."""
    frequency = 10_000.0 ** (-_count(0, width, 2) / width)
    angle = torch.outer(_count(0, length, 1), frequency)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2).to(torch.float32)


def alibi_slopes(n_heads: int) -> Tensor:
    """(H,) slopes of ALiBi: 2^(−8/H), 2^(−16/H), … for H a power of two; otherwise those of the
    power below, then every other one of twice that power (Press et al. 2022 and their code)."""
    power = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    slopes += [2 ** (-4 * (i + 1) / power) for i in range(0, 2 * (n_heads - power), 2)]
    return torch.tensor(slopes, dtype=torch.float32)


class RelativePositions(nn.Module):
    """Transformer-XL's scores by distance (Dai et al. 2019, section 3.3; in Gopher and Chinchilla).

    A query q and a key k at distance d score (q + u) · k + (q + v) · R s_d, with s_d the sinusoids
    of d, R a projection, u and v one vector per head.
    """

    table_SD: Tensor

    def __init__(self, d_model: int, n_heads: int, head_dim: int, max_seq_len: int) -> None:
        super().__init__()
        self.r_proj = nn.Linear(d_model, n_heads * head_dim, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(n_heads, head_dim))
        self.distance_bias = nn.Parameter(torch.zeros(n_heads, head_dim))
        self.register_buffer("table_SD", sinusoids(max_seq_len, d_model), persistent=False)

    def forward(self, q_BHTK: Tensor, n_keys: int) -> Tensor:
        """(B, H, T, S) what distances add to the scores; the queries are the last positions.

        Scores are later divided by √K by the attention; so are these here.
        """
        _, n_heads, length, width = q_BHTK.shape
        r_SHK = self.r_proj(self.table_SD[:n_keys].to(q_BHTK.dtype)).view(-1, n_heads, width)
        asked_BHTK = q_BHTK + self.distance_bias[:, None]
        by_distance_BHTS = asked_BHTK @ r_SHK.permute(1, 2, 0) * width**-0.5
        index_TS = distances(length, n_keys, q_BHTK.device).clamp_min(0)
        bias_BHTS: Tensor = by_distance_BHTS.gather(-1, index_TS.expand(by_distance_BHTS.shape))
        return bias_BHTS


def distances(n_queries: int, n_keys: int, device: torch.device) -> Tensor:
    """(T, S) how far each key lies before each query; the queries are the last positions."""
    query_T = torch.arange(n_keys - n_queries, n_keys, device=device)
    return query_T[:, None] - torch.arange(n_keys, device=device)


# --- what a token may look at --------------------------------------------------------------


def fused_applies(x_BTD: Tensor) -> bool:
    """Whether a whole window of the stream takes the fast CPU forms of `fused.py`
    and `fused_attention.py`.

    Other devices have kernels of their own and so does a compiler, narrower formats need
    autocast's care, and long windows an attention that does not keep its shares.
    """
    return (
        x_BTD.device.type == "cpu"
        and x_BTD.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and config.FEWEST_FUSED <= x_BTD.shape[1] <= config.LONGEST_FUSED
    )


def causal_bias(
    shape: DecoderConfig,
    n_queries: int,
    n_keys: int,
    document_BT: Tensor | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """(B or 1, H or 1, T, S) what is added to scores: −∞ where a token must not look (later
    tokens, other documents, beyond the window), and ALiBi's slopes."""
    distance_TS = distances(n_queries, n_keys, device)
    hidden_BTS = (distance_TS < 0)[None]
    if shape.window is not None:
        hidden_BTS = hidden_BTS | (distance_TS >= shape.window)
    if document_BT is not None:
        hidden_BTS = hidden_BTS | (document_BT[:, :, None] != document_BT[:, None, :])
    bias_BHTS = torch.zeros(1, 1, n_queries, n_keys, dtype=dtype, device=device)
    if shape.positions == "alibi":
        slope_H = alibi_slopes(shape.n_heads).to(device, dtype)
        bias_BHTS = -slope_H[:, None, None] * distance_TS.to(dtype)[None, None]
    return bias_BHTS.masked_fill(hidden_BTS[:, None], -torch.inf)


def same_document_bias(
    query_document_BT: Tensor, key_document_BS: Tensor, dtype: torch.dtype
) -> Tensor:
    """(B, 1, T, S) what is added to scores where no order hides anything: 0 within a document,
    between two the lowest number, whose share is exactly 0 and which keeps a query whose document
    has no keys (padding) finite."""
    hidden_B1TS = (query_document_BT[:, :, None] != key_document_BS[:, None, :])[:, None]
    return torch.zeros(hidden_B1TS.shape, dtype=dtype, device=hidden_B1TS.device).masked_fill_(
        hidden_B1TS, torch.finfo(dtype).min
    )


# --- attention -----------------------------------------------------------------------------


def causal_attention(
    q_BHTK: Tensor, k_BGSK: Tensor, v_BGSK: Tensor, documents: DocumentMask | None = None
) -> Tensor:
    """Softmax attention of each token to itself and earlier tokens of its document.

    With more keys than queries (a cache), the queries are the last positions.

    Returns:
        Values mixed per head, (B, H, T, K).
    """
    grouped = k_BGSK.shape[1] != q_BHTK.shape[1]
    if documents is not None and documents.n_mixed:
        sizes = [documents.n_whole, documents.n_mixed]
        (q1, q2), (k1, k2), (v1, v2) = (torch.split(x, sizes) for x in (q_BHTK, k_BGSK, v_BGSK))
        mixed = F.scaled_dot_product_attention(
            q2, k2, v2, attn_mask=documents.bias_R1TT, enable_gqa=grouped
        )
        if not documents.n_whole:
            return mixed
        whole = F.scaled_dot_product_attention(q1, k1, v1, is_causal=True, enable_gqa=grouped)
        return torch.cat((whole, mixed))
    n_queries, n_keys = q_BHTK.shape[-2], k_BGSK.shape[-2]
    if n_queries == n_keys or n_queries == 1:
        return F.scaled_dot_product_attention(
            q_BHTK, k_BGSK, v_BGSK, is_causal=n_queries > 1, enable_gqa=grouped
        )
    last_TS = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q_BHTK.device)
    return F.scaled_dot_product_attention(
        q_BHTK, k_BGSK, v_BGSK, attn_mask=last_TS.tril(n_keys - n_queries), enable_gqa=grouped
    )


def biased_attention(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    bias_BHTS: Tensor | None,
    scale: float | None = None,
) -> Tensor:
    """softmax(q · kᵀ · scale + bias) · v per head, (B, H, T, K); scale is 1/√K when None."""
    grouped = k_BGSK.shape[1] != q_BHTK.shape[1]
    return F.scaled_dot_product_attention(
        q_BHTK, k_BGSK, v_BGSK, attn_mask=bias_BHTS, scale=scale, enable_gqa=grouped
    )
