"""Fast CPU forms of a decoder's parts, with backward passes written by hand; not new mathematics.

Each function is one autograd node for what plain torch spreads over a dozen: it passes over each
activation less often, keeps less, and gives the matrix products the shapes this machine
multiplies fastest. What each one computes stands in its docstring as a formula; tests hold every
formula and its gradient against the plain form in float64. `layers.py` decides when to use them;
attention has a file of its own, `fused_attention.py`. What happens between the matrix products is
done by the native library where there is one (`native/`), else by torch, in more passes.

Shape suffixes: B batch, T time, N = B·T rows, D model width, F feed-forward width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from isoflop.models.native import calls as native

# --- matrix products -----------------------------------------------------------------------


def _onednn_linear() -> Any:
    """oneDNN's linear layer, where this build of torch has it, else None.

    On the CPUs measured (`docs/decisions.md`) it multiplies 8–15 % faster than the BLAS behind
    `torch.mm`; torch reaches for it by itself in 16 bits only.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_ONEDNN = _onednn_linear()


def product(x: Tensor, weight: Tensor, addend: Tensor | None = None) -> Tensor:
    """x · weightᵀ (+ addend of the result's shape), as `F.linear`; knows no gradient."""
    if native.product_applies(x, weight, addend):
        return native.product(x, weight, addend)
    if _ONEDNN is None or x.dtype != torch.float32 or x.device.type != "cpu":
        out = F.linear(x, weight)
        return out if addend is None else out.add_(addend)
    if addend is None:
        return _ONEDNN(x, weight, None, "none", [], "")  # type: ignore[no-any-return]
    return _ONEDNN.binary(x, addend, weight, None, "add")  # type: ignore[no-any-return]


def weight_gradient(d_out: Tensor, x: Tensor) -> Tensor:
    """d_outᵀ · x over all rows: the gradient of the weight in x · weightᵀ."""
    if native.weight_gradient_applies(d_out, x):
        return native.weight_gradient(d_out, x)
    return d_out.flatten(0, -2).t() @ x.flatten(0, -2)


# --- root-mean-square norm -----------------------------------------------------------------


def normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x over its root mean square along the last axis, and the factor that made it so."""
    if native.applies(x):
        return native.norm(x, eps)
    scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    scale = scale.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return x * scale, scale


def normalise_backward(
    d_unit: Tensor, unit: Tensor, scale: Tensor, d_sum: Tensor | None = None
) -> Tensor:
    """Gradient of x from that of unit = scale · x: scale · (d_unit − unit · mean(d_unit · unit)),
    plus `d_sum`, that of a sum in which x itself goes on.

    Torch has this in one pass over each row for weight normalisation, w = g · v / ‖v‖, whose
    gradient is g/n · (d_w − v · (d_w · v) / n²): here v = unit, n² = its width, g/n = scale.
    """
    if native.applies(d_unit, unit, unit if d_sum is None else d_sum):
        return native.norm_backward(d_unit, unit, scale, d_sum)
    width = unit.shape[-1]
    root = torch.full((unit.numel() // width, 1), width**0.5, dtype=unit.dtype)
    d_x: Tensor
    d_x, _ = torch.ops.aten._weight_norm_interface_backward(
        d_unit.reshape(-1, width), unit.view(-1, width), scale.view(-1, 1) * width**0.5, root, 0
    )
    return d_x.view(unit.shape) if d_sum is None else d_x.view(unit.shape).add_(d_sum)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, gain_D: Tensor, eps: float) -> Tensor:
        unit_BTD, scale_BT1 = normalise(x_BTD, eps)
        ctx.save_for_backward(unit_BTD, scale_BT1, gain_D)
        return unit_BTD * gain_D

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_BTD: Tensor) -> tuple[Tensor | None, ...]:
        unit_BTD, scale_BT1, gain_D = ctx.saved_tensors
        d_gain_D = (d_out_BTD * unit_BTD).flatten(0, -2).sum(0)
        return normalise_backward(d_out_BTD * gain_D, unit_BTD, scale_BT1), d_gain_D, None


def norm(x_BTD: Tensor, gain_D: Tensor, eps: float) -> Tensor:
    """gain · x / √(mean(x²) + eps) along the last axis: RMSNorm (Zhang & Sennrich 2019)."""
    return _Norm.apply(x_BTD, gain_D, eps)  # type: ignore[no-any-return,no-untyped-call]


# --- feed-forward --------------------------------------------------------------------------


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up (Shazeer 2020)."""
    if native.applies(gate, up):
        return native.swiglu(gate, up)
    return F.silu(gate).mul_(up)


