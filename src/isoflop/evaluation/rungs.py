"""Scoring the runs of a ladder: items that `isoflop emergence` takes, and what each run can do.

Not for training them (`planning.ladder`), nor for the page that shows it (`reporting/abilities`).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isoflop.core.artifact import MANIFEST, read_json, read_manifest, write_atomic, write_json
from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import ArtifactError
from isoflop.evaluation.evaluate import evaluate
from isoflop.evaluation.results import ITEMS, RESULTS
from isoflop.laws.emergence import emergence
from isoflop.laws.score_trends import gain_over_scale
from isoflop.laws.scores import ScoreTable, read_scores

SCORES, ABILITIES = "scores.jsonl", "abilities.json"
STEPPED, DIRECT = "step by step", "direct"
DRAWS = 200
"""Simulations behind each verdict."""


@dataclass(frozen=True)
class RungScores:
    """What the runs of a ladder can do."""

    items: Path
    """`scores.jsonl`: a row per run and item, for `isoflop emergence`."""
    document: dict[str, Any]
    """As in `abilities.json`."""


def evaluate_rungs(
    ladder: Path,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> RungScores:
    """Score all finished runs of a ladder, each once, and write `scores.jsonl` and
    `abilities.json` beside `runs.csv`.

    A run already scored on the same tasks, limit and seed is not asked again.

    Args:
        ladder: The directory of a finished ladder.
        tasks: As `evaluate` takes them.
        limit: Most items of each group of a task.

    Raises:
        ArtifactError: The ladder has no table of runs, or a model cannot be read.
        RecipeError: A task is unknown or lacks its file.
    """
    runs = _runs(ladder)
    progress.start("abilities", len(runs), "runs")
    results: dict[str, dict[str, Any]] = {}
    for done, run_id in enumerate(runs):
        progress.advance(done, run_id)
        out = ladder / "scores" / run_id
        if not _scored(out, tasks, limit, seed):
            evaluate(ladder / "runs" / run_id / "model", tasks, out, limit=limit, seed=seed)
        results[run_id] = read_json(out / RESULTS)
    lines = [
        json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
        for run_id, run in runs.items()
        for row in _item_rows(ladder / "scores" / run_id / ITEMS, run_id, run)
    ]
    items = ladder / SCORES
    write_atomic(items, "".join(lines))
    document = {"runs": [{"run_id": name, **run} for name, run in runs.items()],
                "tasks": _by_task(results), **_judged(items, lines, results)}  # fmt: skip
    write_json(ladder / ABILITIES, document)
    progress.finish(f"{len(runs)} runs scored")
    return RungScores(items, document)


def _runs(ladder: Path) -> dict[str, dict[str, float]]:
    """Size, horizon, compute and seed of each run, by growing compute."""
    table = ladder / "runs.csv"
    if not table.is_file():
        raise ArtifactError("the ladder has no table of runs", where=str(table))
    with open(table, encoding="utf-8", newline="") as file:
        found = {
            row["run_id"]: {
                name: float(row[name]) for name in ("params", "tokens", "flops", "seed")
            }
            for row in csv.DictReader(file)
        }
    return dict(sorted(found.items(), key=lambda pair: (pair[1]["flops"], pair[0])))


def _scored(out: Path, tasks: Sequence[str], limit: int | None, seed: int) -> bool:
    if not (out / MANIFEST).is_file():
        return False
    from isoflop.core.artifact import sha256_json

    manifest = read_manifest(out, "evaluation")
    asked = {"tasks": list(tasks), "limit": limit, "seed": seed}
    return manifest.config_sha256 == sha256_json(asked)


def _item_rows(path: Path, run_id: str, run: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """The items of one run whose score is right or wrong; ways of asking are tasks of their own."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["score"] not in (0, 1) or row["weight"] != 1:
            continue
        task = row["task"] if row["counts"] else f"{row['task']}: {_control(row)}"
        found = {
            "task": task, "item": row["id"], "run_id": run_id, "params": run["params"],
            "tokens": run["tokens"], "flops": run["flops"], "seed": int(run["seed"]),
            "score": int(row["score"]),
        }  # fmt: skip
        logprob = _logprob(row["detail"])
        yield found if logprob is None else {**found, "logprob": logprob}


def _control(row: Mapping[str, Any]) -> str:
    """The name of what does not count: `direct`, or a group such as `k=4`."""
    group = str(row["groups"][0]) if row["groups"] else "other"
    return DIRECT if group.endswith(DIRECT) else group


def _logprob(detail: Mapping[str, Any]) -> float | None:
    """Of the right answer: among the options where there are some."""
    if "logprobs" in detail:
        logs = detail["logprobs"]
        top = max(logs)
        total = top + math.log(math.fsum(math.exp(each - top) for each in logs))
        return min(0.0, float(logs[detail["gold"]] - total))
    return None if "logprob" not in detail else min(0.0, float(detail["logprob"]))


def _by_task(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Task → its metric and chance, and each run's score with groups and further figures."""
    names = dict.fromkeys(name for result in results.values() for name in result)
    kept = ("score", "low", "high", "n", "standing")
    return {
        name: {
            **{key: next(iter(results.values()))[name][key]
               for key in ("metric", "chance", "higher_is_better")},
            "runs": {
                run_id: {
                    **{key: result[name][key] for key in kept},
                    "groups": {
                        group: {key: scored[key] for key in kept}
                        for group, scored in result[name]["groups"].items()
                    },
                }
                for run_id, result in results.items()
            },
        }
        for name in names
    }  # fmt: skip


def _judged(
    items: Path, lines: Sequence[str], results: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Verdicts on emergence of every task, and what steps gain where both ways were asked."""
    if not lines:
        return {"emergence": {}, "gains": {}}
    first = next(iter(results.values()))
    chances = {name: float(task["chance"] or 0.0) for name, task in first.items()}
    table = read_scores(items, chance=chances)
    counted = [task for task in table.tasks if ": " not in task.name]
    found = emergence(counted, draws=DRAWS)
    return {
        "emergence": {each.task: each.to_dict() for each in found},
        "gains": {name: asdict(gain) for name, gain in _gains(table)},
    }


def _gains(table: ScoreTable) -> Iterable[tuple[str, Any]]:
    tasks = {task.name: task for task in table.tasks}
    for name, task in tasks.items():
        other = tasks.get(f"{name}: {DIRECT}")
        if other is not None and task.rungs > 1:
            yield name, gain_over_scale(task, other)
