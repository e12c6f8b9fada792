"""Every layout of some devices with its memory and step time, and the one to take, with the reason.

Not for the formulas (`memory`, `timing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from isoflop.core.errors import RecipeError
from isoflop.core.hardware import usable_cores
from isoflop.models.accounting import count_parameters
from isoflop.models.config import DecoderConfig
from isoflop.models.memory import memory_bytes as training_bytes
from isoflop.planning.gpus import GIB, Gpu
from isoflop.planning.layout import RECOMPUTE, Layout, layouts
from isoflop.planning.memory import USABLE, DeviceMemory, device_memory
from isoflop.planning.timing import StepTime, mfu, step_time

AS_FAST = 0.02
"""Layouts within this share of the fastest count as equally fast: the simplest of them wins."""
LOCAL_MICRO_TOKENS = 8192
"""Most tokens of a pass on this machine."""
SHOWN = 8
"""Rows of the table of candidates."""
Kind = tuple[int, ...]
"""Devices along each axis, and how states are sharded."""


@dataclass(frozen=True)
class Candidate:
    """A layout with what it is predicted to take."""

    layout: Layout
    micro_steps: int
    memory: DeviceMemory
    time: StepTime
    tokens_per_second: float
    """Of all devices together."""
    mfu: float
    fits: bool

    def to_dict(self) -> dict[str, Any]:
        """A row of the plan's table of candidates."""
        return {
            "layout": self.layout.to_dict(),
            "micro_steps": self.micro_steps,
            "memory_bytes": self.memory.total,
            "step_seconds": self.time.total,
            "step_parts": self.time.to_dict(),
            "tokens_per_second": self.tokens_per_second,
            "mfu": self.mfu,
            "fits": self.fits,
        }


@dataclass(frozen=True)
class Choice:
    """The layout to take, the best of the other kinds, and the reason."""

    best: Candidate
    table: tuple[Candidate, ...]
    why: str


def rank_layouts(
    config: DecoderConfig, gpu: Gpu, devices: int, seq_len: int, batch_sequences: int
) -> Choice:
    """The fastest layout that fits the memory; of about equally fast ones, the simplest.

    Raises:
        RecipeError: None fits, with what would.
    """
    whole = replace(config, max_seq_len=seq_len)
    kinds: dict[Kind, list[tuple[Layout, DeviceMemory]]] = {}
    for layout in layouts(whole, devices, gpu.per_node, batch_sequences):
        memory = device_memory(whole, layout, seq_len, layout.micro_steps(batch_sequences))
        kinds.setdefault(_kind(layout), []).append((layout, memory))
    if not kinds:
        raise RecipeError(
            f"{batch_sequences} sequences a step cannot be divided over {devices} devices",
            where="layout",
            fix="Take fewer devices or a larger --batch-tokens",
        )
    room = USABLE * gpu.memory_bytes
    fitting: list[Candidate] = []
    too_large: list[Candidate] = []
    for known in kinds.values():
        small = [pair for pair in known if pair[1].total <= room]
        # Of a kind that does not fit, the leanest shows how far off it is.
        for pair in small or [min(known, key=lambda pair: pair[1].total)]:
            one = _timed(whole, *pair, gpu, seq_len, batch_sequences)
            (fitting if small else too_large).append(one)
    if not fitting:
        raise _too_large(whole, gpu, seq_len, too_large)
    fastest = min(c.time.total for c in fitting)
    near = [c for c in fitting if c.time.total <= fastest * (1 + AS_FAST)]
    best = min(near, key=_complexity)
    return Choice(best, _table(best, [*fitting, *too_large]), _reason(best, fitting, gpu))


