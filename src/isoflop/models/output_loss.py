"""The output layer and its cross-entropy in one, chunk by chunk, on any device and in any format.

The whole matrix of logits is never held. Not for losses that need the logits themselves.

Shape suffixes: N = B·T rows, D model width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from isoflop.models import fused

CHUNK_ROWS = 512
"""Rows of logits held at once on a CPU: at vocabularies of thousands they stay in the cache."""
DEVICE_CHUNK_ROWS = 4096
"""On other devices, where a product must be large to be fast."""


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        weight_VD: Tensor,
        label_N: Tensor,
        ignored: int,
        chunk_rows: int,
        dtype: torch.dtype,
        with_gradient: bool,
    ) -> Tensor:
        wide = torch.promote_types(dtype, torch.float32)
        with torch.autocast(x_ND.device.type, enabled=False):
            narrow_VD = weight_VD.to(dtype)
            loss = torch.zeros((), dtype=wide, device=x_ND.device)
            d_x_ND = torch.empty_like(x_ND) if with_gradient else None
            d_weight_VD = torch.zeros_like(weight_VD, dtype=wide) if with_gradient else None
            for start in range(0, len(x_ND), chunk_rows):
                rows = slice(start, start + chunk_rows)
                part_ND = x_ND[rows].to(dtype)
                counted_N1 = (label_N[rows] != ignored)[:, None]
                at_N1 = label_N[rows, None].clamp_min(0)
                share_NV = F.linear(part_ND, narrow_VD).to(wide)
                loss += fused.softmax_and_loss(share_NV, at_N1).where(counted_N1, 0).sum()
                if d_x_ND is None or d_weight_VD is None:
                    continue
                # d loss / d logits = share − one at the label, in the rows that count.
                share_NV.scatter_add_(1, at_N1, share_NV.new_full(at_N1.shape, -1.0))
                d_logits_NV = share_NV.mul_(counted_N1).to(dtype)
                d_x_ND[rows] = (d_logits_NV @ narrow_VD).to(x_ND.dtype)
                d_weight_VD += d_logits_NV.t() @ part_ND
                del share_NV, d_logits_NV  # before the next chunk's are made
        ctx.save_for_backward(d_x_ND, d_weight_VD)
        ctx.weight_dtype = weight_VD.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, ...]:
        d_x_ND, d_weight_VD = ctx.saved_tensors
        # Scaled in the wide format: the sum's gradient is of order 1 and has not underflowed.
        d_weight_VD = (d_weight_VD * d_loss).to(ctx.weight_dtype)
        return (d_x_ND * d_loss).to(d_x_ND.dtype), d_weight_VD, *[None] * 5


def linear_cross_entropy(
    x_ND: Tensor,
    weight_VD: Tensor,
    label_N: Tensor,
    *,
    ignored: int,
    chunk_rows: int | None = None,
) -> Tensor:
    """Summed cross-entropy in nats of x · weightᵀ, over rows whose label is not `ignored`.

    On a CPU outside autocast by the fused form; elsewhere products are taken in autocast's format
    (that of x without it), softmax and sums in float32 at least. Gradients are made along with the
    loss, so that no logits are computed twice.

    Args:
        x_ND: Last hidden states.
        weight_VD: The output layer.
        label_N: Row by row the right id, or `ignored`.
        chunk_rows: Rows whose logits are held at once; by the device when None.
    """
    device = x_ND.device.type
    on_cpu, narrow = device == "cpu", torch.is_autocast_enabled(device)
    rows = chunk_rows or (CHUNK_ROWS if on_cpu else DEVICE_CHUNK_ROWS)
    if on_cpu and not narrow and x_ND.dtype in (torch.float32, torch.float64):
        return fused.linear_cross_entropy(
            x_ND, weight_VD, label_N, ignored=ignored, chunk_rows=rows
        )
    dtype = torch.get_autocast_dtype(device) if narrow else x_ND.dtype
    with_gradient = torch.is_grad_enabled() and (x_ND.requires_grad or weight_VD.requires_grad)
    return _Chunked.apply(  # type: ignore[no-any-return,no-untyped-call]
        x_ND, weight_VD, label_N, ignored, rows, dtype, with_gradient
    )