def gated_backward(d_inner: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up; `d_inner` is used up."""
    if native.applies(d_inner, gate, up):
        return native.swiglu_backward(d_inner, gate, up)
    d_up = F.silu(gate).mul_(d_inner)
    d_gate = d_inner.mul_(up)
    torch.ops.aten.silu_backward.grad_input(d_gate, gate, grad_input=d_gate)
    return d_gate, d_up


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BTD: Tensor,
        gain_D: Tensor,
        gate_FD: Tensor,
        up_FD: Tensor,
        down_DF: Tensor,
        eps: float,
    ) -> Tensor:
        unit_BTD, scale_BT1 = normalise(x_BTD, eps)
        # The gain belongs to the columns of the weights as well as to those of x: here it takes
        # a pass over the smaller of the two, and its own gradient costs no pass over x either.
        gate_BTF = product(unit_BTD, gate_FD * gain_D)
        up_BTF = product(unit_BTD, up_FD * gain_D)
        inner_BTF = gated(gate_BTF, up_BTF)
        ctx.save_for_backward(
            unit_BTD, scale_BT1, gain_D, gate_FD, up_FD, down_DF, gate_BTF, up_BTF, inner_BTF
        )
        return product(inner_BTF, down_DF, x_BTD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_BTD: Tensor) -> tuple[Tensor | None, ...]:
        unit_BTD, scale_BT1, gain_D, gate_FD, up_FD, down_DF, *inner = ctx.saved_tensors
        gate_BTF, up_BTF, inner_BTF = inner
        d_down_DF = weight_gradient(d_out_BTD, inner_BTF)
        d_inner_BTF = product(d_out_BTD, down_DF.t())
        d_gate_BTF, d_up_BTF = gated_backward(d_inner_BTF, gate_BTF, up_BTF)
        through_gate = product(d_gate_BTF, (gate_FD * gain_D).t())
        d_unit_BTD = product(d_up_BTF, (up_FD * gain_D).t(), through_gate)
        d_x_BTD = normalise_backward(d_unit_BTD, unit_BTD, scale_BT1, d_out_BTD)
        d_gate_FD, d_up_FD = (weight_gradient(d, unit_BTD) for d in (d_gate_BTF, d_up_BTF))
        d_gain_D = (d_gate_FD * gate_FD + d_up_FD * up_FD).sum(0)
        return d_x_BTD, d_gain_D, d_gate_FD.mul_(gain_D), d_up_FD.mul_(gain_D), d_down_DF, None


class _NativeFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BTD: Tensor,
        gain_D: Tensor,
        gate_FD: Tensor,
        up_FD: Tensor,
        down_DF: Tensor,
        eps: float,
    ) -> Tensor:
        weights = gate_FD * gain_D, up_FD * gain_D, down_DF
        out_BTD, *kept = native.feed_forward(x_BTD, *weights, eps)
        ctx.save_for_backward(x_BTD, gain_D, gate_FD, up_FD, down_DF, *kept)
        return out_BTD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out_BTD: Tensor) -> tuple[Tensor | None, ...]:
        x_BTD, gain_D, gate_FD, up_FD, down_DF, *kept = ctx.saved_tensors
        weights = gate_FD * gain_D, up_FD * gain_D, down_DF
        d_x_BTD, d_gate_FD, d_up_FD, d_down_DF = native.feed_forward_backward(
            d_out_BTD.contiguous(), x_BTD, tuple(kept), weights
        )
        d_gain_D = (d_gate_FD * gate_FD + d_up_FD * up_FD).sum(0)
        return d_x_BTD, d_gain_D, d_gate_FD.mul_(gain_D), d_up_FD.mul_(gain_D), d_down_DF, None


def feed_forward(
    x_BTD: Tensor, gain_D: Tensor, gate_FD: Tensor, up_FD: Tensor, down_DF: Tensor, eps: float
) -> Tensor:
    """x + (silu(h · gateᵀ) · (h · upᵀ)) · downᵀ with h = gain · x / √(mean(x²) + eps).

    SwiGLU (Shazeer 2020) after RMSNorm (Zhang & Sennrich 2019), added to the stream.
    """
    native_form = native.feed_forward_applies(x_BTD, gate_FD, up_FD, down_DF)
    form = _NativeFeedForward if native_form else _FeedForward
    return form.apply(  # type: ignore[no-any-return,no-untyped-call]
        x_BTD, gain_D, gate_FD, up_FD, down_DF, eps
    )


# --- output layer and loss -----------------------------------------------------------------


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        weight_VD: Tensor,
        label_N: Tensor,
        ignored: int,
        chunk_rows: int,
        with_gradient: bool,
    ) -> Tensor:
        if native.output_loss_applies(x_ND, weight_VD, label_N):
            loss, *gradients = native.output_loss(
                x_ND, weight_VD, label_N, ignored, with_gradient=with_gradient
            )
            ctx.save_for_backward(*gradients)
            return loss
        loss = x_ND.new_zeros(())
        d_x_ND = torch.empty_like(x_ND) if with_gradient else None
        d_weight_VD = torch.empty_like(weight_VD) if with_gradient else None
        for start in range(0, len(x_ND), chunk_rows):
            rows = slice(start, start + chunk_rows)
            d_logits_NV = product(x_ND[rows], weight_VD)
            loss += cross_entropy(d_logits_NV, label_N[rows], ignored)
            if d_x_ND is None or d_weight_VD is None:
                continue
            d_x_ND[rows] = product(d_logits_NV, weight_VD.t())
            if start == 0:
                torch.mm(d_logits_NV.t(), x_ND[rows], out=d_weight_VD)
            else:
                d_weight_VD.addmm_(d_logits_NV.t(), x_ND[rows])
            del d_logits_NV  # before the next chunk's is made: two would be held at once
        ctx.save_for_backward(d_x_ND, d_weight_VD)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        d_x_ND, d_weight_VD = ctx.saved_tensors
        return d_x_ND * d_loss, d_weight_VD * d_loss, None, None, None, None


def cross_entropy(logits_NV: Tensor, label_N: Tensor, ignored: int) -> Tensor:
    """Summed −log softmax at the labels that are not `ignored`; logits become the gradient of
    that sum, in place."""
    if native.applies(logits_NV, whole_registers=False) and label_N.is_contiguous():
        return native.cross_entropy(logits_NV, label_N, ignored)
    counted_N1 = (label_N != ignored)[:, None]
    at_N1 = label_N[:, None].clamp_min(0)
    loss = softmax_and_loss(logits_NV, at_N1).where(counted_N1, 0).sum()
    # d loss / d logits = share − one at the label, in the rows that count.
    logits_NV.scatter_add_(1, at_N1, logits_NV.new_full(at_N1.shape, -1.0))
    if not counted_N1.all():
        logits_NV *= counted_N1
    return loss


def softmax_and_loss(logits_NV: Tensor, at_N1: Tensor) -> Tensor:
    """Make logits their softmax in place; −log of it at each row's label, (N, 1).

    The loss is taken from the largest share, which is at least 1/V, since that at the label
    may round to zero: log Σ exp(z) = max z − log(max share).
    """
    at_label = logits_NV.gather(1, at_N1)
    largest = logits_NV.amax(1, keepdim=True)
    torch.softmax(logits_NV, 1, out=logits_NV)
    return largest - logits_NV.amax(1, keepdim=True).log_() - at_label


def linear_cross_entropy(
    x_ND: Tensor, weight_VD: Tensor, label_N: Tensor, *, ignored: int, chunk_rows: int
) -> Tensor:
    """Summed cross-entropy in nats of x · weightᵀ, over rows whose label is not `ignored`.

    Gradients are made along with the loss, chunk by chunk, so that no more than `chunk_rows`
    rows of logits are ever held and none is computed twice.
    """
    with_gradient = torch.is_grad_enabled() and (x_ND.requires_grad or weight_VD.requires_grad)
    return _LinearCrossEntropy.apply(  # type: ignore[no-any-return,no-untyped-call]
        x_ND, weight_VD, label_N, ignored, chunk_rows, with_gradient
    )
