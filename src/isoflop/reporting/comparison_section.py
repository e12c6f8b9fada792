"""The section that sets two models side by side; the tests behind it are made elsewhere."""

from __future__ import annotations

from isoflop.reporting import numbers
from isoflop.reporting.markup import Column, Section, both, table, text
from isoflop.reporting.records import Report
from isoflop.reporting.stage_records import Paired

_SURE = 0.05


def comparison(report: Report) -> Section | None:
    """Figures of two runs, and their scores paired by item."""
    found = report.comparison
    if found is None:
        return None
    lead = both(
        f"<b>{text(found.second)}</b> less <b>{text(found.first)}</b>. Where both answered the "
        "same items, the difference is tested item by item; a difference whose interval holds "
        "zero is not one.",
        f"<b>{text(found.second)}</b> 减 <b>{text(found.first)}</b>。"
        "两者回答同样题目时逐题配对检验；区间包含零的差异不算差异。",
    )
    rows = [
        [
            text(each.name) + (f"<small>{text(each.note)}</small>" if each.note else ""),
            _plain(each.first),
            _plain(each.second),
            _difference(each),
            "–" if each.p is None else f"{each.p:.2g}",
            "–" if each.n is None else f"{each.n:,}",
        ]
        for each in found.rows
    ]
    columns = [Column("What was measured"), Column(found.first, True), Column(found.second, True)]
    columns += [Column("Difference", True), Column("p", True), Column("Items", True)]
    body = f"<p>{lead}</p>" + table("Side by side", columns, rows, "并排比较")
    return Section("comparison", both("Side by side", "对比"), body)


def _plain(value: float | None) -> str:
    return "–" if value is None else numbers.significant(value, 4)


def _difference(each: Paired) -> str:
    if each.difference is None:
        return "–"
    written = f"{each.difference:+.4g}".replace("-", numbers.MINUS)
    if each.low is None or each.high is None:
        return written
    ends = f"{each.low:+.3g} – {each.high:+.3g}".replace("-", numbers.MINUS)
    sure = each.p is not None and each.p < _SURE
    return f"{'<b>' if sure else ''}{written}{'</b>' if sure else ''} <small>[{ends}]</small>"
