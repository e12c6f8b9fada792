"""The promises of several ledgers as one account; not for how they are shown (results)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from isoflop.core.ledger import Ledger, Promise, Tally

MOST = 100
"""Promises listed in one page."""


def read_ledgers(
    paths: Sequence[Path], note: Callable[[str], None]
) -> tuple[tuple[Promise, ...], tuple[Tally, ...], str]:
    """Promises, how those of each level fared, and the last hash of the last ledger.

    Args:
        note: Told of unfinished lines and of promises that are not listed.

    Raises:
        ArtifactError: A ledger is broken (with its line).
    """
    promises: list[Promise] = []
    counts: dict[float, list[int]] = {}
    head = ""
    for path in paths:
        ledger = Ledger(path)
        check = ledger.verify()
        head = check.head
        if check.torn is not None:
            note(f"{path.name}: its last line is unfinished and was left out")
        promises += ledger.read()
        for tally in ledger.calibration():
            sums = counts.setdefault(tally.level, [0, 0, 0])
            for index, value in enumerate((tally.promised, tally.settled, tally.held)):
                sums[index] += value
    if len(promises) > MOST:
        where = paths[0].name if len(paths) == 1 else "the ledgers"
        note(f"{where}: of {len(promises):,} promises the last {MOST} are listed")
    tallies = tuple(Tally(level, *counts[level]) for level in sorted(counts, reverse=True))
    return tuple(promises[-MOST:]), tallies, head
