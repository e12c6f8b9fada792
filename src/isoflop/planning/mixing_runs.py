"""The small runs of a mixture search: side by side, resumable, their losses by domain in a table.

Not for which mixtures there are (`mixing_design`) nor what follows from the losses (`mixing`).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.core.artifact import write_atomic
from isoflop.core.console import Progress
from isoflop.core.hardware import usable_cores
from isoflop.laws.tables import LOSS, WEIGHT
from isoflop.planning.ladder import last_metrics, run_directory
from isoflop.planning.mixing_recipe import MixtureRecipe
from isoflop.planning.workers import train_in_worker, workers

if TYPE_CHECKING:
    from isoflop.training.pretrain import TrainResult

MIXTURES = "mixtures.csv"
_WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class Mixed:
    """One run of the search."""

    run_id: str
    weights: dict[str, float]
    """Share of each source that is mixed."""
    number: int
    """Sets its seed."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    losses: dict[str, float]
    """Held-out loss of each domain, nats per token."""
    params: int
    tokens: int
    seconds: float


def train_mixtures(
    recipe: MixtureRecipe, runs: Sequence[Mixed], out: Path, progress: Progress, label: str
) -> dict[str, Outcome]:
    """Train what is not trained yet, in worker processes; by run_id.

    Raises:
        RunError: A run diverged, or a worker was killed.
    """
    lanes = recipe.processes or min(8, usable_cores())
    threads = max(1, usable_cores() // lanes)
    waiting = list(runs)
    running: dict[Future[TrainResult], Mixed] = {}
    done: dict[str, Outcome] = {}
    tokens = recipe.train.tokens
    progress.start(label, tokens * len(runs), "tokens")
    with workers(lanes, out) as pool:
        while waiting or running:
            while waiting and len(running) < lanes:
                run = waiting.pop(0)
                own = recipe.run_recipe(run.weights, run.number)
                work = (own, run_directory(out, run.run_id), threads)
                running[pool.submit(train_in_worker, *work)] = run
            finished, _ = wait(running, timeout=_WATCH_SECONDS, return_when="FIRST_COMPLETED")
            for future in finished:
                run = running.pop(future)
                done[run.run_id] = _outcome(recipe, future.result())
            under_way = [last_metrics(run_directory(out, r.run_id))[0] for r in running.values()]
            part = sum(min(tokens, max(0, each)) for each in under_way)
            progress.advance(tokens * len(done) + part, f"{len(done)} of {len(runs)} runs")
    progress.finish(f"{len(done)} runs")
    return done


def write_mixtures(
    recipe: MixtureRecipe, runs: Sequence[Mixed], outcomes: Mapping[str, Outcome], path: Path
) -> None:
    """The table that `isoflop laws fit --form mixture` reads."""
    text = io.StringIO()
    rows: list[dict[str, Any]] = [
        {
            "run_id": run.run_id,
            **{WEIGHT + name: repr(run.weights[name]) for name in recipe.training},
            **{LOSS + name: repr(outcomes[run.run_id].losses[name]) for name in recipe.domains},
            "params": outcomes[run.run_id].params,
            "tokens": outcomes[run.run_id].tokens,
            "seed": recipe.run_recipe(run.weights, run.number).train.seed,
            "seconds": f"{outcomes[run.run_id].seconds:.2f}",
        }
        for run in runs
    ]
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomic(path, text.getvalue())


def _outcome(recipe: MixtureRecipe, result: TrainResult) -> Outcome:
    last: dict[str, float] = json.loads((result.run / "evals.jsonl").read_text().splitlines()[-1])
    losses = {name: last[f"loss_{name}"] for name in recipe.domains}
    return Outcome(losses, result.params, result.tokens, result.seconds)
