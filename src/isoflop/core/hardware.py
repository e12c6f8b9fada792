"""What this machine is, and what it measures: matrix products and copies; not a table of chips.

Torch is imported only when something is measured.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.core.artifact import sha256_json, write_json
from isoflop.core.console import SILENT, Progress

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16")
"""Number formats measured, the safest first."""

WORTHWHILE = 1.3
"""A narrower format must be this much faster than float32 to be worth its rounding."""


# --- what it is ----------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """The machine and the versions that decide speed and bits; no torch import, no host name."""
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": _version("torch"),
        "numpy": _version("numpy"),
    }


def usable_cores() -> int:
    """Logical cores this process may use: its affinity, capped by the container's quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def memory_bytes() -> int | None:
    """Bytes of memory this process may use, capped by the container's limit; None if unknown."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    with suppress(OSError, ValueError):
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine() or "unknown"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


# --- what it measures ----------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """Measured peaks of a machine."""

    gflops: dict[str, dict[int, float]]
    """dtype → threads → GFLOP/s of a large matrix product."""
    gigabytes_per_second: float
    """Copy bandwidth of memory, bytes read and bytes written both counted."""
    best_dtype: str
    best_threads: int
    reason: str
    """Why these two, in a sentence."""
    seconds: float
    """How long the measurement took."""
    measured_at: str
    """UTC, ISO 8601."""
    machine: dict[str, Any]

    def peak(self, dtype: str | None = None, threads: int | None = None) -> float:
        """GFLOP/s of a dtype (the best one) with some threads (the fastest number measured).

        Raises:
            KeyError: Nothing was measured for this dtype or number of threads.
        """
        measured = self.gflops[dtype or self.best_dtype]
        return max(measured.values()) if threads is None else measured[threads]


def measure_peak(dtype: str, threads: int, seconds: float = 0.4, largest: int = 2048) -> float:
    """GFLOP/s of the largest square matrix product that fits the time, with some threads.

    The size grows from 128 only while the next one is foreseen to fit, so that a format without
    instructions, a hundred times slower, costs no more time than a fast one. 2 n³ operations are
    counted for a product of two n × n matrices; the fastest repetition counts.

    Args:
        dtype: A torch dtype by name.
        seconds: Roughly the time it may take.
        largest: The largest n.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return measure_product(dtype, seconds, largest, torch.device("cpu"), lambda: None)
    finally:
        torch.set_num_threads(before)


def measure_product(
    dtype: str, seconds: float, largest: int, device: torch.device, wait: Callable[[], None]
) -> float:
    """`measure_peak` on any device.

    Args:
        wait: Returns once the device has done what it was given.
    """
    import torch

    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)

    def of_size(n: int) -> Callable[[], object]:
        a, b = (torch.randn(n, n, generator=generator).to(device, kind) for _ in range(2))
        out: torch.Tensor = torch.empty(n, n, dtype=kind, device=device)

        def work() -> None:
            torch.mm(a, b, out=out)
            wait()

        return work

    return _grow_and_repeat(of_size, seconds, largest)


