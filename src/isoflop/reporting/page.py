"""The report as one HTML file that needs no network, no script and no other file.

Not for reading artifacts (collect) nor for what a section says (results, provenance).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib import resources
from typing import Any

from isoflop.reporting import (
    abilities,
    alignment_section,
    comparison_section,
    compression_section,
    law_section,
    numbers,
    provenance,
    results,
    score_section,
    serving_section,
)
from isoflop.reporting.markup import Section, both, text
from isoflop.reporting.records import Report, TrainingPoint
from isoflop.version import __version__

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Nothing may be fetched or run, whatever text ends up in a page."""
SWITCH = (
    '<input class="switch" type="radio" name="language" id="in-en" checked aria-label="English">'
    '<input class="switch" type="radio" name="language" id="in-zh" aria-label="中文">'
)
"""Two buttons before everything else: the style sheet shows one language, without a script."""
TONGUES = (
    '<div class="tongues"><label for="in-en" lang="en">English</label>'
    '<label for="in-zh" lang="zh-Hans">中文</label></div>'
)
"""What is seen of them."""
MOST_BYTES = 490_000
_FEWEST_POINTS = 8
_DATA_FORMAT = "isoflop-report/1"
_SHEETS = ("chart.css", "style.css")


SECTIONS: tuple[Callable[[Report], Section | None], ...] = (
    results.ladder,
    results.training,
    law_section.law,
    abilities.abilities,
    results.ledger,
    alignment_section.alignment,
    score_section.scores,
    compression_section.compression,
    serving_section.serving,
    comparison_section.comparison,
    provenance.samples,
    provenance.cost,
    provenance.data,
    provenance.lineage,
)
"""Every section, in reading order; one that has nothing to show gives None."""


def build(report: Report, *, head: str = "", policy: str = POLICY) -> str:
    """Write a report as one HTML page, with thinner curves where it would exceed `MOST_BYTES`.

    The same report gives the same bytes.

    Args:
        head: Markup added to its head: what keeps a page that is served up to date (live).
        policy: What such a page may fetch and run.
    """
    page = _page(report, head, policy)
    while len(page.encode()) > MOST_BYTES and (thinner := _thinned(report)) != report:
        report = thinner
        page = _page(report, head, policy)
    return page


def _thinned(report: Report) -> Report:
    """Half of the points of every curve: each holds the mean, least and greatest of two."""
    curves = tuple(
        replace(curve, training=_halved(curve.training), held_out=_every_other(curve.held_out))
        for curve in report.curves
    )
    return replace(report, curves=curves)


def _halved(points: Sequence[TrainingPoint]) -> tuple[TrainingPoint, ...]:
    if len(points) <= _FEWEST_POINTS:
        return tuple(points)
    pairs = [points[i : i + 2] for i in range(0, len(points), 2)]
    return tuple(
        TrainingPoint(
            tokens=math.sqrt(pair[0].tokens * pair[-1].tokens),
            mean=sum(p.mean for p in pair) / len(pair),
            low=min(p.low for p in pair),
            high=max(p.high for p in pair),
        )
        for pair in pairs
    )


def _every_other(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    return tuple(points) if len(points) <= _FEWEST_POINTS else (*points[:-1:2], points[-1])


def _page(report: Report, head: str, policy: str) -> str:
    sections = [section for make in SECTIONS if (section := make(report)) is not None]
    description = (
        results.verdict_sentence(report.verdict) if report.verdict else "A report by Isoflop."
    )
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta name="description" content="{text(description)}">'
        f'<meta name="generator" content="Isoflop {text(__version__)}">'
        f"<title>{text(report.title)}</title>"
        f"<style>{style(*_SHEETS)}</style>{head}</head>\n<body>"
        f'<a class="skip" href="#content">Skip to the content · 跳到正文</a>{SWITCH}'
        f"{_header(report)}"
        f'<div class="columns">{_contents(sections)}<main id="content">'
        f"{_notes(report)}{''.join(_section(i, s) for i, s in enumerate(sections, 1))}"
        f"</main></div>{_footer()}\n"
        f'<script type="application/json" id="report-data">{embedded(report)}</script>'
        "</body></html>\n"
    )


def embedded(report: Report) -> str:
    """The report's values as JSON that cannot end its `<script>` element early."""
    document = {"format": _DATA_FORMAT, "isoflop_version": __version__, **asdict(report)}
    document["rungs"] = _columns(document["rungs"])
    for curve in document["curves"]:
        curve["training"] = _columns(curve["training"])
    if document["abilities"] is not None:
        document["abilities"] = _scored(document["abilities"])
    raw = json.dumps(_finite(document), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        raw = raw.replace(character, f"\\u{ord(character):04x}")
    # A lone surrogate is legal in a JSON escape but cannot be written as UTF-8.
    return raw.encode("utf-8", "replace").decode("utf-8")


def _scored(abilities: dict[str, Any]) -> dict[str, Any]:
    """The scores of runs, of each group of questions (score, how many): its Wilson interval
    follows from these, and a ladder has hundreds of groups."""

    def brief(run: dict[str, Any]) -> dict[str, Any]:
        groups = run.get("groups", {})
        return {**run, "groups": {name: (one["score"], one["n"]) for name, one in groups.items()}}

    tasks = {
        name: {**task, "runs": {run: brief(found) for run, found in task["runs"].items()}}
        for name, task in abilities["tasks"].items()
    }
    return {**abilities, "tasks": tasks}


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Rows turned into columns, names written once; a column of nothing is left out."""
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    return {k: v for k, v in columns.items() if any(value is not None for value in v)}


def _finite(value: object) -> object:
    """JSON has no NaN: numbers that are not finite become null; seven digits are plenty."""
    match value:
        case float():
            return float(f"{value:.7g}") if math.isfinite(value) else None
        case dict():
            return {str(k): _finite(v) for k, v in value.items()}
        case list() | tuple():
            return [_finite(v) for v in value]
        case _:
            return value


def style(*names: str) -> str:
    """Style sheets of the package, one after the other."""
    assets = resources.files("isoflop.reporting").joinpath("assets")
    return "\n".join(assets.joinpath(name).read_text(encoding="utf-8") for name in names)


def _header(report: Report) -> str:
    said = report.verdict or report.tallies
    pieces = [report.title if said else "", numbers.moment(report.created)]
    kicker = " · ".join(text(p) for p in pieces if p)
    return (
        f'<header>{TONGUES}<p class="kicker"><b>Isoflop</b> {kicker}</p>'
        f"{results.heading(report)}{results.summary_cards(report)}</header>"
    )


def _contents(sections: list[Section]) -> str:
    if len(sections) < 3:
        return ""
    items = "".join(f'<li><a href="#{s.key}">{s.title}</a></li>' for s in sections)
    return f'<nav aria-label="Contents · 目录"><ol>{items}</ol></nav>'


def _section(number: int, section: Section) -> str:
    return (
        f'<section id="{section.key}" aria-labelledby="{section.key}-h">'
        f'<h2 id="{section.key}-h"><span aria-hidden="true">{number}</span>'
        f"{section.title}</h2>{section.body}</section>"
    )


def _notes(report: Report) -> str:
    return "".join(f'<p class="warning" role="note">{text(note)}</p>' for note in report.notes)


def _footer() -> str:
    version = text(__version__)
    where = "<code>report-data</code>"
    said = both(
        f"Made by Isoflop {version}. Every number shown here is also in this file as JSON, in the "
        f"element {where}.",
        f"由 Isoflop {version} 制作。此处的每个数字都以 JSON 存于本文件的元素 {where} 中。",
    )
    return f"<footer><p>{said}</p></footer>"
