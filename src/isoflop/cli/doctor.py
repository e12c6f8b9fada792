"""`isoflop doctor`: the machine, its versions and its measured peaks; not for choosing a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isoflop.cli.arguments import Arguments, parse_arguments
from isoflop.core.console import format_seconds, make_progress, print_result
from isoflop.core.hardware import (
    Calibration,
    cache_path,
    calibrate,
    machine,
    read_calibration,
    versions,
)
from isoflop.version import __version__

PACKAGES = ("torch", "numpy", "scipy", "tokenizers", "tiktoken", "pyarrow", "safetensors", "tyro")
OPTIONAL = ("transformers",)


@dataclass(frozen=True)
class DoctorArguments(Arguments):
    """Show the machine, the versions and the peaks measured on it."""

    calibrate: bool = False
    """Measure the peaks now (about five seconds) and keep them."""


def run(args: list[str]) -> int:
    """Run the command; 0, or 1 if a package that Isoflop needs is not installed."""
    arguments = parse_arguments(DoctorArguments, args, "doctor")
    here = machine()
    found = versions((*PACKAGES, *OPTIONAL))
    absent = [name for name in PACKAGES if found[name] is None]
    measured = read_calibration(cache_path(here))
    if arguments.calibrate:
        measured = calibrate(refresh=True, progress=make_progress(arguments.json))
    document: dict[str, Any] = {
        "machine": here,
        "versions": {"isoflop": __version__, **found},
        "missing": absent,
        "calibration": measured,
    }
    print_result(document, _text(here, found, absent, measured), arguments.json)
    return 1 if absent else 0


def _text(
    here: dict[str, Any],
    found: dict[str, str | None],
    absent: list[str],
    measured: Calibration | None,
) -> str:
    memory = here["memory_bytes"]
    size = f"{memory / 2**30:.1f} GiB" if memory else "unknown"
    named = ", ".join(f"{name} {version or 'not installed'}" for name, version in found.items())
    lines = [
        f"machine   {here['cpu']}, {here['cores']} cores, {size} memory, {here['system']}",
        f"versions  isoflop {__version__}, {named}",
    ]
    if absent:
        lines += [f"missing   {', '.join(absent)}: install with `pip install {' '.join(absent)}`"]
    return "\n".join([*lines, "", *(_peaks(measured) if measured else _NOT_MEASURED)])


_NOT_MEASURED = ["peaks     not measured yet: run `isoflop doctor --calibrate` (about 5 s)"]


def _peaks(measured: Calibration) -> list[str]:
    counts = sorted({count for by in measured.gflops.values() for count in by})
    plural = [f"{count} thread{'s' if count > 1 else ''}" for count in counts]
    lines = [f"peaks     measured {measured.measured_at} in {format_seconds(measured.seconds)}"]
    lines += ["  GFLOP/s of matrix products" + "".join(f"{name:>12}" for name in plural)]
    for dtype, by in measured.gflops.items():
        cells = "".join(f"{by[count]:>12,.1f}" if count in by else f"{'':>12}" for count in counts)
        lines += [f"  {dtype:<26}{cells}"]
    lines += [
        f"  memory copies {measured.gigabytes_per_second:.1f} GB/s (read and written)",
        f"choice    {measured.best_dtype} with {measured.best_threads} "
        f"thread{'s' if measured.best_threads > 1 else ''}: {measured.reason}",
    ]
    return lines
