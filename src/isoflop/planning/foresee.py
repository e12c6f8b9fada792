"""What `isoflop train`, `ladder` and `mixture` will take on this machine, from a few real steps.

Not for choosing a run (`planner`), nor for other machines.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from isoflop.core.errors import RecipeError
from isoflop.core.foresight import Foresight, Span
from isoflop.models.accounting import count_parameters
from isoflop.planning.ladder import (
    Job,
    first_own_token,
    jobs_of,
    lanes_of,
    last_metrics,
    relative_cost,
)
from isoflop.planning.launchers import local_lanes
from isoflop.planning.mixing_recipe import MixtureRecipe
from isoflop.planning.recipe import LadderRecipe
from isoflop.training.recipe import TrainRecipe

BYTES_KEPT = 12
"""Of a checkpoint, per parameter: weights and two moments, float32."""
CHECKPOINTS = 2
"""At once: the last, and the one being written."""
LOG_BYTES = 260
"""Of a line of metrics.jsonl."""
SPREAD = 1.25
"""Runs of the demo ended within this factor of their promised time; benchmarks.md."""
LADDER_SPREAD = 1.5
"""Of a ladder whose other sizes are scaled from one that was timed."""


def foresee_train(recipe: TrainRecipe, out: Path) -> Foresight:
    """Time a few steps of the run, and count what it writes.

    Raises:
        RecipeError: The run is none of next-token prediction on one device, which alone is timed.
        ArtifactError: The shards cannot be used.
    """
    from isoflop.data.shards import open_shards
    from isoflop.training.probe import probe

    if recipe.kind != "causal" or recipe.parallel.devices > 1:
        raise RecipeError(
            f"--plan times next-token training on one device, not {recipe.kind} on "
            f"{recipe.parallel.devices} device(s)",
            where="--plan",
            fix="`isoflop plan` foretells runs on many devices",
        )
    found = probe(recipe)
    vocab_size = open_shards(recipe.data.directories[0]).vocab_size
    config = recipe.model.decoder_config(vocab_size, recipe.train.seq_len)
    params = count_parameters(config).params_total
    done, _ = last_metrics(out)
    left = max(0.0, 1 - done / recipe.train.tokens)
    evaluations = recipe.train.evaluations * found.evaluation_seconds
    seconds = left * (recipe.steps * found.seconds_per_step + evaluations)
    begun = f", of which {1 - left:.0%} are done" if done else ""
    return Foresight(
        Span(seconds, seconds / SPREAD, seconds * SPREAD),
        found.peak_memory_bytes,
        _run_bytes(recipe, params),
        (
            f"{recipe.steps:,} steps of {1000 * found.seconds_per_step:.3g} ms, measured now on "
            f"this machine{begun}",
            f"{params:,} parameters on {recipe.train.tokens:,} tokens",
        ),
    )


def foresee_ladder(recipe: LadderRecipe, out: Path) -> Foresight:
    """Time a few steps of the largest size, and scale them to the others.

    Raises:
        ArtifactError: The shards cannot be used.
    """
    from isoflop.training.probe import probe

    jobs = jobs_of(recipe)
    lanes, threads = lanes_of(recipe)
    largest = max(jobs, key=lambda job: job.rung.d_model * job.rung.n_layers)
    run = recipe.run_recipe(largest.rung, largest.tokens, largest.number)
    run = replace(run, train=replace(run.train, threads=threads))
    found = probe(run)
    own = largest.tokens - first_own_token(recipe, largest)
    one_step = recipe.train.global_batch_tokens * relative_cost(recipe, largest) / own
    per_unit = found.seconds_per_step / one_step
    left = sum(relative_cost(recipe, job) * (1 - _done(recipe, out, job)) for job in jobs)
    evaluations = len(jobs) * recipe.train.evaluations * found.evaluation_seconds
    seconds = (left * per_unit + evaluations) / lanes
    return Foresight(
        Span(seconds, seconds / LADDER_SPREAD, seconds * LADDER_SPREAD),
        lanes * found.peak_memory_bytes,
        sum(_disk_bytes(recipe.run_recipe(j.rung, j.tokens, j.number)) for j in jobs),
        (
            f"{len(jobs)} runs, {lanes} side by side; a step of the largest size takes "
            f"{1000 * found.seconds_per_step:.3g} ms, measured now with one running, and the "
            "others are scaled from it",
        ),
    )


def foresee_mixture(recipe: MixtureRecipe, out: Path) -> Foresight:
    """Time a few steps of one proxy; the others and the checks cost the same.

    Raises:
        ArtifactError: The shards cannot be used.
    """
    from isoflop.training.probe import probe

    lanes, threads = local_lanes(recipe.processes)
    even = dict.fromkeys(recipe.training, 1 / len(recipe.training))
    run = recipe.run_recipe(even, 0)
    run = replace(run, train=replace(run.train, threads=threads))
    found = probe(run)
    runs = recipe.proxies + recipe.checks + recipe.natural_checks
    logs = [last_metrics(path)[0] for path in (out / "runs").glob("*")]
    left = runs - sum(min(1.0, tokens / recipe.train.tokens) for tokens in logs)
    each = run.steps * found.seconds_per_step
    each += recipe.train.evaluations * found.evaluation_seconds
    seconds = left * each / lanes
    return Foresight(
        Span(seconds, seconds / LADDER_SPREAD, seconds * LADDER_SPREAD),
        lanes * found.peak_memory_bytes,
        runs * _disk_bytes(run),
        (
            f"{runs} runs, {left:.3g} of them to do, {lanes} side by side; a step takes "
            f"{1000 * found.seconds_per_step:.3g} ms, measured now with one running",
        ),
    )


def _disk_bytes(recipe: TrainRecipe) -> int:
    """Bytes below a run's directory, at most."""
    from isoflop.data.shards import open_shards

    vocab_size = open_shards(recipe.data.directories[0]).vocab_size
    config = recipe.model.decoder_config(vocab_size, recipe.train.seq_len)
    return _run_bytes(recipe, count_parameters(config).params_total)


def _run_bytes(recipe: TrainRecipe, params: int) -> int:
    kept = CHECKPOINTS + len(recipe.train.keep_checkpoints_at)
    logs = LOG_BYTES * recipe.steps // recipe.train.log_every
    return 4 * params + kept * BYTES_KEPT * params + logs


def _done(recipe: LadderRecipe, out: Path, job: Job) -> float:
    tokens, _ = last_metrics(out / "runs" / job.run_id)
    return min(1.0, tokens / job.tokens)
