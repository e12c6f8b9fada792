"""What a CUDA device measures: matrix products by number format; not the CPU (`hardware.py`)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from isoflop.core.artifact import read_json, write_json
from isoflop.core.errors import IsoflopError
from isoflop.core.hardware import DTYPES, cache_path, compare_dtypes, measure_product

if TYPE_CHECKING:
    import torch

LARGEST = 8192
"""Width of the largest product tried."""


@dataclass(frozen=True)
class AcceleratorCalibration:
    """Measured peaks of one device."""

    gflops: Mapping[str, float]
    """dtype → GFLOP/s of a large matrix product."""
    best_dtype: str
    reason: str
    """Why this one, in a sentence."""
    measured_at: str
    """UTC, ISO 8601."""
    device: Mapping[str, Any]


def calibrate_accelerator(device: torch.device) -> AcceleratorCalibration:
    """Measure a CUDA device, or read what was measured before; about a second."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    here = {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": [properties.major, properties.minor],
        "torch": torch.__version__,
    }
    path = cache_path(here)
    with suppress(IsoflopError, TypeError):
        return AcceleratorCalibration(**read_json(path))
    dtypes = [d for d in DTYPES if d != "bfloat16" or torch.cuda.is_bf16_supported()]
    gflops = {
        dtype: measure_product(dtype, 0.4, LARGEST, device, lambda: torch.cuda.synchronize(device))
        for dtype in dtypes
    }
    best, reason = compare_dtypes(gflops["float32"], gflops.get("bfloat16", 0.0))
    measured = AcceleratorCalibration(
        gflops=gflops,
        best_dtype=best,
        reason=reason,
        measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        device=here,
    )
    with suppress(OSError):  # a cache only: without it the next call measures again
        write_json(path, asdict(measured))
    return measured
