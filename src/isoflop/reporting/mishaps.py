"""What went wrong while runs trained: spikes, skipped batches, steps back; reads and lists them.

Not for losses (lines) nor for what a run foretold (flight).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from isoflop.reporting import lines
from isoflop.reporting.markup import Column, both, table, text
from isoflop.reporting.records import Curve, Mark

_USUAL = ("started", "resumed", "interrupted")
_MOST = 200
_MOST_ROWS = 12


def read_marks(
    run: Path, tokens_at: Callable[[float], float], note: Callable[[str], None]
) -> tuple[Mark, ...]:
    """The events of a run's log that are not its coming and going.

    Args:
        tokens_at: Step → tokens seen.

    Raises:
        ArtifactError: A line is damaged.
    """
    path = run / "events.jsonl"
    if not path.is_file():
        return ()
    found = []
    for number, row in lines.json_lines(path, note):
        event = str(row.get("event", ""))
        if event in _USUAL:
            continue
        step = lines.number_at(row, "step", f"{path}:{number}")
        what = str(row.get("what") or row.get("reason") or row.get("fault") or "")
        found.append(Mark(event, int(step), tokens_at(step), what[:200]))
    if len(found) > _MOST:
        note(f"{run.name}: of {len(found):,} events the last {_MOST} are shown")
    return tuple(found[-_MOST:])


def mishaps(curves: Sequence[Curve]) -> str:
    """The events of all runs, as a table; empty where everything went well."""
    counted = Counter((curve.name, mark.event) for curve in curves for mark in curve.marks)
    if not counted:
        return ""
    last = {(curve.name, mark.event): mark for curve in curves for mark in curve.marks}
    rows = [
        [
            text(name),
            f"{text(event)}<small>{text(last[name, event].what)}</small>",
            f"{times:,}",
            f"{last[name, event].step:,}",
        ]
        for (name, event), times in counted.most_common(_MOST_ROWS)
    ]
    columns = [Column("Run"), Column("Event"), Column("Times", True), Column("Step", True)]
    lead = both(
        "Marks on the curve: where a batch was skipped, the loss spiked, or the run went back.",
        "曲线上的标记：跳过的批次、损失尖峰或回退之处。",
    )
    caption = "What went wrong on the way; the step is that of the last time"
    return f"<p>{lead}</p>" + table(caption, columns, rows, "途中出过的问题；步为最后一次发生的步")
