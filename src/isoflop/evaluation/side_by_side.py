"""Two finished evaluations paired by item; not for scoring (`evaluate`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.core.artifact import read_json, read_manifest
from isoflop.core.errors import ArtifactError
from isoflop.evaluation.results import ITEMS, RESULTS
from isoflop.evaluation.statistics import Difference, paired_difference

_ASKED = ("context", "options", "prompt", "gold")
Items = dict[str, dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class SideBySide:
    """One task of two evaluations."""

    task: str
    first: float | None
    second: float | None
    difference: Difference | None
    """Second less first, by item; None where the items are not the same."""
    note: str = ""


def side_by_side(first: Path, second: Path) -> tuple[SideBySide, ...]:
    """Every task of either evaluation, paired where both answered the same items.

    Raises:
        ArtifactError: One of them is no finished evaluation, or damaged.
    """
    scores = [_scores(path) for path in (first, second)]
    items = [_items(path) for path in (first, second)]
    found = []
    for task in dict.fromkeys((*scores[0], *scores[1])):
        difference, note = _paired(items[0].get(task, {}), items[1].get(task, {}))
        found.append(SideBySide(task, scores[0].get(task), scores[1].get(task), difference, note))
    return tuple(found)


def _scores(path: Path) -> dict[str, float]:
    read_manifest(path, "evaluation", verify=True)
    raw = read_json(path / RESULTS)
    return {name: float(result["score"]) for name, result in raw.items()}


def _items(path: Path) -> Items:
    found: Items = {}
    try:
        for line in (path / ITEMS).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["counts"]:
                found.setdefault(row["task"], {})[row["id"]] = row
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ArtifactError("not the items of an evaluation", where=str(path / ITEMS)) from None
    return found


def _paired(
    first: Mapping[str, dict[str, Any]], second: Mapping[str, dict[str, Any]]
) -> tuple[Difference | None, str]:
    if not first or not second:
        return None, "only one of them has this task"
    same = first.keys() == second.keys() and all(
        row["weight"] == second[key]["weight"] and _asked(row) == _asked(second[key])
        for key, row in first.items()
    )
    if not same:
        return None, "the items are not the same: another seed, limit or file"
    order = sorted(first)
    difference = paired_difference(
        [second[key]["score"] for key in order],
        [first[key]["score"] for key in order],
        [first[key]["weight"] for key in order],
    )
    return difference, ""


def _asked(row: Mapping[str, Any]) -> tuple[object, ...]:
    return tuple(row["detail"].get(key) for key in _ASKED)
