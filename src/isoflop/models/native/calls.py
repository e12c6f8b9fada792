"""The native library's functions on tensors, and whether they apply.

Every function here takes contiguous float32 tensors on the CPU, knows no gradient and raises
nothing: `applies` is asked first. The plain forms of the same formulas are in `fused.py` and
`fused_attention.py`.

Shape suffixes: B batch, T time, H query heads, G key–value heads, K head width, P = K/2 rotary
pairs, E = (H + 2G)·K, N rows, D width of a row, V vocabulary.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isoflop.models.native.build import Library, library
from isoflop.models.native.tiles import (
    n_parts,
    takes_feed_forward,
    takes_output,
    takes_product,
    takes_weight_gradient,
)

REGISTER_FLOATS = 16
"""Rows are whole multiples of this, the widest register in use (AVX-512)."""


class _Switch:
    on = True


def use(native: bool) -> Library:
    """From now on in this process: the native library where there is one, or plain torch."""
    _Switch.on = native
    return library() if native else Library(None, "switched off")


def in_use() -> bool:
    """Whether there is a native library and it is not switched off."""
    return _Switch.on and library().functions is not None


@contextmanager
def plain_torch() -> Iterator[None]:
    """Within: plain torch; for tests and comparisons."""
    before, _Switch.on = _Switch.on, False
    try:
        yield
    finally:
        _Switch.on = before


def applies(*tensors: Tensor, whole_registers: bool = True) -> bool:
    """Whether the native functions can work on these: float32 on the CPU, rows whole registers."""
    floats = REGISTER_FLOATS if whole_registers else 1
    return (
        all(
            x.dtype == torch.float32
            and x.device.type == "cpu"
            and x.shape[-1] % floats == 0
            and x.is_contiguous()
            for x in tensors
        )
        and in_use()
    )


def _call(name: str, *arguments: Tensor | int | float | None) -> None:
    functions: Any = library().functions
    getattr(functions, name)(*map(_as_c, arguments))


def _as_c(value: Tensor | int | float | None) -> Any:
    if value is None or isinstance(value, Tensor):
        return ctypes.c_void_p(None if value is None else value.data_ptr())
    return ctypes.c_long(value) if isinstance(value, int) else ctypes.c_float(value)


# --- products and the output layer ---------------------------------------------------------


def product_applies(x: Tensor, weight_FD: Tensor, addend: Tensor | None) -> bool:
    """Whether `product` can, and does it sooner than torch."""
    n_out, n_in = weight_FD.shape
    return (
        takes_product(x.numel() // n_in, n_in, n_out)
        and 1 in weight_FD.stride()
        and applies(x, x if addend is None else addend, whole_registers=False)
    )


def product(x: Tensor, weight_FD: Tensor, addend: Tensor | None) -> Tensor:
    """x (…, D) · weightᵀ (+ addend (…, F)); the weight may be a transposed one."""
    n_out, n_in = weight_FD.shape
    out, packed = x.new_empty(*x.shape[:-1], n_out), x.new_empty(n_out * n_in)
    sizes = x.numel() // n_in, n_in, n_out
    _call("isoflop_product", x, weight_FD, *weight_FD.stride(), addend, *sizes, packed, out)
    return out


def weight_gradient_applies(d_out: Tensor, x: Tensor) -> bool:
    """Whether `weight_gradient` can, and does it sooner than torch."""
    shapes = x.shape[-1], d_out.shape[-1]
    return takes_weight_gradient(*shapes) and applies(d_out, x, whole_registers=False)


def weight_gradient(d_out: Tensor, x: Tensor) -> Tensor:
    """d_outᵀ · x over all rows, (F, D)."""
    n_out, n_in = d_out.shape[-1], x.shape[-1]
    n_rows = x.numel() // n_in
    parts, d_weight_FD = x.new_empty(n_parts(n_rows), n_out, n_in), x.new_empty(n_out, n_in)
    sizes = n_rows, n_in, n_out, len(parts)
    _call("isoflop_weight_gradient", d_out, x, *sizes, parts, d_weight_FD)
    return d_weight_FD


def output_loss_applies(x_ND: Tensor, weight_VD: Tensor, label_N: Tensor) -> bool:
    """Whether `output_loss` can, and does it sooner than torch."""
    n_words, width = weight_VD.shape
    return takes_output(width, n_words) and label_N.is_contiguous() and applies(x_ND, weight_VD)


def output_loss(
    x_ND: Tensor, weight_VD: Tensor, label_N: Tensor, ignored: int, *, with_gradient: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Summed −log softmax(x · weightᵀ) at the labels that count, and its gradients of both."""
    loss_N = x_ND.new_empty(len(x_ND))
    sizes = len(x_ND), *reversed(weight_VD.shape), n_parts(len(x_ND))
    room: tuple[Tensor, ...] | tuple[None, ...] = (None, None, None)
    if with_gradient:
        parts_SVD = x_ND.new_empty(sizes[-1], *weight_VD.shape)
        room = parts_SVD, torch.empty_like(x_ND), torch.empty_like(weight_VD)
    _call("isoflop_output_loss", x_ND, weight_VD, label_N, ignored, *sizes, loss_N, *room)
    return loss_N.sum(), room[1], room[2]


