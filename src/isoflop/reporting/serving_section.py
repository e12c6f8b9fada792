"""The section on a server: latencies and counts, as its own metrics said them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from isoflop.reporting import numbers
from isoflop.reporting.markup import Column, Section, both, details, table, text
from isoflop.reporting.records import Report
from isoflop.reporting.stage_records import Exchange, Served

_KINDS = {"chat": "对话", "tool call": "工具调用", "refused": "拒绝"}
_WORDS = {
    "whole answer": "整个回答",
    "time to the first token": "首个词元的时间",
    "time between tokens": "词元间隔",
    "waiting": "排队",
}


def serving(report: Report) -> Section | None:
    """Latencies of each server whose metrics were given."""
    if not (report.served or report.exchanges):
        return None
    body = _exchanges(report.exchanges) + "".join(_server(served) for served in report.served)
    return Section("serving", both("Serving", "服务"), body)


def _exchanges(exchanges: Sequence[Exchange]) -> str:
    """What the served model was asked, what tools were run for it, and what came back."""
    if not exchanges:
        return ""
    rows = [
        [
            both(text(each.kind), text(_KINDS.get(each.kind, each.kind))),
            _said(each.question),
            "".join(f"<code>{text(f'{name} {said}')}</code> " for name, said in each.calls),
            _said(each.answer),
            str(each.status),
        ]
        for each in exchanges
    ]
    columns = [Column("What"), Column("Asked"), Column("Called"), Column("Answered"),
               Column("HTTP", True)]  # fmt: skip
    return table("Asked over HTTP", columns, rows, "通过 HTTP 提问")


def _said(written: str) -> str:
    return f'<span class="answer">{text(written)}</span>'


def _server(served: Served) -> str:
    shares = [share for share, _ in served.latencies[0].quantiles] if served.latencies else []
    columns = [Column("What was measured"), Column("Times", True)]
    columns += [Column(f"p{100 * share:g}", True) for share in shares]
    rows = [
        [
            both(text(each.name), text(_WORDS.get(each.name, each.name))),
            f"{each.count:,}",
            *(_seconds(value) for _, value in each.quantiles),
        ]
        for each in served.latencies
    ]
    caption = f"Latencies of {served.name}: within what time a share of the requests was served"
    chinese = f"{served.name} 的延迟：各比例的请求在多长时间内完成"
    lead = both(
        "Ends of the histogram’s buckets: the truth is no worse than these.",
        "取直方图的桶上界：实际不会比这更差。",
    )
    body = f"<p>{lead}</p>{table(caption, columns, rows, chinese)}" if rows else ""
    counted = [[text(name.replace("_", " ")), f"{value:,.0f}"] for name, value in served.counters]
    if counted:
        grid = table("Counts", [Column("What"), Column("Value", True)], counted, "计数")
        body += details("What was counted", grid, "计数")
    return body


def _seconds(value: float) -> str:
    if math.isinf(value):
        return "beyond"
    return f"{1000 * value:,.3g} ms" if value < 1 else numbers.seconds(value)
