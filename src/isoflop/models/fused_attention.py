"""Attention of a whole block on a CPU, norm to residual sum, with its backward pass by hand.

Not for long windows, whose shares of attention would not fit, nor for single tokens: those take
the plain form in `decoder.py`. Like `fused.py`, which holds the rest, one autograd node.

Queries go block by block, so that keys after a block are skipped and not masked, and few enough
heads at a time for their scores to stay in the cache.

Shape suffixes: B batch, T time, D model width, H query heads (H + G of them where keys follow
queries), G key–value heads, K head width, P = K/2 rotary pairs, E heads side by side, Q queries
of one block, S keys it sees, R rows of the batch that hold several documents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from isoflop.models import config
from isoflop.models.documents import DocumentMask
from isoflop.models.fused import normalise, normalise_backward, product, weight_gradient
from isoflop.models.native import calls as native

NATIVE_WIDTHS = 32
"""Heads of multiples of this width fit the native library, whose registers take half of one."""
CACHED_SCORES = 2**19
"""Scores of attention worked on at once, to stay in a cache of megabytes."""


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BTD: Tensor,
        gain_D: Tensor,
        q_ED: Tensor,
        k_ED: Tensor,
        v_ED: Tensor,
        out_DE: Tensor,
        q_gain_K: Tensor,
        k_gain_K: Tensor,
        turn: tuple[Tensor, Tensor],
        eps: float,
        bias_RTT: Tensor | None,
    ) -> Tensor:
        rows, time, _ = x_BTD.shape
        width = len(q_gain_K)
        n_heads, groups = len(q_ED) // width, len(k_ED) // width
        unit_BTD, scale_BT1 = normalise(x_BTD, eps)
        weight_ED = torch.cat((q_ED, k_ED, v_ED))
        # Time innermost: norms and rotations of heads, and their products, all run along it.
        qkv_BET = torch.bmm((weight_ED * gain_D).expand(rows, -1, -1), unit_BTD.transpose(1, 2))
        heads_HBKT = qkv_BET.view(rows, -1, width, time).transpose(0, 1)
        qk_HBKT = heads_HBKT[:-groups]
        scale_HB1T = qk_HBKT.square().mean(2, keepdim=True).add_(eps).rsqrt_()
        unit_HBKT = torch.mul(qk_HBKT, scale_HB1T, out=x_BTD.new_empty(qk_HBKT.shape))
        # Scores are divided by the root of the width of a head.
        gain_HK = _gain_per_head(q_gain_K * width**-0.5, k_gain_K, n_heads, groups)
        turned_HBKT = _rotate(unit_HBKT * gain_HK[:, None, :, None], *turn)
        v_GBKT = heads_HBKT[-groups:].contiguous()
        mixed_BTE, shares = _attend(turned_HBKT, v_GBKT, bias_RTT)
        ctx.save_for_backward(
            unit_BTD, scale_BT1, gain_D, weight_ED, out_DE, gain_HK, *turn,
            unit_HBKT, scale_HB1T, turned_HBKT, v_GBKT, mixed_BTE, *shares,
        )  # fmt: skip
        return product(mixed_BTE, out_DE, x_BTD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_BTD: Tensor) -> tuple[Tensor | None, ...]:
        unit_BTD, scale_BT1, gain_D, weight_ED, out_DE, *saved = ctx.saved_tensors
        gain_HK, cos, sin, unit_HBKT, scale_HB1T, turned_HBKT, v_GBKT, *saved = saved
        mixed_BTE, *shares = saved
        rows, groups, width = len(d_out_BTD), len(v_GBKT), gain_HK.shape[1]
        n_heads = len(gain_HK) - groups
        d_out_DE = weight_gradient(d_out_BTD, mixed_BTE)
        d_mixed_BTE = product(d_out_BTD, out_DE.t())
        d_turned_HBKT, d_v_GBKT = _attend_backward(d_mixed_BTE, turned_HBKT, v_GBKT, shares)
        # The inverse of a rotation is the rotation by the opposite angle.
        d_normed_HBKT = _rotate(d_turned_HBKT, cos, -sin)
        along = d_normed_HBKT * unit_HBKT
        d_gain_HK = along.sum((1, 3))
        gain_H1K1 = gain_HK[:, None, :, None]
        mean_HB1T = along.mul_(gain_H1K1).mean(2, keepdim=True)
        d_unit_HBKT = d_normed_HBKT.mul_(gain_H1K1).addcmul_(unit_HBKT, mean_HB1T, value=-1)
        d_qkv_BHKT = d_out_BTD.new_empty(rows, n_heads + 2 * groups, *unit_HBKT.shape[2:])
        by_head = d_qkv_BHKT.transpose(0, 1)
        torch.mul(d_unit_HBKT, scale_HB1T, out=by_head[:-groups])
        by_head[-groups:] = d_v_GBKT
        d_qkv_BET = d_qkv_BHKT.flatten(1, 2)
        d_weight_ED = torch.bmm(d_qkv_BET, unit_BTD).sum(0)
        scaled_ED = weight_ED * gain_D
        d_unit_BTD = torch.bmm(d_qkv_BET.transpose(1, 2), scaled_ED.expand(rows, -1, -1))
        d_x_BTD = normalise_backward(d_unit_BTD.contiguous(), unit_BTD, scale_BT1, d_out_BTD)
        d_gain_D = (d_weight_ED * weight_ED).sum(0)
        sizes = [n_heads * width, groups * width, groups * width]
        d_q_gain_K = d_gain_HK[:n_heads].sum(0).mul_(width**-0.5)
        return (
            d_x_BTD, d_gain_D, *torch.split(d_weight_ED.mul_(gain_D), sizes), d_out_DE,
            d_q_gain_K, d_gain_HK[n_heads:].sum(0), None, None, None,
        )  # fmt: skip


def _gain_per_head(q_gain_K: Tensor, k_gain_K: Tensor, n_heads: int, groups: int) -> Tensor:
    return torch.cat((q_gain_K.expand(n_heads, -1), k_gain_K.expand(groups, -1)))


def _attend(
    turned_HBKT: Tensor, v_GBKT: Tensor, bias_RTT: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """Values mixed, heads side by side (B, T, H·K), and the shares of attention by block."""
    (turned_heads, rows, width, time), groups = turned_HBKT.shape, len(v_GBKT)
    n_heads = turned_heads - groups
    q, k, v = _per_query_head(turned_HBKT, v_GBKT)
    mixed_BTHK = turned_HBKT.new_empty(rows, time, n_heads, width)
    shares = []
    for heads, (start, end) in _places(n_heads, rows, time):
        some = slice(heads.start * rows, heads.stop * rows)
        p = torch.bmm(q[some, :, start:end].transpose(1, 2), k[some, :, :end])
        _hide(p.view(-1, rows, end - start, end), bias_RTT, start)
        torch.softmax(p, -1, out=p)
        mixed = torch.bmm(p, v[some, :, :end].transpose(1, 2))
        by_row = mixed.view(-1, rows, end - start, width).permute(1, 2, 0, 3)
        mixed_BTHK[:, start:end, heads] = by_row
        shares.append(p)
    return mixed_BTHK.flatten(2), shares


def _attend_backward(
    d_mixed_BTE: Tensor, turned_HBKT: Tensor, v_GBKT: Tensor, shares: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Gradients of turned queries and keys, and of values, from the shares of attention."""
    (turned_heads, rows, width, time), groups = turned_HBKT.shape, len(v_GBKT)
    n_heads = turned_heads - groups
    q, k, v = _per_query_head(turned_HBKT, v_GBKT)
    by_head = torch.unflatten(d_mixed_BTE, -1, (n_heads, width)).permute(2, 0, 1, 3)
    d_mixed = by_head.reshape(-1, time, width)
    d_turned_HBKT = torch.empty_like(turned_HBKT)
    d_q = d_turned_HBKT[:n_heads].view(q.shape)
    d_k, d_v = torch.empty_like(k), torch.empty_like(v)
    places = _places(n_heads, rows, time)
    # From the last block on, which sees every key and so begins the sums over blocks.
    for p, (heads, (start, end)) in zip(reversed(shares), reversed(places), strict=True):
        some = slice(heads.start * rows, heads.stop * rows)
        d_block = d_mixed[some, start:end]
        d_score = torch.bmm(d_block, v[some, :, :end])
        torch.ops.aten._softmax_backward_data.out(d_score, p, -1, p.dtype, grad_input=d_score)
        d_q[some, :, start:end] = torch.bmm(k[some, :, :end], d_score.transpose(1, 2))
        if end == time:
            torch.bmm(q[some, :, start:end], d_score, out=d_k[some])
            torch.bmm(d_block.transpose(1, 2), p, out=d_v[some])
        else:
            d_k[some, :, :end] += torch.bmm(q[some, :, start:end], d_score)
            d_v[some, :, :end] += torch.bmm(d_block.transpose(1, 2), p)
    shape_GRBKT = (groups, n_heads // groups, rows, width, time)
    torch.sum(d_k.view(shape_GRBKT), 1, out=d_turned_HBKT[n_heads:])
    return d_turned_HBKT, d_v.view(shape_GRBKT).sum(1)


def _rotate(x_HBKT: Tensor, cos_PT: Tensor, sin_PT: Tensor) -> Tensor:
    """Turn coordinates i and i + K/2 of every head by the angle of their pair and position."""
    out = torch.empty_like(x_HBKT)
    (low, high), (out_low, out_high) = x_HBKT.chunk(2, 2), out.chunk(2, 2)
    torch.mul(low, cos_PT, out=out_low).addcmul_(high, sin_PT, value=-1)
    torch.mul(high, cos_PT, out=out_high).addcmul_(low, sin_PT)
    return out


def _per_query_head(turned_HBKT: Tensor, v_GBKT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as (H·B, K, T): keys and values once for each of their queries."""
    groups = len(v_GBKT)
    q, k, v = turned_HBKT[:-groups], turned_HBKT[-groups:], v_GBKT
    if len(q) > groups:
        k, v = (x.repeat_interleave(len(q) // groups, 0) for x in (k, v))
    return q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)


def _places(n_heads: int, rows: int, time: int) -> list[tuple[slice, tuple[int, int]]]:
    """Heads and the queries' first and end: what to work on at once, to stay in the cache."""
    some = max(1, CACHED_SCORES // (rows * min(config.BLOCK_QUERIES, time) * time))
    return [
        (slice(head, min(head + some, n_heads)), (start, min(start + config.BLOCK_QUERIES, time)))
        for head in range(0, n_heads, some)
        for start in range(0, time, config.BLOCK_QUERIES)
    ]


def _hide(score_HBQS: Tensor, bias_RTT: Tensor | None, start: int) -> None:
    """Add minus infinity where a query of the block beginning at `start` must not look."""
    _, rows, queries, keys = score_HBQS.shape
    mixed = 0 if bias_RTT is None else len(bias_RTT)
    later_QQ = torch.full((queries, queries), -torch.inf, dtype=score_HBQS.dtype).triu_(1)
    score_HBQS[:, : rows - mixed, :, start:] += later_QQ
    if bias_RTT is not None:
        score_HBQS[:, rows - mixed :] += bias_RTT[:, start:keys, :keys]


class _NativeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BTD: Tensor,
        gain_D: Tensor,
        q_ED: Tensor,
        k_ED: Tensor,
        v_ED: Tensor,
        out_DE: Tensor,
        q_gain_K: Tensor,
        k_gain_K: Tensor,
        turn: tuple[Tensor, Tensor],
        eps: float,
        first_BT: Tensor,
    ) -> Tensor:
        width = len(q_gain_K)
        unit_BTD, scale_BT1 = normalise(x_BTD, eps)
        weight_ED = torch.cat((q_ED, k_ED, v_ED))
        qkv_BTE = product(unit_BTD, weight_ED * gain_D)
        cos_TP, sin_TP = (part.t().contiguous() for part in turn)
        n_heads, groups = len(q_ED) // width, len(k_ED) // width
        heads = native.Heads(q_gain_K, k_gain_K, cos_TP, sin_TP, first_BT, eps, n_heads, groups)
        mixed_BTE, log_sum_BHT = native.attention(qkv_BTE, heads)
        ctx.save_for_backward(
            unit_BTD, scale_BT1, gain_D, weight_ED, out_DE, qkv_BTE, mixed_BTE, log_sum_BHT
        )
        ctx.heads = heads
        return product(mixed_BTE, out_DE, x_BTD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_BTD: Tensor) -> tuple[Tensor | None, ...]:
        unit_BTD, scale_BT1, gain_D, weight_ED, out_DE, *saved = ctx.saved_tensors
        qkv_BTE, mixed_BTE, log_sum_BHT = saved
        heads: native.Heads = ctx.heads
        d_out_BTD = d_out_BTD.contiguous()
        d_out_DE = weight_gradient(d_out_BTD, mixed_BTE)
        d_mixed_BTE = product(d_out_BTD, out_DE.t())
        d_qkv_BTE, d_q_gain_K, d_k_gain_K = native.attention_backward(
            d_mixed_BTE, qkv_BTE, mixed_BTE, log_sum_BHT, heads
        )
        d_weight_ED = weight_gradient(d_qkv_BTE, unit_BTD)
        d_unit_BTD = product(d_qkv_BTE, (weight_ED * gain_D).t())
        d_x_BTD = normalise_backward(d_unit_BTD, unit_BTD, scale_BT1, d_out_BTD)
        d_gain_D = (d_weight_ED * weight_ED).sum(0)
        width = len(heads.q_gain_K)
        sizes = [n * width for n in (heads.n_heads, heads.n_groups, heads.n_groups)]
        return (
            d_x_BTD, d_gain_D, *torch.split(d_weight_ED.mul_(gain_D), sizes), d_out_DE,
            d_q_gain_K, d_k_gain_K, None, None, None,
        )  # fmt: skip


def attention(
    x_BTD: Tensor,
    gain_D: Tensor,
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    head_gains: tuple[Tensor, Tensor],
    turn: tuple[Tensor, Tensor],
    eps: float,
    documents: DocumentMask | None = None,
) -> Tensor:
    """x + (softmax(q · kᵀ / √K + mask) · v) · outᵀ: causal grouped-query attention with QK-norm.

    q = rot(norm(h · queryᵀ)), k = rot(norm(h · keyᵀ)), v = h · valueᵀ, h = norm(x); the norms are
    RMSNorm, those of queries and keys per head.

    Args:
        x_BTD: The stream.
        gain_D: Gain of its norm.
        weights: Of queries (H·K, D), keys and values (G·K, D), and of the output (D, H·K).
        head_gains: Gains of the norms of queries and keys, (K,) each.
        turn: Cosine and sine of every rotary pair's angle at every position, (P, T) each.
        eps: Added to the mean square in all norms.
        documents: Which tokens belong together; without it every row is one document.

    Returns:
        The stream, (B, T, D). Without the native library the shares of attention are kept for the
        backward pass: this form is for short sequences.
    """
    if native.applies(x_BTD, *head_gains) and len(head_gains[0]) % NATIVE_WIDTHS == 0:
        first_BT = _all_visible(x_BTD) if documents is None else documents.first_BT
        if first_BT is not None:
            return _NativeAttention.apply(  # type: ignore[no-any-return,no-untyped-call]
                x_BTD, gain_D, *weights, *head_gains, turn, eps, first_BT
            )
    mixed = documents is not None and documents.n_mixed > 0
    bias_RTT = documents.bias_R1TT[:, 0] if documents is not None and mixed else None
    return _Attention.apply(  # type: ignore[no-any-return,no-untyped-call]
        x_BTD, gain_D, *weights, *head_gains, turn, eps, bias_RTT
    )


def read_heads(
    h_BTD: Tensor,
    weights: tuple[Tensor, Tensor, Tensor],
    head_gains: tuple[Tensor, Tensor],
    turn: tuple[Tensor, Tensor],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The queries (B, H, T, K), keys and values (B, G, T, K) of `attention`, for reading alone:
    they know no gradient.

    Args:
        h_BTD: The normalised stream.
        weights: Of queries (H·K, D), keys and values (G·K, D).
    """
    q_BTE, k_BTE, v_BTE = (product(h_BTD, weight) for weight in weights)
    cos_TP, sin_TP = (part.t().contiguous() for part in turn)
    q_gain_K, k_gain_K = head_gains
    return (
        _turned_heads(q_BTE, q_gain_K, cos_TP, sin_TP, eps),
        _turned_heads(k_BTE, k_gain_K, cos_TP, sin_TP, eps),
        torch.unflatten(v_BTE, -1, (-1, len(k_gain_K))).transpose(1, 2),
    )


def _turned_heads(
    x_BTE: Tensor, gain_K: Tensor, cos_TP: Tensor, sin_TP: Tensor, eps: float
) -> Tensor:
    width = len(gain_K)
    if native.applies(x_BTE, gain_K) and width % NATIVE_WIDTHS == 0:
        return native.turned_heads(x_BTE, gain_K, cos_TP, sin_TP, eps)
    heads_BHTK = torch.unflatten(x_BTE, -1, (-1, width)).transpose(1, 2)
    unit_BHTK, _ = normalise(heads_BHTK.contiguous(), eps)
    low, high = (unit_BHTK * gain_K).chunk(2, -1)
    return torch.cat((low * cos_TP - high * sin_TP, high * cos_TP + low * sin_TP), -1)


def _all_visible(x_BTD: Tensor) -> Tensor:
    return torch.zeros(x_BTD.shape[:2], dtype=torch.int32)
