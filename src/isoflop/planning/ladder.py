"""Running a ladder: trunks and their cool-downs side by side, resumable, into `runs.csv`.

Not for choosing the rungs (a recipe, or `demo`) nor for fitting them (`laws`).
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from isoflop.core.artifact import MANIFEST, write_atomic, write_manifest
from isoflop.core.console import SILENT, Progress
from isoflop.core.hardware import calibrate, machine
from isoflop.core.lock import locked
from isoflop.core.recipe import to_dict
from isoflop.planning.launchers import LOCAL, local_lanes, open_lanes
from isoflop.planning.recipe import LadderRecipe, RungConfig
from isoflop.planning.workers import train_in_worker
from isoflop.training.recipe import TrainRecipe
from isoflop.training.run_directory import CONFIG, claim

if TYPE_CHECKING:
    from isoflop.training.pretrain import TrainResult

RUNS = "runs.csv"
COLUMNS = (
    "run_id",
    "params",
    "params_total",
    "tokens",
    "loss",
    "bits_per_byte",
    "flops",
    "learning_rate",
    "batch_tokens",
    "seed",
    "steps",
    "warmup_tokens",
    "schedule",
    "seconds",
    "family",
)
_WATCH_SECONDS = 0.5


@dataclass(frozen=True)
class Ladder:
    """A finished ladder."""

    directory: Path
    runs: tuple[TrainResult, ...]
    """All runs, by size and horizon."""
    seconds: float
    """Wall-clock seconds of this call."""


@dataclass(frozen=True)
class Job:
    """One run of a ladder. The longest of a size and seed is the trunk the others branch from."""

    run_id: str
    rung: RungConfig
    tokens: int
    trunk: str | None
    """run_id of the trunk it branches from; None for a run from scratch, as the trunk is."""
    number: int = 0
    """Which of its size's trunks it belongs to."""
    branch_points: tuple[int, ...] = ()
    """For a trunk: the token counts at which its branches leave it."""


def jobs_of(recipe: LadderRecipe) -> tuple[Job, ...]:
    """The runs of a ladder by size and horizon."""
    jobs = []
    trunks = [(rung, number) for rung in recipe.rungs for number in range(rung.seeds)]
    for rung, number in trunks:
        horizons = sorted({recipe.whole_batches(tokens) for tokens in rung.tokens})
        longest = horizons[-1]
        trunk_id = _run_id(rung, longest, number)
        starts = {tokens: recipe.decay_start(tokens) for tokens in horizons[:-1]}
        for tokens, start in starts.items():
            # One that decays from its first step on has no part of the trunk to share.
            trunk = trunk_id if start else None
            jobs.append(Job(_run_id(rung, tokens, number), rung, tokens, trunk, number))
        leaves = tuple(sorted({start for start in starts.values() if start}))
        jobs.append(Job(trunk_id, rung, longest, None, number, leaves))
    return tuple(jobs)


def run_ladder(
    recipe: LadderRecipe, out: Path, progress: Progress = SILENT, launcher: str = LOCAL
) -> Ladder:
    """Run or continue a ladder in the directory `out`; writes `runs.csv` after every run.

    Args:
        launcher: Where the runs are trained (`planning.launchers.open_lanes`).

    Raises:
        RunError: `out` holds a ladder of another recipe, or a worker died.
        RecipeError: There is no such launcher.
    """
    began = time.monotonic()
    with locked(out):
        claim(out, recipe, "ladder")
        calibrate()  # once here, so that workers find it measured instead of measuring at once
        results = _run_jobs(recipe, out, progress, launcher)
        if not (out / MANIFEST).exists():
            write_manifest(
                out,
                kind="ladder",
                config=to_dict(recipe),
                machine=machine(),
                inputs=recipe.data.directories,
                seed=recipe.train.seed,
                files=[out / RUNS, out / CONFIG, *sorted((out / "runs").glob(f"*/{MANIFEST}"))],
            )
    return Ladder(out, results, time.monotonic() - began)


def _run_jobs(
    recipe: LadderRecipe, out: Path, progress: Progress, launcher: str
) -> tuple[TrainResult, ...]:
    jobs = jobs_of(recipe)
    cost = partial(relative_cost, recipe)
    waiting = {job.run_id: job for job in sorted(jobs, key=cost, reverse=True)}
    done: dict[str, TrainResult] = {}
    running: dict[Future[TrainResult], Job] = {}
    progress.start("ladder", sum(map(cost, jobs)), "units of work")
    with open_lanes(launcher, recipe.processes, out) as lanes:
        while waiting or running:
            for job in list(waiting.values()):
                if len(running) < lanes.count and (job.trunk is None or job.trunk in done):
                    del waiting[job.run_id]
                    work = (
                        _recipe(recipe, job),
                        run_directory(out, job.run_id),
                        lanes.threads,
                        _branch_point(recipe, job, out),
                    )
                    running[lanes.pool.submit(train_in_worker, *work)] = job
            finished, _ = wait(running, timeout=_WATCH_SECONDS, return_when=FIRST_COMPLETED)
            for future in finished:
                job = running.pop(future)
                done[job.run_id] = future.result()
                _write_table(recipe, [j for j in jobs if j.run_id in done], done, out)
            part = sum(cost(j) * _fraction_done(recipe, out, j) for j in running.values())
            whole = sum(cost(j) for j in jobs if j.run_id in done)
            progress.advance(whole + part, f"{len(done)} of {len(jobs)} runs")
    progress.finish(f"{len(done)} runs")
    return tuple(done[job.run_id] for job in jobs)


