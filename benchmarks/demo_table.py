"""The demo's promises over several seeds as a table; `make bench-demo` runs the demos first.

Usage: python benchmarks/demo_table.py DEMO_DIRECTORY...
"""

from __future__ import annotations

import sys
from pathlib import Path

from isoflop.core.artifact import read_json
from isoflop.core.errors import IsoflopError

HEAD = (
    "| seed | promised loss (90 %) | half-width | outcome | error | held | target tokens | "
    "target FLOPs / largest rung | minutes (promised) | target s (promised) |"
)


def row(directory: Path) -> tuple[str, bool]:
    """One line of the table, and whether the promise held."""
    summary = read_json(directory / "summary.json")
    promise, target = summary["promise"], summary["target"]
    half_width = 50 * (promise["high"] - promise["low"]) / promise["value"]
    cells = (
        f"{summary['seed']}",
        f"{promise['value']:.4f} ({promise['low']:.4f} to {promise['high']:.4f})",
        f"{half_width:.2f} %",
        f"{summary['outcome']:.4f}",
        f"{summary['error_percent']:+.2f} %",
        "yes" if summary["held"] else "**no**",
        f"{target['tokens']:,}",
        f"{target['flops'] / summary['ladder']['largest_rung_flops']:.2f}",
        f"{summary['seconds'] / 60:.1f} ({summary['promised_seconds'] / 60:.1f})",
        f"{target['seconds']:.0f} ({target['promised_seconds']:.0f})",
    )
    return f"| {' | '.join(cells)} |", bool(summary["held"])


def main(arguments: list[str]) -> int:
    """Print the table of the demo directories given."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        rows = [row(Path(argument)) for argument in arguments]
    except IsoflopError as error:
        print(error.paragraph(), file=sys.stderr)
        return 2
    print(HEAD)
    print("|" + " --- |" * (HEAD.count("|") - 1))
    for line, _ in rows:
        print(line)
    print(f"\n{sum(held for _, held in rows)} of {len(rows)} promises held.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
