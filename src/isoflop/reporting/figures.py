"""The figures of a report that can be set beside another's; makes no page and no test."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isoflop.core.errors import ArtifactError
from isoflop.reporting.collect import collect
from isoflop.reporting.page import embedded
from isoflop.reporting.stage_records import Paired

_EMBEDDED = re.compile(
    r'<script type="application/json" id="report-data">(.*?)</script>', re.DOTALL
)


def document_of(path: Path) -> dict[str, Any]:
    """The values of a report: those embedded in a page, or those that lie in a directory.

    Raises:
        ArtifactError: The file is no report, or the directory holds nothing to report on.
    """
    if path.suffix.lower() in (".html", ".htm"):
        found = _EMBEDDED.search(path.read_text(encoding="utf-8", errors="replace"))
        if found is None:
            raise ArtifactError("this page is no report of Isoflop", where=str(path))
        raw = found[1]
    else:
        raw = embedded(collect([path]))
    document: dict[str, Any] = json.loads(raw)
    return document


def figures_of(document: Mapping[str, Any]) -> dict[str, float]:
    """Name → value of what can be compared."""
    found: dict[str, float | None] = {}
    verdict, target = document.get("verdict") or {}, document.get("target") or {}
    found["promised loss, nats/token"] = verdict.get("value")
    found["loss it ended at, nats/token"] = verdict.get("outcome")
    for key, name in (("params", "parameters"), ("tokens", "tokens"), ("flops", "FLOPs")):
        found[f"{name} of the target"] = target.get(key)
    found["seconds"] = document.get("seconds")
    curves = [c for c in document.get("curves", ()) if c.get("held_out")]
    if len(curves) == 1:
        found["held-out loss at the end, nats/token"] = curves[0]["held_out"][-1][1]
        found["tokens trained on"] = curves[0]["held_out"][-1][0]
    settled = sum(t["settled"] for t in document.get("tallies", ()))
    if settled:
        found["promises held, %"] = 100 * sum(t["held"] for t in document["tallies"]) / settled
    for run in document.get("aligned", ()):
        for each in run["figures"]:
            found[f"{run['stage']}: {each['name']}"] = each["after"]
    for each in document.get("compressed", ()):
        found[f"{each['method']}: size, %"] = each["size_percent"]
        found[f"{each['method']}: added loss, %"] = each["added_percent"]
    return {name: float(value) for name, value in found.items() if value is not None}


def beside(first: Mapping[str, float], second: Mapping[str, float]) -> tuple[Paired, ...]:
    """Figures of two reports side by side, single numbers that no test can pair."""
    rows = []
    for name in dict.fromkeys((*first, *second)):
        one, other = first.get(name), second.get(name)
        difference = None if one is None or other is None else other - one
        rows.append(Paired(name, one, other, difference))
    return tuple(rows)
