"""The report as one HTML file that needs no network, no script and no other file.

Not for reading artifacts (collect) nor for what a section says (results, provenance).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from isoflop.reporting import abilities, law_section, numbers, provenance, results
from isoflop.reporting.markup import Section, text
from isoflop.reporting.records import Report
from isoflop.version import __version__

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Nothing may be fetched or run, whatever text ends up in a page."""
_DATA_FORMAT = "isoflop-report/1"
_SHEETS = ("chart.css", "style.css")


def build(report: Report) -> str:
    """Write a report as one HTML page.

    The same report gives the same bytes.
    """
    sections = [
        section
        for make in (
            results.ladder,
            results.training,
            law_section.law,
            abilities.abilities,
            results.ledger,
            provenance.samples,
            provenance.cost,
            provenance.data,
            provenance.lineage,
        )
        if (section := make(report)) is not None
    ]
    description = (
        results.verdict_sentence(report.verdict) if report.verdict else "A report by Isoflop."
    )
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<meta name="description" content="{text(description)}">'
        f'<meta name="generator" content="Isoflop {text(__version__)}">'
        f"<title>{text(report.title)}</title>"
        f"<style>{style(*_SHEETS)}</style></head>\n<body>"
        '<a class="skip" href="#content">Skip to the content</a>'
        f"{_header(report)}"
        f'<div class="columns">{_contents(sections)}<main id="content">'
        f"{_notes(report)}{''.join(_section(i, s) for i, s in enumerate(sections, 1))}"
        f"</main></div>{_footer(report)}\n"
        f'<script type="application/json" id="report-data">{embedded(report)}</script>'
        "</body></html>\n"
    )


def embedded(report: Report) -> str:
    """The report's values as JSON that cannot end its `<script>` element early."""
    document = {"format": _DATA_FORMAT, "isoflop_version": __version__, **asdict(report)}
    document["rungs"] = _columns(document["rungs"])
    for curve in document["curves"]:
        curve["training"] = _columns(curve["training"])
    raw = json.dumps(_finite(document), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        raw = raw.replace(character, f"\\u{ord(character):04x}")
    # A lone surrogate is legal in a JSON escape but cannot be written as UTF-8.
    return raw.encode("utf-8", "replace").decode("utf-8")


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
    pieces = [report.title if report.verdict else "", numbers.moment(report.created)]
    kicker = " · ".join(text(p) for p in pieces if p)
    return (
        f'<header><p class="kicker"><b>Isoflop</b> {kicker}</p>'
        f"{results.heading(report)}{results.summary_cards(report)}</header>"
    )


def _contents(sections: list[Section]) -> str:
    if len(sections) < 3:
        return ""
    items = "".join(f'<li><a href="#{s.key}">{text(s.title)}</a></li>' for s in sections)
    return f'<nav aria-label="Contents"><ol>{items}</ol></nav>'


def _section(number: int, section: Section) -> str:
    return (
        f'<section id="{section.key}" aria-labelledby="{section.key}-h">'
        f'<h2 id="{section.key}-h"><span aria-hidden="true">{number}</span>'
        f"{text(section.title)}</h2>{section.body}</section>"
    )


def _notes(report: Report) -> str:
    return "".join(f'<p class="warning" role="note">{text(note)}</p>' for note in report.notes)


def _footer(report: Report) -> str:
    return (
        f"<footer><p>Made by Isoflop {text(__version__)}. Every number shown here is also in this "
        "file as JSON, in the element <code>report-data</code>.</p></footer>"
    )
