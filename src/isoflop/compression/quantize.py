"""Weights rounded to 8 bits a row or 4 bits a group, and which weights of a decoder are.

Not for the layout in a file (`models/packed_weights.py`) nor for rounding that looks at the layer's
inputs (`gptq.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from isoflop.models.decoder import Decoder
from isoflop.models.moe import Experts
from isoflop.models.packed_weights import Packed, pack_int4

LARGEST_INT8, LARGEST_INT4 = 127, 15
EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight")
"""Kept at 8 bits where the rest has 4: every token's logits hang on them."""


@dataclass(frozen=True)
class Grid:
    """The values that a group of weights may take: code · scale + offset."""

    scale: Tensor
    """(…, 1), in the format it is stored in."""
    offset: Tensor | None
    """(…, 1); None where the codes are signed."""

    def codes(self, weight: Tensor) -> Tensor:
        """The nearest codes, as floats: (…, columns) → (…, columns)."""
        scale = self.scale.to(weight.dtype)
        if self.offset is None:
            return (weight / scale).round().clamp(-LARGEST_INT8, LARGEST_INT8)
        return ((weight - self.offset.to(weight.dtype)) / scale).round().clamp(0, LARGEST_INT4)

    def values(self, codes: Tensor) -> Tensor:
        """The weights that codes stand for."""
        found = codes * self.scale.to(codes.dtype)
        return found if self.offset is None else found + self.offset.to(codes.dtype)


def grid_of(weight: Tensor, bits: int) -> Grid:
    """The grid that spans each row of `weight`, (…, columns) → (…, 1): at 8 bits symmetric about 0
    with a float32 scale; at 4 bits from the least to the largest weight, with float16 scale and
    offset."""
    if bits == 8:
        largest = weight.abs().amax(-1, keepdim=True).float()
        return Grid(torch.where(largest > 0, largest / LARGEST_INT8, 1.0), None)
    low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
    smallest = torch.finfo(torch.float16).smallest_normal  # a scale of 0 would divide by it
    scale = ((high - low) / LARGEST_INT4).clamp_min(smallest).half()
    return Grid(scale, low.half())


def quantize(weight: Tensor, bits: int, group: int) -> Packed:
    """Round every weight to the nearest value of its grid.

    Args:
        weight: (…, columns); with 4 bits the columns are a multiple of `group`.
        bits: 8 (a grid per row) or 4 (a grid per group).
        group: Columns of a group; even.

    Raises:
        ValueError: The columns do not part into groups.
    """
    if bits == 8:
        grid = grid_of(weight, 8)
        return Packed(grid.codes(weight).to(torch.int8), grid.scale)
    if weight.shape[-1] % group or group % 2:
        raise ValueError(f"{weight.shape[-1]} columns do not part into even groups of {group}")
    grouped = torch.unflatten(weight, -1, (-1, group))
    grid = grid_of(grouped, 4)
    if grid.offset is None:
        raise ValueError("a grid of 4 bits has an offset")
    codes = grid.codes(grouped).flatten(-2)
    return pack_int4(codes, grid.scale.squeeze(-1), grid.offset.squeeze(-1))


# --- which weights -------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """How the weights of a decoder are stored."""

    bits: Mapping[str, int]
    """Parameter → 8 or 4; all others stay float32."""
    group: int


def plan_bits(decoder: Decoder, bits: int, group: int) -> Plan:
    """Which parameters are stored in how many bits: all matrices of the layers, and the embedding
    and output layer at 8 bits always. So is a matrix whose inputs do not part into groups. Norms,
    biases, routers and learned positions stay as they are."""
    found: dict[str, int] = {}
    for name, parameter in matrices(decoder):
        whole = parameter.shape[-1] % group == 0
        found[name] = 4 if bits == 4 and whole and name not in EMBEDDINGS else 8
    return Plan(found, group)


def matrices(decoder: Decoder) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that are worth packing, by name; a tied output layer once, as embedding."""
    own = dict(decoder.named_parameters())  # names a tied matrix once
    for path, module in decoder.named_modules():
        if isinstance(module, nn.Linear) or path == "embed_tokens":
            names = [f"{path}.weight"]
        elif isinstance(module, Experts):
            names = [f"{path}.{part}_proj" for part in ("gate", "up", "down")]
        else:
            continue
        yield from ((name, own[name]) for name in names if name in own)


def quantize_decoder(decoder: Decoder, plan: Plan) -> dict[str, Packed]:
    """Every parameter of the plan, rounded to nearest."""
    return {
        name: quantize(parameter.detach(), plan.bits[name], plan.group)
        for name, parameter in matrices(decoder)
    }


def stored_bytes(decoder: Decoder, plan: Plan) -> int:
    """Bytes of all tensors of a decoder stored by the plan (without the file's short header)."""
    total = 0
    for name, parameter in decoder.named_parameters():
        count, columns = parameter.numel(), parameter.shape[-1]
        bits = plan.bits.get(name)
        if bits is None:
            total += 4 * count
        elif bits == 8:
            total += count + 4 * (count // columns)
        else:
            total += count // 2 + 4 * (count // plan.group)
    return total
