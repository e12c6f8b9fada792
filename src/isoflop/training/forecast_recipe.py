"""What a run is watched against while it goes on: the recipe's table; no torch here.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ForecastConfig:
    """Where the run will end, said while it goes on; on with a law or a target."""

    law: Path | None = None
    """A law.json over size and tokens that foretold this run: its band and the curve so far are
    weighed together."""
    target_loss: float | None = None
    """The loss the run is to reach; with a law alone, the upper end of its band."""
    moments: int = 20
    """How many times over the run its end is forecast."""
    level: float = 0.9
    """Probability that the end lies inside the forecast's interval."""
    stop_when_lost: bool = False
    """End the run early once the target cannot be reached any more."""
    least_gain: float = 0.0
    """Loss (nats per token) that each further per cent of the run's tokens must still bring."""
    stop_when_idle: bool = False
    """End the run early once it brings less than `least_gain`."""

    @property
    def on(self) -> bool:
        """Whether anything is forecast."""
        return self.law is not None or self.target_loss is not None or self.least_gain > 0


def forecast_problems(config: ForecastConfig) -> Iterator[str]:
    """What is impossible in a forecast's table, one phrase each."""
    if config.target_loss is not None and not config.target_loss > 0:
        yield f"forecast.target_loss = {config.target_loss} must be positive"
    if config.moments < 1:
        yield f"forecast.moments = {config.moments} must be at least 1"
    if not 0 < config.level < 1:
        yield f"forecast.level = {config.level} is outside (0, 1)"
    if config.least_gain < 0:
        yield f"forecast.least_gain = {config.least_gain} must not be negative"
    if config.stop_when_lost and config.law is None and config.target_loss is None:
        yield "forecast.stop_when_lost needs forecast.law or forecast.target_loss"
    if config.stop_when_idle and not config.least_gain:
        yield "forecast.stop_when_idle needs forecast.least_gain"
