"""What a plan holds and the document it is written as; not for making one (`planner`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isoflop.models.accounting import count_parameters
from isoflop.models.config import DecoderConfig
from isoflop.planning.candidates import Candidate
from isoflop.planning.cost import Cost
from isoflop.planning.layout import Layout
from isoflop.planning.memory import DeviceMemory
from isoflop.planning.rates import Schedule
from isoflop.planning.rungs import FirstLadder
from isoflop.planning.site import Site


@dataclass(frozen=True)
class Range:
    """A predicted value with its interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """`{value, low, high}`."""
        return {"value": self.value, "low": self.low, "high": self.high}

    def scaled(self, factor: float) -> Range:
        """The same in another unit."""
        return Range(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Checkpoints:
    """What to save, and what to keep."""

    every_steps: int
    keep_at_tokens: tuple[int, ...]
    """At an eighth, a quarter and a half of the run, before the decay, and the end."""
    bytes_each: int
    bytes_kept: int

    def to_dict(self) -> dict[str, Any]:
        """The checkpoint document of a plan."""
        return {**vars(self), "keep_at_tokens": list(self.keep_at_tokens)}


@dataclass(frozen=True)
class Plan:
    """A run, foretold."""

    params: int
    """As the law counts them (`params_count`)."""
    params_count: str
    tokens: int
    flops: float
    """6·params·tokens, as laws count."""
    model: DecoderConfig
    seq_len: int
    global_batch_tokens: int
    steps: int
    learning_rate: float
    schedule: Schedule
    loss: Range | None
    """None where the law says nothing of such a run."""
    level: float
    tasks: dict[str, Range]
    """Scores by the name of each loss-to-task law that was given."""
    devices: Site
    layout: Layout
    memory_bytes: DeviceMemory
    """Of the fullest device."""
    seconds: Range
    tokens_per_second: float
    mfu: float
    """While stepping; the seconds also hold what `sustained_share` takes off."""
    cost: Cost
    ladder: FirstLadder | None
    """To run first; None where the law is the user's own."""
    checkpoints: Checkpoints
    candidates: tuple[Candidate, ...]
    why: str
    law: str
    verdict: str
    assumptions: tuple[str, ...]

    @property
    def supported(self) -> bool:
        """Whether the law behind the loss and the size is one to build on."""
        return self.verdict == "supported"

    def to_dict(self) -> dict[str, Any]:
        """The plan document of the command line (DESIGN §5, and more keys)."""
        counts = count_parameters(self.model)
        money, energy = self.cost.usd, self.cost.kilowatt_hours
        width = self.seconds.scaled(1 / self.seconds.value)
        return {
            "params": self.params,
            "tokens": self.tokens,
            "flops": self.flops,
            "model": {
                **vars(self.model),
                "seq_len": self.seq_len,
                "params": counts.params,
                "params_total": counts.params_total,
            },
            "global_batch_tokens": self.global_batch_tokens,
            "learning_rate": self.learning_rate,
            "schedule": self.schedule.to_dict(),
            "loss": None if self.loss is None else {**self.loss.to_dict(), "level": self.level},
            "layout": self.layout.to_dict(),
            "memory_bytes": self.memory_bytes.to_dict(),
            "seconds": self.seconds.to_dict(),
            "mfu": self.mfu,
            "cost": None if money is None else {**width.scaled(money).to_dict(), "currency": "USD"},
            "assumptions": list(self.assumptions),
            "tasks": {name: score.to_dict() for name, score in self.tasks.items()},
            "params_count": self.params_count,
            "steps": self.steps,
            "tokens_per_second": self.tokens_per_second,
            "devices": {
                "gpu": self.devices.gpu.name,
                "count": self.devices.devices,
                "full_name": self.devices.gpu.full_name,
                "source": self.devices.gpu.source,
            },
            "device_hours": self.cost.device_hours,
            "usd_per_device_hour": self.cost.usd_per_device_hour,
            "energy_kwh": None if energy is None else width.scaled(energy).to_dict(),
            "ladder": None if self.ladder is None else self.ladder.to_dict(),
            "checkpoints": self.checkpoints.to_dict(),
            "candidates": [one.to_dict() for one in self.candidates],
            "why": self.why,
            "law": self.law,
            "verdict": self.verdict,
        }
