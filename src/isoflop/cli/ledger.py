"""`isoflop ledger`: what was promised and how many promises held; not for making promises."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, parse_arguments
from isoflop.core.console import print_result, warn
from isoflop.core.ledger import LEDGER, Ledger, LedgerCheck, Promise, Tally


@dataclass(frozen=True)
class LedgerArguments(Arguments):
    """Check a ledger's chain, list its promises and count how many held."""

    path: Positional[Path]
    """A ledger, or a directory that holds `ledger.jsonl`."""


def run(args: list[str]) -> int:
    """Run the command; 0 unless the ledger is missing or broken."""
    arguments = parse_arguments(LedgerArguments, args, "ledger")
    path = arguments.path / LEDGER if arguments.path.is_dir() else arguments.path
    ledger = Ledger(path)
    check, promises, tallies = ledger.verify(), ledger.read(), ledger.calibration()
    if check.torn is not None:
        warn(
            f"{path}: an unfinished line after line {check.lines}, left by a crash while it was "
            "written, is not counted; the next promise drops it"
        )
    print_result(
        _document(check, promises, tallies), _text(check, promises, tallies), arguments.json
    )
    return 0


def _document(
    check: LedgerCheck, promises: tuple[Promise, ...], tallies: tuple[Tally, ...]
) -> dict[str, Any]:
    return {
        "promises": [asdict(promise) for promise in promises],
        "calibration": [asdict(tally) for tally in tallies],
        "chain": {"lines": check.lines, "head": check.head, "torn": check.torn is not None},
    }


def _text(check: LedgerCheck, promises: tuple[Promise, ...], tallies: tuple[Tally, ...]) -> str:
    if not promises:
        return "no promises yet"
    header = ("id", "quantity", "promised", "interval", "level", "outcome", "")
    rows = [header, *(_row(promise) for promise in promises)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    counted = [tally.sentence() for tally in tallies]
    chain = f"chain intact: {check.lines} lines, last hash {check.head[:12]}"
    return "\n".join([*table, "", *counted, chain])


def _row(promise: Promise) -> tuple[str, ...]:
    if not promise.settled:
        outcome, verdict = "", "open"
    else:
        outcome = "none" if promise.outcome is None else _number(promise.outcome)
        verdict = "held" if promise.held else "missed"
    return (
        promise.id,
        promise.quantity,
        f"{_number(promise.value)} {promise.unit}".strip(),
        f"{_number(promise.low)} to {_number(promise.high)}",
        f"{promise.level * 100:g} %",
        outcome,
        verdict,
    )


def _number(value: float) -> str:
    """Five significant digits, with thousands marked."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.5g}"
