"""What a run costs beside time: money at a price per device-hour, and energy.

Not for prices that depend on contracts: give yours.
"""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.planning.gpus import PRICES_AS_OF, Gpu

PUE = 1.1
"""Power of the data centre over that of its computers, as Touvron et al. 2023 assume."""


@dataclass(frozen=True)
class Cost:
    """Money and energy of a number of device-hours."""

    device_hours: float
    usd: float | None
    """None where no price is known."""
    usd_per_device_hour: float | None
    price_source: str
    kilowatt_hours: float | None
    """Board limit × hours × PUE, as in the carbon tables of LLaMA 1 and 2; without processors and
    network, and an upper bound for the boards. None where the power is unknown."""


def run_cost(gpu: Gpu, device_hours: float, price: float | None = None) -> Cost:
    """Money and energy.

    Args:
        price: USD per device and hour; the list price of the table when None.
    """
    known = gpu.price if price is None else price
    source = "given" if price is not None else f"{gpu.price_source}, {PRICES_AS_OF}"
    return Cost(
        device_hours=device_hours,
        usd=None if known is None else known * device_hours,
        usd_per_device_hour=known,
        price_source=source if known is not None else "no list price known; give --price",
        kilowatt_hours=gpu.watts * device_hours * PUE / 1000 if gpu.watts else None,
    )
