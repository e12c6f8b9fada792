"""On which device and in which number format a model is trained; weights are float32 in all.

Not for the scale of float16's gradients (`loss_scale.py`).
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

from isoflop.core.accelerator import calibrate_accelerator
from isoflop.core.errors import RecipeError
from isoflop.core.hardware import calibrate
from isoflop.core.process import peak_memory_bytes

DtypeChoice = Literal["auto", "float32", "bfloat16", "float16"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
T = TypeVar("T")


@dataclass(frozen=True)
class Precision:
    """Where products are computed, and in which format."""

    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a constant, not a mutable default
    dtype: torch.dtype = torch.float32
    """Of the matrix products; weights, sums, norms and the stream stay float32."""
    reason: str = "asked for"
    """Why these two."""

    @property
    def dtype_name(self) -> str:
        """`float32`, `bfloat16` or `float16`."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def scales_loss(self) -> bool:
        """Whether gradients need a loss scale: in float16 alone, whose range is narrow."""
        return self.dtype == torch.float16

    def autocast(self) -> AbstractContextManager[None]:
        """In it, products are taken in `dtype`; float32 is what there is without it."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def moved(self, batch: T) -> T:
        """The batch with its tensors on the device: a dataclass of tensors and other values."""
        if self.device.type == "cpu" or not dataclasses.is_dataclass(batch):
            return batch
        tensors = {
            field.name: value.to(self.device)
            for field in dataclasses.fields(batch)
            if isinstance(value := getattr(batch, field.name), Tensor)
        }
        return replace(batch, **tensors)  # type: ignore[type-var]

    def peak_flops(self, threads: int) -> float | None:
        """FLOP/s of large products as measured; None where these threads were not."""
        if self.device.type != "cpu":
            return calibrate_accelerator(self.device).gflops[self.dtype_name] * 1e9
        gflops = calibrate().gflops.get(self.dtype_name, {}).get(threads)
        return None if gflops is None else gflops * 1e9

    def peak_memory_bytes(self) -> int:
        """Most memory held so far: by the process, or by its tensors on another device."""
        if self.device.type == "cpu":
            return peak_memory_bytes()
        return torch.cuda.max_memory_allocated(self.device)


def choose_precision(dtype: DtypeChoice, device: DeviceChoice) -> Precision:
    """Settle what the recipe leaves open, by what is there and how fast it measures.

    Raises:
        RecipeError: The device is not there, or does not know the format.
    """
    found = torch.cuda.is_available()
    if device == "cuda" and not found:
        raise RecipeError(
            "train.device = cuda, and torch finds no CUDA device",
            where="train recipe",
            fix="Take train.device = auto, or install a torch that is built for your GPU",
        )
    place = torch.device("cpu")
    if found and device != "cpu":
        place = torch.device("cuda", torch.cuda.current_device())
    if dtype != "auto":
        if place.type == "cuda" and dtype == "bfloat16" and not torch.cuda.is_bf16_supported():
            raise RecipeError(
                "train.dtype = bfloat16, which this GPU does not compute",
                where="train recipe",
                fix="Take float16 or float32",
            )
        return Precision(place, getattr(torch, dtype))
    measured = calibrate() if place.type == "cpu" else calibrate_accelerator(place)
    return Precision(place, getattr(torch, measured.best_dtype), measured.reason)
