"""What the demo promises of its stages, sealed before they start, and how that came out.

Not for the stages (`pretraining.py`, `story.py`), nor for the ledger itself (`core/ledger.py`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.core.artifact import read_json
from isoflop.core.ledger import LEDGER, Ledger
from isoflop.laws import Law
from isoflop.laws.track_record import read_track_record
from isoflop.planning.ladder import RUNS

if TYPE_CHECKING:
    from isoflop.training.pretrain import TrainResult

RECORD = Path(__file__).with_name("record.json")
"""What the forecasts of the ladders came to on which the demo's recipe was developed."""
LEVEL = 0.9
SPEED_SPREAD = 0.25
"""Half-width of the promise of seconds, as a share: shared machines change their speed."""
MEMORY_SPREAD = 0.1
"""Half-width of the promise of peak memory, as a share: the probe ran the same steps."""


def promise_target(out: Path, law: Law, plan: Mapping[str, Any]) -> Ledger:
    """Seal what the target will come to, before it starts; once only."""
    ledger = Ledger(out / LEDGER)
    promise = partial(promise_once, ledger)
    raw = law.predict(plan["params"], plan["tokens"], LEVEL)
    record = read_track_record(RECORD)
    foretold = record.correct(raw)
    basis = (
        f"law.json: {law.form} form on {law.n_runs} runs of {RUNS} says {raw.loss:.4f}; "
        f"{100 * (foretold.loss / raw.loss - 1):+.2f} % for the lean of "
        f"{len(record.outcomes)} earlier ladders of this recipe"
    )
    promise("loss", "nats per token", foretold.loss, foretold.low, foretold.high, basis)
    ratio = bits_per_nat(out / "ladder")
    promise(
        "bits_per_byte",
        "bits per byte",
        foretold.loss * ratio,
        foretold.low * ratio,
        foretold.high * ratio,
        basis,
    )
    # The ladder showed how this machine runs today against what the probes said.
    pace = read_json(out / "stages.json")["ladder"] / plan["seconds"]["ladder"]
    seconds = plan["seconds"]["target"] * min(2.0, max(0.5, pace))
    promise(
        "seconds",
        "s",
        seconds,
        seconds * (1 - SPEED_SPREAD),
        seconds * (1 + SPEED_SPREAD),
        f"measured steps of the target, times the ladder's pace {pace:.2f}",
    )
    memory = plan["memory_bytes"]["total"]
    promise(
        "peak_memory",
        "bytes",
        memory,
        memory * (1 - MEMORY_SPREAD),
        memory * (1 + MEMORY_SPREAD),
        "measured over a few steps of the target",
    )
    return ledger


def promise_once(
    ledger: Ledger, quantity: str, unit: str, value: float, low: float, high: float, basis: str
) -> None:
    """Promise a quantity, unless that was done: a kill may have come between two promises."""
    made = {p.quantity for p in ledger.read()} if ledger.path.exists() else set()
    if quantity not in made:
        ledger.promise(quantity, unit, value, low, high, LEVEL, basis)


def settle_target(ledger: Ledger, result: TrainResult) -> None:
    """Score the promises of the target that are still open."""
    outcomes = {
        "loss": result.loss,
        "bits_per_byte": result.bits_per_byte,
        "seconds": result.seconds,
        "peak_memory": float(result.peak_memory_bytes),
    }
    settle(ledger, outcomes)


def settle(ledger: Ledger, outcomes: Mapping[str, float | None]) -> None:
    """Score the promises of these quantities that are still open; None leaves one open."""
    for promise in ledger.read():
        outcome = outcomes.get(promise.quantity)
        if not promise.settled and outcome is not None:
            ledger.settle(promise.id, outcome)


def runs_of(ladder: Path) -> list[dict[str, str]]:
    """The rows of a ladder's table."""
    with open(ladder / RUNS, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def bits_per_nat(ladder: Path) -> float:
    """Bits per byte for each nat per token: the same for all runs judged on the same text."""
    row = runs_of(ladder)[0]
    return float(row["bits_per_byte"]) / float(row["loss"])
