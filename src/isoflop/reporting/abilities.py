"""The report's section on what the runs of a ladder can do: heat map, curves, verdicts.

Not for scoring them (`evaluation/rungs.py`) nor for judging (`laws/emergence.py`): it shows the
document of `abilities.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from isoflop.core.artifact import read_json
from isoflop.core.errors import ArtifactError
from isoflop.reporting import numbers, scales
from isoflop.reporting.ability_charts import (
    SHOTS,
    context_chart,
    gain_chart,
    heat_map,
    verdict_chart,
)
from isoflop.reporting.charts import size_classes
from isoflop.reporting.markup import Column, Section, details, figure, legend, table, text
from isoflop.reporting.records import Report

_KEYS = ("runs", "tasks", "emergence", "gains")
_MOST_CONTEXT_TASKS = 8


def read_abilities(path: Path) -> dict[str, Any]:
    """The document of `abilities.json`.

    Raises:
        ArtifactError: The file holds something else.
    """
    found = read_json(path)
    try:
        whole = all(key in found for key in _KEYS) and all(
            run["flops"] > 0
            and all(run["run_id"] in task["runs"] for task in found["tasks"].values())
            for run in found["runs"]
        )
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ArtifactError(
            "these are no scores of a ladder's runs",
            where=str(path),
            fix="Score them again: isoflop ladder with an [eval] table",
        )
    return dict(found)


def abilities(report: Report) -> Section | None:
    """What the runs can do; None where they were not asked."""
    document = report.abilities
    if document is None or not document["runs"] or not document["tasks"]:
        return None
    shares = {name: task for name, task in document["tasks"].items() if task["chance"] is not None}
    runs: Sequence[Mapping[str, Any]] = document["runs"]
    body = ""
    if shares:
        body += figure(
            partial(heat_map, runs, shares),
            "<b>Every task on every run.</b> Runs from left to right by compute; the fuller a "
            "cell, the further its score lies from chance towards 1. Grey cells are at chance: "
            "their interval holds it, and they rank nothing.",
            height=58 + 26 * len(shares) + 40,
        )
    body += _verdicts(document)
    body += _in_context(document)
    body += "".join(_gain(name, gain) for name, gain in document["gains"].items())
    body += details("All scores with their intervals", _table(document))
    return Section("abilities", "What the runs can do", body)


# --- verdicts ------------------------------------------------------------------------------


def _verdicts(document: Mapping[str, Any]) -> str:
    found = document["emergence"]
    if not found:
        return ""
    said = "".join(_card(name, each) for name, each in found.items())
    return (
        "<h3>Does it emerge?</h3><p>Dots are shares of right answers over compute; the dashed line "
        "and its band are what the log-probabilities foretell, where they are known; the bars "
        "below are second differences, to be looked at and never the test.</p>"
        f'<div class="verdicts">{said}</div>'
    )


def _card(name: str, found: Mapping[str, Any]) -> str:
    trend = found.get("trend")
    about = f" Over scale it is {trend['name']}." if trend and trend["name"] != "rising" else ""
    return (
        f'<article class="verdict"><h4>{text(name)}: <em>{text(found["verdict"])}</em></h4>'
        + figure(
            partial(verdict_chart, name, found), text(found["reason"] + "." + about), height=210
        )
        + "</article>"
    )


# --- in context, step by step --------------------------------------------------------------


def _in_context(document: Mapping[str, Any]) -> str:
    names = [
        name for name, task in document["tasks"].items()
        if name.startswith("icl_") and task["chance"] is not None
    ][:_MOST_CONTEXT_TASKS]  # fmt: skip
    if not names:
        return ""
    runs = _longest(document["runs"])
    colours = size_classes(run["params"] for run in runs)
    entries = [(colour, f"{numbers.count(size)} parameters") for size, colour in colours.items()]
    body = "<h3>Learning in context</h3>"
    for name in names:
        body += figure(
            partial(context_chart, name, document["tasks"][name], runs, colours),
            f"<b>{text(name)}</b>, after k = {', '.join(map(str, SHOTS))} examples; longest run of "
            "each size. Rings: the same with the examples’ answers shuffled, which no rule "
            "explains. The dotted line is chance.",
            height=230,
            above=legend(entries),
        )
    return body


def _longest(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The longest run of each size, by size; of several seeds the first."""
    found: dict[float, Mapping[str, Any]] = {}
    for run in runs:
        before = found.get(run["params"])
        if before is None or run["tokens"] > before["tokens"]:
            found[run["params"]] = run
    return [found[size] for size in sorted(found)]


def _gain(name: str, gain: Mapping[str, Any]) -> str:
    pays = gain["pays_from"]
    where = "it is nowhere seen to pay" if pays is None else (
        f"it pays from {scales.compute_label(pays)} FLOPs on"
    )  # fmt: skip
    level = numbers.percent(100 * gain["level"], 0)
    return "<h3>Step by step or directly</h3>" + figure(
        partial(gain_chart, name, gain),
        f"<b>{text(name)}</b>: what steps gain over a direct answer, with its {level} interval at "
        f"each compute; {where}, and with scale the gain "
        f"{'is steady' if gain['trend'] == 'steady' else text(gain['trend'])}.",
        height=240,
    )


def _table(document: Mapping[str, Any]) -> str:
    runs = document["runs"]
    columns = [Column("task"), Column("metric"), Column("chance", True),
               *(Column(_run_words(run), True) for run in runs)]  # fmt: skip
    rows = []
    for name, task in document["tasks"].items():
        cells = [_cell(task["runs"][run["run_id"]]) for run in runs]
        chance = "" if task["chance"] is None else f"{task['chance']:.2f}"
        rows.append([text(name), text(task["metric"]), chance, *cells])
    return table("Scores of the ladder’s runs", columns, rows)


def _run_words(run: Mapping[str, Any]) -> str:
    """A run in plain words: size and horizon."""
    return f"{numbers.count(run['params'])} on {numbers.count(run['tokens'])}"


def _cell(scored: Mapping[str, Any]) -> str:
    low, high = scored["low"], scored["high"]
    interval = "" if low is None or high is None else f" <small>{low:.3f}–{high:.3f}</small>"
    grey = " at chance" if scored["standing"] == "at" else ""
    return f"{scored['score']:.3f}{interval}{grey}"
