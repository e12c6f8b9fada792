"""Rounding that makes up for itself: GPTQ (Frantar et al. 2022), matrix by matrix and by layer.

Not for plain rounding (`quantize.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isoflop.compression.quantize import Plan, grid_of, matrices, quantize
from isoflop.data.loader import Windows
from isoflop.models.decoder import Block, Decoder
from isoflop.models.packed_weights import Packed, pack_int4

DAMPING = 0.01
"""Share of the mean of the diagonal that is added to it (Frantar et al. 2022, section 3.3)."""
ROWS = 16
"""Windows per forward pass."""


def gptq(weight_RC: Tensor, moment_CC: Tensor, bits: int, group: int) -> Packed:
    """Quantise a layer's matrix so that its outputs change little in least squares.

    Columns are rounded one after the other; the error of each is spread over those not yet rounded
    in the way that changes tr(ΔW · M · ΔWᵀ) least, by the Cholesky factor of M⁻¹ (Frantar et al.
    2022, algorithm 1). The grid of a group is chosen when its first column is reached.

    Args:
        weight_RC: R outputs, C inputs.
        moment_CC: M = Σ x xᵀ over the layer's inputs.
        bits: 8 (a grid per row) or 4 (a grid per group).
        group: Columns of a group.

    Raises:
        ValueError: The columns do not part into groups.
    """
    n_columns = weight_RC.shape[1]
    width = n_columns if bits == 8 else group
    if n_columns % width:
        raise ValueError(f"{n_columns} columns do not part into groups of {width}")
    work_RC = weight_RC.double().clone()
    factor_CC = _factor(moment_CC.double())
    codes_RC = torch.zeros_like(work_RC)
    grids = []
    for start in range(0, n_columns, width):
        end = start + width
        grid = grid_of(work_RC[:, start:end], bits)
        grids.append(grid)
        errors_RG = torch.zeros_like(work_RC[:, start:end])
        for column in range(start, end):
            codes = grid.codes(work_RC[:, column : column + 1])
            codes_RC[:, column] = codes[:, 0]
            error = (work_RC[:, column] - grid.values(codes)[:, 0]) / factor_CC[column, column]
            work_RC[:, column:end] -= torch.outer(error, factor_CC[column, column:end])
            errors_RG[:, column - start] = error
        work_RC[:, end:] -= errors_RG @ factor_CC[start:end, end:]
    if bits == 8:
        return Packed(codes_RC.to(torch.int8), grids[0].scale)
    offsets = [grid.offset for grid in grids if grid.offset is not None]
    return pack_int4(codes_RC, torch.cat([grid.scale for grid in grids], 1), torch.cat(offsets, 1))


def output_error(weight_RC: Tensor, packed: Packed, moment_CC: Tensor) -> float:
    """tr(ΔW · M · ΔWᵀ): the squared change of a layer's outputs, summed over its inputs."""
    change_RC = weight_RC.double() - packed.unpack().double()
    return ((change_RC @ moment_CC.double()) * change_RC).sum().item()


def _factor(moment_CC: Tensor) -> Tensor:
    """The upper Cholesky factor of the damped moment's inverse."""
    diagonal = moment_CC.diagonal()
    # An input that is always 0 is in no product: 1 keeps the inverse finite and alone.
    damped = moment_CC + torch.diag((diagonal == 0).double() + DAMPING * diagonal.mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


# --- whole decoders ------------------------------------------------------------------------


@torch.no_grad()
def gptq_decoder(
    decoder: Decoder, plan: Plan, windows: Windows, *, sequential: bool = True
) -> dict[str, Packed]:
    """Every parameter of the plan; linear layers of the blocks by GPTQ, the rest to nearest.

    Args:
        windows: Texts that the layers' inputs are taken from.
        sequential: Take each layer's inputs from the layers before it as they are after
            quantising, so that later ones make up for earlier ones; else from the full model.
    """
    work = plain_copy(decoder)
    found: dict[str, Packed] = {}
    streams = [(work.embed(ids, 0, document), document) for ids, document in batches_of(windows)]
    own = dict(decoder.named_parameters())
    for number, block in enumerate(work.layers):
        prefix = f"layers.{number}."
        moments = input_moments(work, block, streams)
        for name, moment in moments.items():
            full = f"{prefix}{name}.weight"
            found[full] = gptq(own[full].detach(), moment, plan.bits[full], plan.group)
            if sequential:
                block.get_parameter(f"{name}.weight").copy_(found[full].unpack())
        streams = [(through(work, block, x, document), document) for x, document in streams]
    rest = {
        name: quantize(parameter.detach(), plan.bits[name], plan.group)
        for name, parameter in matrices(decoder)
        if name not in found
    }
    return {**found, **rest}


def plain_copy(decoder: Decoder) -> Decoder:
    """A copy whose layers call their modules one by one, never fused, so that hooks see inputs."""
    work = copy.deepcopy(decoder).eval()
    for module in work.modules():
        if isinstance(module, Block):
            module.fuses_attention = module.fuses_feed_forward = False
    return work


def batches_of(windows: Windows) -> list[tuple[Tensor, Tensor]]:
    """(ids, documents) of a few windows at a time."""
    n = len(windows.ids_BT)
    return [
        (
            torch.from_numpy(np.ascontiguousarray(windows.ids_BT[at : at + ROWS])),
            torch.from_numpy(np.ascontiguousarray(windows.document_BT[at : at + ROWS])),
        )
        for at in range(0, n, ROWS)
    ]


def through(decoder: Decoder, block: nn.Module, x_BTD: Tensor, document_BT: Tensor) -> Tensor:
    """The stream after one of a decoder's layers."""
    out_BTD: Tensor = block(x_BTD, decoder.rotary, decoder.view(x_BTD, document_BT, None))[0]
    return out_BTD


def input_moments(
    decoder: Decoder, block: nn.Module, streams: list[tuple[Tensor, Tensor]]
) -> Mapping[str, Tensor]:
    """Linear layer → Σ x xᵀ of its inputs, float64."""
    moments: dict[str, Tensor] = {}

    def see(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x_ND = inputs[0].flatten(0, -2).double()
        moments[name] = moments.get(name, 0) + x_ND.T @ x_ND

    hooks = [
        module.register_forward_pre_hook(partial(see, name))
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    ]
    for x_BTD, document_BT in streams:
        through(decoder, block, x_BTD, document_BT)
    for hook in hooks:
        hook.remove()
    return moments