def this_machine_choice(
    config: DecoderConfig, machine: Gpu, seq_len: int, batch_sequences: int
) -> Choice:
    """The one layout of a CPU: float32, one process, the largest micro-batch that fits.

    Raises:
        RecipeError: Not even one sequence fits.
    """
    most = max(1, LOCAL_MICRO_TOKENS // seq_len)
    micro = max(n for n in range(1, most + 1) if batch_sequences % n == 0)
    counted = training_bytes(config, micro_batch_tokens=micro * seq_len, seq_len=seq_len)
    memory = DeviceMemory(
        counted.parameters, counted.gradients, counted.optimizer, counted.activations, counted.loss
    )
    layout = Layout(micro_batch=micro, zero=1)
    best = _timed(config, layout, memory, machine, seq_len, batch_sequences)
    if not best.fits:
        raise _too_large(config, machine, seq_len, [best])
    return Choice(best, (best,), f"one process on {usable_cores()} cores in float32")


def _timed(
    config: DecoderConfig,
    layout: Layout,
    memory: DeviceMemory,
    gpu: Gpu,
    seq_len: int,
    batch_sequences: int,
) -> Candidate:
    steps = layout.micro_steps(batch_sequences)
    time = step_time(config, layout, gpu, seq_len, steps)
    speed = batch_sequences * seq_len / time.total
    used = mfu(config, gpu, seq_len, speed / layout.devices)
    fits = memory.total <= USABLE * gpu.memory_bytes
    return Candidate(layout, steps, memory, time, speed, used, fits)


def _complexity(candidate: Candidate) -> tuple[float, ...]:
    """What makes a layout harder to run, the worst first."""
    layout = candidate.layout
    return (
        layout.pp > 1,
        layout.tp * layout.cp,
        RECOMPUTE.index(layout.recompute),
        layout.pp,
        candidate.micro_steps,
        candidate.memory.total,
    )


def _kind(layout: Layout) -> Kind:
    return (layout.dp, layout.fsdp, layout.tp, layout.pp, layout.cp, layout.zero)


def _table(best: Candidate, known: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The best of each kind of layout, the chosen one first; those that do not fit come last."""
    kinds: dict[Kind, Candidate] = {}
    for one in sorted(known, key=lambda c: (not c.fits, c.time.total)):
        kinds.setdefault(_kind(one.layout), one)
    others = [one for kind, one in kinds.items() if kind != _kind(best.layout)]
    return (best, *others[: SHOWN - 1])


def _reason(best: Candidate, fitting: Sequence[Candidate], gpu: Gpu) -> str:
    layout = best.layout
    fastest = min(fitting, key=lambda c: c.time.total)
    slower = best.time.total / fastest.time.total - 1
    room = best.memory.total / gpu.memory_bytes
    what = (
        "the fastest that fits"
        if slower < 1e-9
        else f"the simplest within {100 * AS_FAST:g} % of the fastest that fits"
    )
    lost = best.time.total - best.time.matmul - best.time.attention
    parts = {
        "elementwise kernels": best.time.elementwise,
        "recomputation": best.time.recompute,
        "the pipeline's bubble": best.time.bubble,
        "tensor-parallel traffic": best.time.tensor_parallel,
        "data-parallel traffic": best.time.data_parallel,
        "optimizer, transfers and launches": best.time.other,
    }
    name, most = max(parts.items(), key=lambda part: part[1])
    text = f"{what}: {100 * room:.0f} % of the memory"
    if lost > 0:
        text += f"; beside arithmetic, most time goes to {name} ({most / best.time.total:.0%})"
    if layout.recompute == "none" and layout.tp == layout.pp == layout.cp == 1:
        text += "; nothing is computed twice and no layer waits for another device"
    return text


def _too_large(
    config: DecoderConfig, gpu: Gpu, seq_len: int, known: Sequence[Candidate]
) -> RecipeError:
    """What is missing, and what would fit."""
    least = min(known, key=lambda c: c.memory.total)
    params = count_parameters(config).params_total
    room = USABLE * gpu.memory_bytes
    share = room / least.memory.total
    devices = least.layout.devices
    fix = (
        f"On these, about {params * share:.2g} parameters fit; this model needs about "
        f"{max(devices + 1, round(devices / share))} such devices, or ones with more memory"
        if gpu.name != "this-machine"
        else f"About {params * share:.2g} parameters fit here"
    )
    return RecipeError(
        f"{params:.3g} parameters do not fit on {devices} × {gpu.name}: the leanest layout needs "
        f"{least.memory.total / GIB:.1f} GiB of {room / GIB:.1f} usable on each, at {seq_len} "
        "tokens a sequence",
        where="memory",
        fix=fix,
    )
