"""The section on what the finished model can do: a row a task; not for the runs of a ladder
(`abilities.py`)."""

from __future__ import annotations

from isoflop.reporting.markup import Column, Section, both, fixed, table, text
from isoflop.reporting.records import Report
from isoflop.reporting.stage_records import Score


def scores(report: Report) -> Section | None:
    """Every task that the finished model was asked."""
    if not report.scores:
        return None
    lead = both(
        "With 95 % intervals, beside what chance alone would score. A score whose interval holds "
        "chance says nothing of ability.",
        "附 95 % 区间与随机水平。区间包含随机水平的分数不能说明能力。",
    )
    numbers = ("Score", "95 % interval", "Chance", "Items")
    columns = [Column("Task"), Column("Metric"), *(Column(name, True) for name in numbers)]
    grid = table("Scores of the finished model", columns, [_row(s) for s in report.scores],
                 "最终模型的得分")  # fmt: skip
    heading = both("What the finished model can do", "最终模型的能力")
    return Section("scores", heading, f"<p>{lead}</p>{grid}")


def _row(score: Score) -> list[str]:
    known = score.low is not None and score.high is not None
    interval = f"{score.low:.3f} to {score.high:.3f}" if known else "–"
    chance = "–" if score.chance is None else f"{score.chance:.2f}"
    return [text(score.task), fixed(score.metric), f"{score.score:.3f}", interval, chance,
            f"{score.items:,}"]  # fmt: skip