def _grow_and_repeat(
    of_size: Callable[[int], Callable[[], object]],
    seconds: float,
    largest: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """GFLOP/s at the largest size of which one product is foreseen to fit `seconds`."""
    began = clock()
    n = 128
    work = of_size(n)
    work()  # the first product of a format also sets up its kernels
    while True:
        fastest = _time(work, clock)
        # Again where there is time: a product interrupted by other work must not end the growth.
        for _ in range(2):
            if clock() - began + 9 * fastest < seconds:
                fastest = min(fastest, _time(work, clock))
        if n * 2 > largest or clock() - began + 8 * fastest > seconds:
            break
        n *= 2
        work = of_size(n)
    while clock() - began + fastest < seconds:
        fastest = min(fastest, _time(work, clock))
    return 2 * n**3 / fastest / 1e9


def measure_bandwidth(threads: int, seconds: float = 0.5) -> float:
    """GB/s of copying a block far larger than the caches; read and written bytes both count."""
    import torch

    block = 256 * 2**20
    memory = memory_bytes()
    if memory is not None:
        block = min(block, memory // 16)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        source = torch.ones(block // 4, dtype=torch.float32)
        target = torch.empty_like(source)
        began = time.perf_counter()
        fastest = math.inf
        target.copy_(source)  # the first copy also touches the pages
        while time.perf_counter() - began < seconds or fastest == math.inf:
            fastest = min(fastest, _time(lambda: target.copy_(source), time.perf_counter))
    finally:
        torch.set_num_threads(before)
    return 2 * source.nbytes / fastest / 1e9


def _time(work: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    work()
    return max(clock() - began, 1e-9)


def calibrate(
    path: Path | None = None, *, refresh: bool = False, progress: Progress = SILENT
) -> Calibration:
    """Measure this machine, or read what was measured before; at most ten seconds.

    Args:
        path: Where the measurement is kept; the user's cache when None (see `cache_path`).
        refresh: Measure again even if it is kept already.
    """
    here = machine()
    path = path or cache_path(here)
    if not refresh and (known := read_calibration(path)) is not None:
        return known
    threads = thread_counts(here["cores"])
    each = min(0.4, 7.0 / (len(DTYPES) * len(threads)))
    began = time.perf_counter()
    progress.start("measuring this machine", len(DTYPES) * len(threads) + 1, "measurements")
    gflops: dict[str, dict[int, float]] = {dtype: {} for dtype in DTYPES}
    for i, (dtype, count) in enumerate((d, t) for d in DTYPES for t in threads):
        gflops[dtype][count] = measure_peak(dtype, count, each)
        progress.advance(i + 1, f"{dtype}, {count} threads")
    bandwidth = measure_bandwidth(max(threads))
    best_dtype, best_threads, reason = choose(gflops)
    calibration = Calibration(
        gflops=gflops,
        gigabytes_per_second=bandwidth,
        best_dtype=best_dtype,
        best_threads=best_threads,
        reason=reason,
        seconds=time.perf_counter() - began,
        measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        machine=here,
    )
    progress.finish()
    with suppress(OSError):  # a cache only: without it the next call measures again
        write_json(path, asdict(calibration))
    return calibration


def choose(gflops: Mapping[str, Mapping[int, float]]) -> tuple[str, int, str]:
    """The dtype and thread count to train with, and why, from GFLOP/s per dtype and threads.

    float32 unless bfloat16 is `WORTHWHILE` times faster; float16 never, since its range wants a
    gradient scaler. The fewest threads within 5 % of the fastest: the rest are noise.
    """
    plain = max(gflops["float32"].values())
    narrow = max(gflops.get("bfloat16", {1: 0.0}).values())
    dtype, reason = compare_dtypes(plain, narrow)
    enough = 0.95 * max(gflops[dtype].values())
    threads = min(count for count, measured in gflops[dtype].items() if measured >= enough)
    counts = f"{threads} thread{'s' if threads > 1 else ''}"
    return dtype, threads, f"{reason}; {counts} measured fastest for {dtype}"


def compare_dtypes(plain: float, narrow: float) -> tuple[str, str]:
    """float32 or bfloat16, and why, from the speeds of their products."""
    ratio = narrow / plain
    dtype = "bfloat16" if ratio >= WORTHWHILE else "float32"
    said = f"{ratio:.1f}" if ratio >= 0.1 else f"{ratio:.2g}"
    verdict = "worth" if dtype == "bfloat16" else "not worth"
    return dtype, (
        f"bfloat16 multiplies matrices at {said} times the speed of float32, {verdict} its "
        f"rounding (the line is {WORTHWHILE})"
    )


def thread_counts(cores: int) -> list[int]:
    """The thread counts worth measuring: all up to 4 cores, then powers of two and all cores."""
    if cores <= 4:
        return list(range(1, cores + 1))
    return sorted({*(2**k for k in range(cores.bit_length()) if 2**k <= cores), cores})


# --- what was measured before --------------------------------------------------------------


def cache_path(of_machine: Mapping[str, Any]) -> Path:
    """Where the calibration of a machine with these versions is kept."""
    home = os.environ.get("ISOFLOP_CACHE") or Path.home() / ".cache" / "isoflop"
    return Path(home) / f"calibration-{sha256_json(of_machine)[:12]}.json"


def read_calibration(path: Path) -> Calibration | None:
    """A calibration written by `calibrate`, or None if there is none that can be read."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        gflops = {d: {int(t): float(x) for t, x in by.items()} for d, by in raw["gflops"].items()}
        return Calibration(**{**raw, "gflops": gflops})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Installed versions of packages, None where one is not installed; imports none of them."""
    return {"python": sys.version.split()[0], **{name: _version(name) for name in packages}}
