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