def feed_forward_applies(x: Tensor, *weights: Tensor) -> bool:
    """Whether `feed_forward` can, and does it sooner than torch."""
    width, n_rows = x.shape[-1], x.numel() // x.shape[-1]
    return takes_feed_forward(n_rows, width, weights[0].shape[0]) and applies(x, *weights)


def feed_forward(
    x: Tensor, gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x + (silu(h · gateᵀ) · (h · upᵀ)) · downᵀ with h = scale · x, the factor scale (N) that makes
    the root mean square 1, h · gateᵀ and h · upᵀ (N, F)."""
    (inner, width), n_rows = gate_FD.shape, x.numel() // x.shape[-1]
    out, scale_N = torch.empty_like(x), x.new_empty(n_rows)
    kept = x.new_empty(n_rows, inner), x.new_empty(n_rows, inner)
    room = x.new_empty(3, inner, width)
    weights = gate_FD, up_FD, down_DF
    _call("isoflop_feed_forward", x, *weights, eps, n_rows, width, inner, room, scale_N, *kept, out)
    return out, scale_N, *kept


def feed_forward_backward(
    d_out: Tensor,
    x: Tensor,
    kept: tuple[Tensor, Tensor, Tensor],
    weights: tuple[Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x and of the three weights; `kept`: what `feed_forward` gave with its result."""
    inner, width = weights[0].shape
    d_x, d_weights_3FD = torch.empty_like(x), x.new_empty(3, inner, width)
    n_rows = x.numel() // width
    parts = x.new_empty(n_parts(n_rows), 3, inner, width)
    sizes = n_rows, width, inner, len(parts)
    _call(
        "isoflop_feed_forward_backward",
        d_out,
        x,
        *kept,
        *weights,
        *sizes,
        parts,
        d_x,
        d_weights_3FD,
    )
    d_gate_FD, d_up_FD, d_down = d_weights_3FD
    return d_x, d_gate_FD, d_up_FD, d_down.view(width, inner)


# --- norm, gate and loss -------------------------------------------------------------------


def norm(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x over its root mean square along the last axis, and the factor (…, 1) that made it so."""
    unit, scale = torch.empty_like(x), x.new_empty((*x.shape[:-1], 1))
    _call("isoflop_norm", x, eps, scale.numel(), x.shape[-1], unit, scale)
    return unit, scale


def norm_backward(d_unit: Tensor, unit: Tensor, scale: Tensor, d_sum: Tensor | None) -> Tensor:
    """scale · (d_unit − unit · mean(d_unit · unit)) + d_sum."""
    d_x = torch.empty_like(unit)
    sizes = scale.numel(), unit.shape[-1]
    _call("isoflop_norm_backward", d_unit, unit, scale, d_sum, *sizes, d_x)
    return d_x


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up."""
    inner = torch.empty_like(gate)
    _call("isoflop_swiglu", gate, up, gate.numel(), inner)
    return inner


def swiglu_backward(d_inner: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up; that of gate takes the place of `d_inner`."""
    d_up = torch.empty_like(up)
    _call("isoflop_swiglu_backward", d_inner, gate, up, gate.numel(), d_inner, d_up)
    return d_inner, d_up


def cross_entropy(logits_NV: Tensor, label_N: Tensor, ignored: int) -> Tensor:
    """Summed −log softmax at the labels that count; logits become its gradient, in place."""
    loss_N = logits_NV.new_empty(len(logits_NV))
    _call("isoflop_cross_entropy", logits_NV, label_N, ignored, *logits_NV.shape, loss_N)
    return loss_N.sum()


# --- attention -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Heads:
    """What the attention of one layer is called with, besides its queries, keys and values."""

    q_gain_K: Tensor
    k_gain_K: Tensor
    cos_TP: Tensor
    sin_TP: Tensor
    first_BT: Tensor
    """Each token's earliest visible position, int32."""
    eps: float
    n_heads: int
    n_groups: int


def attention(qkv_BTE: Tensor, heads: Heads) -> tuple[Tensor, Tensor]:
    """Values mixed, heads side by side (B, T, H·K), and log Σ exp(score) (B, H, T)."""
    rows, time, _ = qkv_BTE.shape
    width = len(heads.q_gain_K)
    mixed_BTE = qkv_BTE.new_empty(rows, time, heads.n_heads * width)
    log_sum_BHT = qkv_BTE.new_empty(rows, heads.n_heads, time)
    _call("isoflop_attention", qkv_BTE, *_common(heads, rows, time), mixed_BTE, log_sum_BHT)
    return mixed_BTE, log_sum_BHT


def turned_heads(
    x_BTE: Tensor, gain_K: Tensor, cos_TP: Tensor, sin_TP: Tensor, eps: float
) -> Tensor:
    """rot(gain · x / rms(x)) per head, (B, H, T, K), of heads side by side (B, T, H·K)."""
    rows, time, all_heads = x_BTE.shape
    width = len(gain_K)
    sizes = rows, time, all_heads // width, width
    heads_BHTK = x_BTE.new_empty(rows, sizes[2], time, width)
    _call("isoflop_turned_heads", x_BTE, gain_K, cos_TP, sin_TP, eps, *sizes, heads_BHTK)
    return heads_BHTK


def attention_backward(
    d_mixed_BTE: Tensor, qkv_BTE: Tensor, mixed_BTE: Tensor, log_sum_BHT: Tensor, heads: Heads
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `qkv_BTE` and of the gains of queries and keys."""
    rows, time, _ = qkv_BTE.shape
    d_qkv_BTE = torch.empty_like(qkv_BTE)
    d_gain_J2K = qkv_BTE.new_empty(rows * heads.n_groups, 2, len(heads.q_gain_K))
    _call(
        "isoflop_attention_backward", d_mixed_BTE, qkv_BTE, mixed_BTE, log_sum_BHT,
        *_common(heads, rows, time), d_qkv_BTE, d_gain_J2K,
    )  # fmt: skip
    d_q_gain_K, d_k_gain_K = d_gain_J2K.sum(0)
    return d_qkv_BTE, d_q_gain_K, d_k_gain_K


def _common(heads: Heads, rows: int, time: int) -> tuple[Tensor | int | float, ...]:
    return (
        heads.q_gain_K, heads.k_gain_K, heads.cos_TP, heads.sin_TP, heads.first_BT, heads.eps,
        rows, time, heads.n_heads, heads.n_groups, len(heads.q_gain_K),
    )  # fmt: skip
