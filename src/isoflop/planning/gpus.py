"""What a GPU can do, from its vendor's data sheet: arithmetic, memory, links, power, list price.

Not for what training reaches on it (`timing`), nor for layouts. A GPU that is not in the table is
an error: a guessed peak makes every number after it wrong.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from isoflop.core.errors import RecipeError
from isoflop.core.hardware import Calibration

GIB = 2**30
PRICES_AS_OF = "May 2026"
PCIE4, PCIE5 = 25e9, 50e9
"""Bytes per second and direction that a x16 slot carries in practice, of 32 and 64 nominal."""


@dataclass(frozen=True)
class Gpu:
    """One kind of device, as it comes in a node."""

    name: str
    """The name that `--gpu` takes."""
    full_name: str
    flops: float
    """Peak dense FLOP/s of matrix products in `dtype`, without sparsity."""
    dtype: str
    """bfloat16; float16 where the chip has no bfloat16 units; what was measured for a CPU."""
    matmul_share: float
    """Share of the peak that the best matrix product reaches (`matmul_source`)."""
    matmul_source: str
    step_share: float
    """Share of that best product's speed that the matrix products of a training step reach: less
    fortunate shapes, clocks throttled by power. Fitted for A100 and Hopper to the runs of the set
    `speed` in `benchmarks/published_runs.json`, assumed for the rest."""
    memory_bytes: int
    """What the driver reports."""
    bandwidth: float
    """Bytes per second of device memory."""
    link: float
    """Bytes per second and direction between two devices of a node."""
    network: float
    """Bytes per second and direction of the network card that each device has."""
    per_node: int
    """Devices in a node."""
    watts: float
    """Board power limit; 0 if unknown."""
    price: float | None
    """USD per device and hour, on demand (`PRICES_AS_OF`); None where no list price was found."""
    price_source: str
    source: str

    @property
    def number_bytes(self) -> int:
        """Bytes of a number in `dtype`."""
        return 4 if self.dtype == "float32" else 2

    @property
    def measured(self) -> bool:
        """Whether its matrix products were measured, by others or here."""
        return not self.matmul_source.startswith("assumed")

    @property
    def matmul_flops(self) -> float:
        """FLOP/s that the matrix products of a training step reach."""
        return self.flops * self.matmul_share * self.step_share


_MEASURED = "measured: Bekman, ML Engineering, maximum achievable matmul FLOPS, 2025"
_ASSUMED = "assumed 75 %: nothing published was found for this chip"
_STEP_SHARE = {"a100": 0.81, "h100": 0.82, "h200": 0.82}
_OTHER_STEP_SHARE = 0.80
CPU_STEP_SHARE = 0.55
"""So that a step of about a million parameters reaches the 40 to 45 % of the measured peak that
`docs/benchmarks.md` has."""
_MODAL = "Modal, on demand"
_NVIDIA = "NVIDIA data sheet"


def _gpu(
    name: str,
    full_name: str,
    tflops: float,
    gib: float,
    bandwidth: float,
    link: float,
    network: float,
    watts: float,
    *,
    matmul_share: float | None = None,
    price: float | None = None,
    price_source: str = _MODAL,
    dtype: str = "bfloat16",
    per_node: int = 8,
    source: str = _NVIDIA,
) -> Gpu:
    return Gpu(
        name=name,
        full_name=full_name,
        flops=tflops * 1e12,
        dtype=dtype,
        matmul_share=0.75 if matmul_share is None else matmul_share,
        matmul_source=_ASSUMED if matmul_share is None else _MEASURED,
        step_share=_STEP_SHARE.get(name.partition("-")[0], _OTHER_STEP_SHARE),
        memory_bytes=int(gib * GIB),
        bandwidth=bandwidth * 1e9,
        link=link if link > 1e6 else link * 1e9,
        network=network * 1e9 / 8,
        per_node=per_node,
        watts=watts,
        price=price,
        price_source=price_source if price is not None else "",
        source=source,
    )


# name, TFLOP/s, GiB, memory GB/s, link GB/s per direction (or bytes/s), network Gbit/s, W
_TABLE = (
    _gpu("v100-32gb", "V100 SXM2 32 GB", 125, 32, 900, 150, 100, 300, dtype="float16"),
    _gpu(
        *("t4", "T4 16 GB", 65, 15, 320, PCIE4 / 2, 25, 70),
        price=0.59, dtype="float16", per_node=4,
    ),
    _gpu(
        *("a100-40gb", "A100 SXM 40 GB", 312, 40, 1555, 300, 200, 400),
        matmul_share=0.869, price=1.48, price_source="Lambda, on demand",
    ),
    _gpu(
        *("a100-80gb", "A100 SXM 80 GB", 312, 80, 2039, 300, 200, 400),
        matmul_share=0.869, price=2.50,
    ),
    _gpu(
        *("a100-80gb-pcie", "A100 PCIe 80 GB", 312, 80, 1935, PCIE4, 200, 300),
        matmul_share=0.811,
    ),
    _gpu(
        *("a10g", "A10G 24 GB", 70, 22.5, 600, PCIE4 / 2, 25, 300),
        price=0.86, price_source="Lambda, on demand (A10)", per_node=4,
    ),
    _gpu(
        *("rtx-3090", "GeForce RTX 3090 24 GB", 71, 24, 936, PCIE4 / 2, 10, 350), per_node=4,
        source="NVIDIA GA102 white paper (FP32 accumulation)",
    ),
    _gpu(
        *("rtx-4090", "GeForce RTX 4090 24 GB", 165.2, 24, 1008, PCIE4 / 2, 10, 450), per_node=4,
        source="NVIDIA Ada white paper (FP32 accumulation)",
    ),
    _gpu("l4", "L4 24 GB", 121, 22.5, 300, PCIE4, 25, 72, price=0.80),
    _gpu("l40s", "L40S 48 GB", 362, 45, 864, PCIE4, 100, 350, price=1.95),
    _gpu(
        *("h100-80gb", "H100 SXM 80 GB", 989, 79.6, 3350, 450, 400, 700),
        matmul_share=0.803, price=3.95,
    ),
    _gpu(
        *("h100-pcie", "H100 PCIe 80 GB", 756, 79.6, 2000, PCIE5, 200, 350),
        price=2.86, price_source="Lambda, on demand",
    ),
    _gpu(
        *("h200", "H200 SXM 141 GB", 989, 140, 4800, 450, 400, 700),
        matmul_share=0.803,
    ),
    _gpu("b200", "B200 SXM 180 GB", 2250, 178, 7700, 900, 400, 1000, price=6.25),
    _gpu(
        *("mi250x", "Instinct MI250X, one of its two dies", 191.5, 64, 1638, 50, 100, 280),
        matmul_share=0.767, source="AMD data sheet",
    ),
    _gpu(
        *("mi300x", "Instinct MI300X 192 GB", 1307, 192, 5300, 448 / 2, 400, 750),
        matmul_share=0.514, price=1.85, price_source="Vultr, on demand",
        source="AMD data sheet",
    ),
)  # fmt: skip

GPUS = {gpu.name: gpu for gpu in _TABLE}
ALIASES = {
    "a100": "a100-80gb",
    "h100": "h100-80gb",
    "h100-sxm": "h100-80gb",
    "h200-141gb": "h200",
    "v100": "v100-32gb",
    "4090": "rtx-4090",
    "3090": "rtx-3090",
}


def get_gpu(name: str) -> Gpu:
    """The GPU of that name; capitals, blanks and underscores do not matter.

    Raises:
        RecipeError: The table has no such GPU.
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    key = ALIASES.get(key, key)
    if key in GPUS:
        return GPUS[key]
    near = difflib.get_close_matches(key, [*GPUS, *ALIASES], n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise RecipeError(
        f"there is no data sheet for a GPU called {name!r}",
        where="gpu",
        fix=f"{hint}Known are {', '.join(GPUS)}",
    )


def this_machine(calibration: Calibration, memory_bytes: int) -> Gpu:
    """This machine's CPU as one device, by what was measured on it.

    float32, because that is what training uses here. The share is 1: the peak is itself a
    measured matrix product.
    """
    dtype = "float32"
    return Gpu(
        name="this-machine",
        full_name=f"{calibration.machine['cpu']}, {calibration.machine['cores']} cores",
        flops=calibration.peak(dtype) * 1e9,
        dtype=dtype,
        matmul_share=1.0,
        matmul_source=f"measured here, {calibration.measured_at}",
        step_share=CPU_STEP_SHARE,
        memory_bytes=memory_bytes,
        bandwidth=calibration.gigabytes_per_second * 1e9,
        link=calibration.gigabytes_per_second * 1e9,
        network=1.25e9,
        per_node=1,
        watts=0.0,
        price=None,
        price_source="",
        source="isoflop doctor --calibrate",
    )