def first_own_token(recipe: LadderRecipe, job: Job) -> int:
    """The token count at which a run leaves the trunk it branches from; 0 for a run of its own."""
    return 0 if job.trunk is None else recipe.decay_start(job.tokens)


def computed_flops(recipe: LadderRecipe, flops: Mapping[str, float]) -> float:
    """FLOPs that a ladder really took: the part of a trunk that runs share counts once.

    Args:
        flops: By run_id, of each run from its first token on, as in `runs.csv`.
    """
    return sum(
        flops[job.run_id] * (1 - first_own_token(recipe, job) / job.tokens)
        for job in jobs_of(recipe)
    )


def lanes_of(recipe: LadderRecipe) -> tuple[int, int]:
    """(runs side by side, cores of each)."""
    return local_lanes(recipe.processes)


def run_directory(out: Path, run_id: str) -> Path:
    """The run directory of one run of the ladder in `out`."""
    return out / "runs" / run_id


def _recipe(recipe: LadderRecipe, job: Job) -> TrainRecipe:
    run_recipe = recipe.run_recipe(job.rung, job.tokens, job.number)
    keep = job.branch_points
    return replace(run_recipe, train=replace(run_recipe.train, keep_checkpoints_at=keep))


def _branch_point(recipe: LadderRecipe, job: Job, out: Path) -> Path | None:
    """The trunk's checkpoint that a cool-down begins from."""
    if job.trunk is None:
        return None
    step = recipe.decay_start(job.tokens) // recipe.train.global_batch_tokens
    return run_directory(out, job.trunk) / "checkpoints" / f"step_{step:08d}"


def last_metrics(run: Path) -> tuple[int, float]:
    """(tokens, loss) of the last line a run has logged so far; (0, nan) before the first."""
    path = run / "metrics.jsonl"
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 2048))
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is unfinished
    except FileNotFoundError:
        return 0, math.nan
    if not lines or not lines[-1].startswith(b"{"):
        return 0, math.nan
    row = json.loads(lines[-1])
    return row["tokens"], row["loss"]


def _fraction_done(recipe: LadderRecipe, out: Path, job: Job) -> float:
    """Share of a running job's own tokens that it has logged."""
    tokens, _ = last_metrics(run_directory(out, job.run_id))
    first = first_own_token(recipe, job)
    return min(1.0, max(0, tokens - first) / (job.tokens - first))


def _write_table(
    recipe: LadderRecipe, jobs: Sequence[Job], done: Mapping[str, TrainResult], out: Path
) -> None:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for job in jobs:
        result = done[job.run_id]
        run_recipe = recipe.run_recipe(job.rung, job.tokens, job.number)
        table.writerow(
            {
                "run_id": job.run_id,
                "params": result.params,
                "params_total": result.params_total,
                "tokens": result.tokens,
                "loss": repr(result.loss),
                "bits_per_byte": repr(result.bits_per_byte),
                "flops": f"{result.flops:.6g}",
                "learning_rate": f"{run_recipe.optimizer.learning_rate:.6g}",
                "batch_tokens": recipe.train.global_batch_tokens,
                "seed": run_recipe.train.seed,
                "steps": result.steps,
                "warmup_tokens": recipe.optimizer.warmup_tokens,
                "schedule": recipe.optimizer.schedule,
                "seconds": f"{result.seconds:.2f}",
                "family": "decoder",
            }
        )
    write_atomic(out / RUNS, text.getvalue())


def _run_id(rung: RungConfig, tokens: int, number: int) -> str:
    again = f"-t{number}" if number else ""
    return f"d{rung.d_model}-l{rung.n_layers}-{tokens}{again}"


def relative_cost(recipe: LadderRecipe, job: Job) -> float:
    """Relative time of a run, for order and progress.

    Narrow models take longer than their FLOPs say: what is done once per token and width weighs
    beside the matrix products. Measured on two cores from width 32 to 128.
    """
    first = first_own_token(recipe, job)
    width = job.rung.d_model
    return (job.tokens - first) * job.rung.n_layers * (24 + width + width**2 / 1024)
