"""Results on disk and side by side: `results.json`, `items.jsonl`, paired differences.

Not for the page that shows them (`reporting`) nor for the terminal (`cli/evaluate.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isoflop.core.artifact import (
    build_directory,
    read_json,
    read_manifest,
    write_atomic,
    write_json,
    write_manifest,
)
from isoflop.core.errors import ArtifactError, DataError
from isoflop.core.hardware import machine
from isoflop.evaluation.statistics import Difference, paired_difference
from isoflop.evaluation.task import Outcome, Scored, by_group, score_records

RESULTS, ITEMS = "results.json", "items.jsonl"


@dataclass(frozen=True)
class TaskResult:
    """One task's figures."""

    scored: Scored
    groups: dict[str, Scored]
    extra: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """As in `results.json`."""
        groups = {name: asdict(scored) for name, scored in self.groups.items()}
        return {**asdict(self.scored), "groups": groups, "extra": self.extra}


@dataclass(frozen=True)
class Comparison:
    """Another model's results on the same items, ours less theirs."""

    differences: dict[str, Difference]
    left_out: dict[str, str]
    """Task → why it cannot be paired."""


def summarise(outcome: Outcome) -> TaskResult:
    """The score of an outcome and of its groups."""
    counted = [record for record in outcome.records if record.counts]
    return TaskResult(score_records(counted, outcome), by_group(outcome), outcome.extra)


def rows(task: str, outcome: Outcome) -> Iterator[dict[str, Any]]:
    """The items of an outcome as rows of `items.jsonl`."""
    for record in outcome.records:
        yield {"task": task, **asdict(record)}


def write_results(
    out: Path,
    outcomes: Mapping[str, Outcome],
    results: Mapping[str, TaskResult],
    config: Mapping[str, Any],
    inputs: Sequence[Path],
    seed: int,
) -> None:
    """Write the directory, whole or not at all.

    Raises:
        ArtifactError: `out` holds something else.
    """
    with build_directory(out) as aside:
        write_json(aside / RESULTS, {name: result.document() for name, result in results.items()})
        lines = [
            json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
            for name, outcome in outcomes.items()
            for row in rows(name, outcome)
        ]
        write_atomic(aside / ITEMS, "".join(lines))
        write_manifest(
            aside, kind="evaluation", config=config, machine=machine(), inputs=inputs, seed=seed
        )


def compare(ours: Mapping[str, Outcome], other: Path) -> Comparison:
    """Paired differences from the items of another evaluation.

    Raises:
        ArtifactError: `other` is no evaluation.
    """
    read_manifest(other, "evaluation", verify=True)
    theirs: dict[str, dict[str, dict[str, Any]]] = {}
    try:
        for line in (other / ITEMS).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            theirs.setdefault(row["task"], {})[row["id"]] = row
    except (json.JSONDecodeError, KeyError, TypeError):
        raise ArtifactError("not the items of an evaluation", where=str(other / ITEMS)) from None
    read_json(other / RESULTS)
    differences: dict[str, Difference] = {}
    left_out: dict[str, str] = {}
    for name, outcome in ours.items():
        try:
            differences[name] = _paired(outcome, theirs.get(name, {}))
        except DataError as error:
            left_out[name] = error.what
    return Comparison(differences, left_out)


def _paired(outcome: Outcome, theirs: Mapping[str, Mapping[str, Any]]) -> Difference:
    mine = {record.id: record for record in outcome.records if record.counts}
    counted = {key for key, row in theirs.items() if row["counts"]}
    if not counted:
        raise DataError("the other evaluation has not this task")
    if set(mine) != counted or any(
        record.weight != theirs[key]["weight"]
        or _question(record.detail) != _question(theirs[key]["detail"])
        for key, record in mine.items()
    ):
        raise DataError("the items are not the same: another seed, limit or file")
    order = sorted(mine)
    return paired_difference(
        [mine[key].score for key in order],
        [theirs[key]["score"] for key in order],
        [mine[key].weight for key in order],
    )


def _question(detail: Mapping[str, Any]) -> tuple[object, ...]:
    """What was asked, whoever answered."""
    return tuple(detail.get(key) for key in ("context", "options", "prompt", "gold"))
