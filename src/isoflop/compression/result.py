"""What compressing came to beside what was promised, as values, ledger lines and a card's rows.

Not for the compressing (`compress.py`, `student_run.py`) nor for the figures (`measure.py`).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isoflop.compression.measure import Measured
from isoflop.compression.sensitivity import LEVEL, Sensitivity
from isoflop.compression.student import Outlook
from isoflop.core.artifact import read_json
from isoflop.core.errors import ArtifactError
from isoflop.core.ledger import Ledger, Promise

RESULT = "result.json"
HEADER_BYTES = 512
"""Of a file's header, most that one parameter takes: names, formats and shapes of three tensors."""
BURSTS = 7
"""Bursts of decoding whose spread foretells the speed."""


@dataclass(frozen=True)
class Compressed:
    """What came of it."""

    path: Path
    measured: Measured
    foretold: Sensitivity | Outlook
    promises: tuple[Promise, ...]
    bytes_full: int
    """Of the model's weights as float32."""
    bytes: int
    """Of the weights file written."""
    tokens_per_second_full: float
    tokens_per_second: float

    def document(self) -> dict[str, Any]:
        """`result.json`, but for the options."""
        return {**asdict(self), "path": self.path.name}


def read_result(directory: Path) -> Compressed:
    """The result in a directory that is finished.

    Raises:
        ArtifactError: It is damaged.
    """
    raw = read_json(directory / RESULT)
    try:
        told = raw["foretold"]
        return Compressed(
            path=directory,
            measured=Measured(**raw["measured"]),
            foretold=Outlook.from_json(told) if "pilots" in told else Sensitivity(**told),
            promises=tuple(Promise(**each) for each in raw["promises"]),
            **{
                name: raw[name]
                for name in (
                    "bytes_full", "bytes", "tokens_per_second_full", "tokens_per_second",
                )
            },
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            f"not a result of `isoflop compress` ({error})",
            where=str(directory / RESULT),
            fix="Compress the model again, into another directory",
        ) from None


def promise(
    ledger: Ledger,
    foretold: Sensitivity | Outlook,
    basis: str,
    size: int,
    n_parameters: int,
    speeds: Sequence[float],
) -> dict[str, str]:
    """Write what is promised, but for what the ledger holds already; what → the promise's id.

    Args:
        basis: What the loss is foretold from.
        size: Bytes of the stored tensors, without the file's header.
        n_parameters: Tensors of the header, which grows with them.
        speeds: Tokens per second, in bursts, of a decoder that is as fast as the one to come.
    """
    # A single burst may fall outside the range of a few.
    typical, spread = statistics.median(speeds), max(speeds) - min(speeds)
    wanted: dict[str, tuple[str, str, float, float, float, str]] = {
        "added": (
            "bits_per_byte_added", "bits per byte", foretold.added, foretold.low, foretold.high,
            basis,
        ),
        "bytes": (
            "weights_bytes", "bytes", size, size, size + HEADER_BYTES * n_parameters,
            "the shapes of the stored tensors; at the upper end the file's header",
        ),
        "speed": (
            "tokens_per_second", "tokens/s", typical, max(0.0, typical - spread),
            typical + spread, f"{BURSTS} bursts of a model of the same shapes, their range",
        ),
    }  # fmt: skip
    made = ledger.read() if ledger.path.exists() else ()
    known = {each.quantity: each.id for each in made}
    return {
        key: known.get(quantity) or ledger.promise(quantity, unit, value, low, high, LEVEL, why)
        for key, (quantity, unit, value, low, high, why) in wanted.items()
    }


def settle(
    ledger: Ledger, ids: Mapping[str, str], outcomes: Mapping[str, float]
) -> tuple[Promise, ...]:
    """Write what came of the promises that are still open; all of them."""
    for key, value in outcomes.items():
        known = {each.id: each for each in ledger.read()}
        if not known[ids[key]].settled:
            ledger.settle(ids[key], value)
    known = {each.id: each for each in ledger.read()}
    return tuple(known[ids[key]] for key in outcomes)


def said(foretold: Sensitivity | Outlook) -> str:
    """The promise in words."""
    percent = 100 / foretold.bits_per_byte
    return (
        f"{foretold.added:+.4f} bits per byte ({foretold.added * percent:+.2f} %), "
        f"{LEVEL:.0%} interval {foretold.low * percent:+.2f} to "
        f"{foretold.high * percent:+.2f} %"
    )


def facts(found: Compressed) -> dict[str, str]:
    """What the model card says was measured."""
    made, measured = found.promises[0], found.measured
    return {
        "bits per byte of the full model": f"{measured.bits_per_byte_full:.4f}",
        "bits per byte": f"{measured.bits_per_byte:.4f} ({measured.relative_loss:+.2%})",
        "promised to be added": f"{made.low:+.4f} to {made.high:+.4f} at {LEVEL:.0%}, "
        + ("held" if made.held else "broken"),
        "KL divergence to the full model": f"{measured.kl:.3g} nats per token",
        "tokens whose likeliest successor changed": f"{measured.flipped:.2%}",
        "held-out tokens": f"{measured.tokens:,}",
        "bytes of the weights": f"{found.bytes:,} of {found.bytes_full:,}",
    }
