"""Weights stored in 8 or 4 bits: their layout in a file, and the way back to float32.

Not for choosing the codes (`compression/`). A matrix NAME of a packed model stands in
`model.safetensors` as three or two tensors, the last axis being the inputs of the layer:

- `NAME.codes`: int8, one code a weight; or uint8, two codes of 4 bits a byte: byte j of a group of
  G columns holds column j in its low half and column j + G/2 in its high half.
- `NAME.scale`: (…, columns / group); float32 with int8 codes, float16 with 4 bits. With int8 the
  group is the whole row.
- `NAME.offset`: with 4 bits only, float16, shaped as the scale.

A weight is code · scale + offset, computed in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isoflop.core.errors import ArtifactError

CODES, SCALE, OFFSET = ".codes", ".scale", ".offset"


@dataclass(frozen=True)
class Packed:
    """One matrix, or a stack of them, in few bits; the fields are those of the layout."""

    codes: Tensor
    scale: Tensor
    offset: Tensor | None = None
    """None where the codes are signed (8 bits)."""

    @property
    def bits(self) -> int:
        """Bits of a code: 8 or 4."""
        return 8 if self.offset is None else 4

    @property
    def n_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.numel() * part.element_size() for part in self.parts("").values())

    def parts(self, name: str) -> dict[str, Tensor]:
        """The tensors of the layout by their names in the file."""
        found = {name + CODES: self.codes, name + SCALE: self.scale}
        return found if self.offset is None else {**found, name + OFFSET: self.offset}

    def unpack(self) -> Tensor:
        """The weights as float32, (…, columns)."""
        scale = self.scale.float()
        if self.offset is None:
            return self.codes.float() * scale
        bytes_ = torch.unflatten(self.codes, -1, (scale.shape[-1], -1))
        grouped = torch.cat((bytes_ & 15, bytes_ >> 4), dim=-1).float()
        found: Tensor = (grouped * scale[..., None] + self.offset.float()[..., None]).flatten(-2)
        return found


def pack_int4(codes: Tensor, scale: Tensor, offset: Tensor) -> Packed:
    """Codes 0 to 15, (…, columns), two a byte; groups, as many as scales, are of even size."""
    grouped = torch.unflatten(codes.to(torch.uint8), -1, (scale.shape[-1], -1))
    low, high = grouped.chunk(2, dim=-1)
    return Packed((low | (high << 4)).flatten(-2), scale, offset)


# --- reading -------------------------------------------------------------------------------


class UnpackedFile:
    """An open safetensors file in which packed tensors look like the float32 they stand for.

    Raises:
        ArtifactError: The parts of a packed tensor are missing or do not fit each other.
    """

    def __init__(self, file: Any, where: str) -> None:
        self._file = file
        stored = set(file.keys())
        self._packed = {key.removesuffix(CODES) for key in stored if key.endswith(CODES)}
        parts = {name + part for name in self._packed for part in (CODES, SCALE, OFFSET)}
        self._plain = stored - parts
        for name in self._packed:
            self._check(name, stored, where)

    def keys(self) -> list[str]:
        """Names of the tensors as a model knows them."""
        return sorted(self._packed | self._plain)

    def get_slice(self, name: str) -> Any:
        """Shape and format of a tensor."""
        if name not in self._packed:
            return self._file.get_slice(name)
        return _Shape(self._shape(name))

    def get_tensor(self, name: str) -> Tensor:
        """A tensor; a packed one as float32."""
        if name in self._packed:
            return self.packed(name).unpack()
        plain: Tensor = self._file.get_tensor(name)
        return plain

    def is_packed(self, name: str) -> bool:
        """Whether a tensor is stored in few bits."""
        return name in self._packed

    def packed(self, name: str) -> Packed:
        """A packed tensor as it is stored."""
        read = self._file.get_tensor
        is_int4 = self._file.get_slice(name + CODES).get_dtype() == "U8"
        return Packed(
            read(name + CODES), read(name + SCALE), read(name + OFFSET) if is_int4 else None
        )

    def _shape(self, name: str) -> list[int]:
        codes = self._file.get_slice(name + CODES)
        *rows, columns = codes.get_shape()
        return [*rows, columns * (2 if codes.get_dtype() == "U8" else 1)]

    def _check(self, name: str, stored: set[str], where: str) -> None:
        kind = self._file.get_slice(name + CODES).get_dtype()
        wanted: Mapping[str, tuple[str, ...]] = {"I8": (SCALE,), "U8": (SCALE, OFFSET)}
        if kind not in wanted:
            raise ArtifactError(f"{name}{CODES} is {kind}, neither I8 nor U8", where=where)
        *rows, columns = self._shape(name)
        for part in wanted[kind]:
            if name + part not in stored:
                raise ArtifactError(f"the tensor {name}{part} is missing", where=where)
            shape = self._file.get_slice(name + part).get_shape()
            whole_groups = bool(shape) and shape[-1] > 0 and columns % shape[-1] == 0
            if shape[:-1] != rows or not whole_groups or (kind == "I8" and shape[-1] != 1):
                said = f"{name}{part} is {shape}, which does not fit {[*rows, columns]}"
                raise ArtifactError(said, where=where)


@dataclass(frozen=True)
class _Shape:
    shape: list[int]

    def get_shape(self) -> list[int]:
        return self.shape

    def get_dtype(self) -> str:
        return "F32"
