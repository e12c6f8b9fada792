"""`isoflop demo`: parses, calls `demo.demo`, prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isoflop.cli.arguments import Arguments, OutPath, parse_arguments
from isoflop.core.console import make_progress, print_result


@dataclass(frozen=True, kw_only=True)
class DemoArguments(Arguments):
    """The whole flow on this machine: a ladder of small models foretells the loss of a bigger
    one, which is then trained and compared. The same command continues an interrupted demo.

    Exits with 1 if the promise was missed."""

    out: OutPath = Path("demo")
    """The directory to write."""
    minutes: float = 10.0
    """Wall-clock minutes it may take here."""
    seed: int = 0
    """Of initial weights and data order."""


def run(args: list[str]) -> int:
    """Run `isoflop demo`."""
    arguments = parse_arguments(DemoArguments, args, "demo")
    from isoflop.demo import demo

    result = demo(arguments.out, arguments.minutes, arguments.seed, make_progress(arguments.json))
    summary, promise = result.summary, result.summary["promise"]
    verdict = "held" if summary["held"] else "MISSED"
    text = (
        f"promised {promise['value']:.4f} nats per token, {promise['low']:.4f} to "
        f"{promise['high']:.4f} at {promise['level']:.0%}; the run came to "
        f"{summary['outcome']:.4f}: {verdict}, {summary['error_percent']:+.2f} % off\n"
        f"{summary['seconds'] / 60:.1f} minutes, {summary['promised_seconds'] / 60:.1f} promised\n"
        f"report: {result.report}\n"
        f"model:  isoflop chat {result.model}"
    )
    print_result(dict(summary), text, arguments.json)
    return 0 if summary["held"] else 1
