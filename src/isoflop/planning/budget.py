"""From minutes on this machine to a ladder and a target: sizes, horizons, predicted seconds.

Speeds are measured by training a few real steps of every size. Not for running either.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import RecipeError
from isoflop.core.hardware import usable_cores
from isoflop.models.accounting import count_parameters, flops_per_token
from isoflop.models.recipe import ModelConfig
from isoflop.planning.ladder import jobs_of, lanes_of
from isoflop.planning.recipe import LadderRecipe, RungConfig
from isoflop.planning.workers import probe_in_worker, workers
from isoflop.training.recipe import TrainConfig, TrainRecipe

if TYPE_CHECKING:
    from isoflop.training.probe import Probe

TARGET_OVER_LARGEST = 8.2
"""The target costs at least this many times the FLOPs of the largest rung."""
WIDTH_UNIT = 128
"""Target widths are multiples of this, so that 1/4, 1/2 and 3/4 of them are multiples of 32."""
TOKENS_PER_PARAMETER = 6.5
"""A wider target is chosen only if it still sees this many tokens per parameter."""
MOST_TOKENS_PER_PARAMETER = 12.5
"""A target sees at most this many tokens per parameter, even where the time holds more: forecasts
were scored up to there. A longer target, at 22.7, came to 2.1 % more than its law said, where
shorter ones come to 1 % less (docs/benchmarks.md)."""
RUN_OVERHEAD_SECONDS = 1.5
"""Opening shards, building, saving: what a run costs beside its steps and evaluations."""
WORKER_START_SECONDS = 4.0
"""A fresh process until it trains; importing torch is most of it."""
HORIZON_STEP = 0.7
"""Ratio of neighbouring horizons of a size, about 1/√2: wide enough to see a slope through the
noise of a run, narrow enough to stay clear of the first few hundred steps, which follow no power
law."""
MIN_STEPS = 48
"""Steps of the shortest rung; shorter ones are nothing but warm-up."""


@dataclass(frozen=True)
class Budget:
    """A ladder and a target that fit the time, with what they are predicted to take."""

    ladder: LadderRecipe
    target: TrainRecipe
    target_params: int
    """Weights of the target, except input embeddings."""
    target_flops: float
    ladder_seconds: float
    target_seconds: float
    target_peak_memory_bytes: int
    """Measured over a few of the target's own steps."""


@dataclass(frozen=True)
class Speeds:
    """Probes of the sizes of a ladder and its target."""

    rungs: Mapping[int, Probe]
    """By width; measured with as many runs side by side as the ladder will have."""
    target: Probe


def plan_budget(
    base: LadderRecipe,
    target_train: TrainConfig,
    seconds: float,
    vocab_size: int,
    max_tokens: int,
    where: Path,
    progress: Progress = SILENT,
) -> Budget:
    """Choose the longest target, and the ladder that foretells it, that fit `seconds`.

    Args:
        base: What all runs share; its rungs are replaced.
        target_train: How the target is logged and evaluated; its length is replaced.
        max_tokens: Training tokens there are; the target sees each at most once.
        where: Named in errors about killed workers.

    Raises:
        RecipeError: The time does not even hold the shortest useful ladder.
    """
    width = WIDTH_UNIT
    speeds = _measure(base, width, target_train, where, progress)
    while True:
        wider = width + WIDTH_UNIT
        longest = _longest(base, width, target_train, speeds, seconds, vocab_size, max_tokens)
        # Costs grow about with the square of the width: do not probe what cannot be chosen.
        params = _params(base, wider, vocab_size)
        if longest * (width / wider) ** 2 < TOKENS_PER_PARAMETER * params:
            break
        width = wider
        speeds = _measure(base, width, target_train, where, progress)
    if longest < _shortest(base, width, vocab_size):
        raise RecipeError(
            f"{seconds / 60:.1f} minutes are too few for a ladder on this machine",
            where="minutes",
            fix="Give it more time; 3 minutes suffice on two cores",
        )
    most = base.whole_batches(int(MOST_TOKENS_PER_PARAMETER * _params(base, width, vocab_size)))
    return _budget(base, width, target_train, speeds, min(longest, most), vocab_size)


def rungs_for(
    base: LadderRecipe, width: int, tokens: int, vocab_size: int
) -> tuple[RungConfig, ...]:
    """Three sizes below a target of `width`, each cooled down at several horizons.

    The horizons step downwards by `HORIZON_STEP` from the longest that a rung may cost:
    1/`TARGET_OVER_LARGEST` of the target's FLOPs, and not beyond the target's own tokens. So the
    smallest size sees nearly the target's horizon and the largest nearly its size; what is left
    to foretell is their combination. The smallest size has two trunks and the larger ones three
    each: the luck of trunks is most of what a forecast is off by (docs/decisions.md).
    """
    seq_len = base.train.seq_len

    def flops(d_model: int) -> float:
        config = _model(base, d_model, n_layers(width)).decoder_config(vocab_size, seq_len)
        return flops_per_token(config, seq_len).training

    rungs = []
    for quarter, count, seeds in ((1, 4, 2), (2, 4, 3), (3, 3, 3)):
        d_model = width * quarter // 4
        longest = min(tokens, tokens * flops(width) / (TARGET_OVER_LARGEST * flops(d_model)))
        horizons = {base.whole_batches(int(longest * HORIZON_STEP**i)) for i in range(count)}
        rungs.append(RungConfig(d_model, n_layers(width), tuple(sorted(horizons)), seeds))
    return tuple(rungs)


def n_layers(width: int) -> int:
    """Depth of a target of this width and of all its rungs.

    The smallest has one layer. Two layers and more can learn to copy from earlier in the context
    (induction heads, Olsson et al. 2022), and after a few million tokens some seeds have done so
    and others not, ten per cent of the loss apart: no ladder foretells that (docs/decisions.md).
    """
    return 1 if width == WIDTH_UNIT else 2 + width // WIDTH_UNIT


def _budget(
    base: LadderRecipe,
    width: int,
    target_train: TrainConfig,
    speeds: Speeds,
    tokens: int,
    vocab_size: int,
) -> Budget:
    rungs = rungs_for(base, width, tokens, vocab_size)
    ladder = replace(base, rungs=rungs)
    target = _target(ladder, width, target_train, tokens)
    config = target.model.decoder_config(vocab_size, target.train.seq_len)
    total = target.steps * target.train.global_batch_tokens
    return Budget(
        ladder=ladder,
        target=target,
        target_params=count_parameters(config).params,
        target_flops=total * flops_per_token(config, target.train.seq_len).training,
        ladder_seconds=_ladder_seconds(ladder, speeds.rungs),
        target_seconds=_target_seconds(target, speeds.target),
        target_peak_memory_bytes=speeds.target.peak_memory_bytes,
    )


def _target(
    ladder: LadderRecipe, width: int, target_train: TrainConfig, tokens: int
) -> TrainRecipe:
    """The target is one more rung: same recipe, same rules, logged in more detail."""
    recipe = ladder.run_recipe(RungConfig(width, n_layers(width), (tokens,)), tokens)
    return replace(recipe, train=replace(target_train, tokens=recipe.train.tokens))


def _longest(
    base: LadderRecipe,
    width: int,
    target_train: TrainConfig,
    speeds: Speeds,
    seconds: float,
    vocab_size: int,
    max_tokens: int,
) -> int:
    """The most target tokens, in whole batches, whose ladder and target fit `seconds`."""

    def fits(batches: int) -> bool:
        tokens = batches * base.train.global_batch_tokens
        if tokens < _shortest(base, width, vocab_size):
            return True
        budget = _budget(base, width, target_train, speeds, tokens, vocab_size)
        return budget.ladder_seconds + budget.target_seconds <= seconds

    low, high = 1, max_tokens // base.train.global_batch_tokens
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    tokens = low * base.train.global_batch_tokens
    return tokens if fits(low) else 0


def _shortest(base: LadderRecipe, width: int, vocab_size: int) -> int:
    """Target tokens at which the shortest rung has `MIN_STEPS` steps."""
    probe_tokens = 1 << 30
    shortest = min(min(r.tokens) for r in rungs_for(base, width, probe_tokens, vocab_size))
    return int(MIN_STEPS * base.train.global_batch_tokens * probe_tokens / shortest) + 1


def _model(base: LadderRecipe, d_model: int, layers: int) -> ModelConfig:
    return replace(base.model, d_model=d_model, n_layers=layers)


def _params(base: LadderRecipe, width: int, vocab_size: int) -> int:
    model = _model(base, width, n_layers(width))
    return count_parameters(model.decoder_config(vocab_size, base.train.seq_len)).params


# --- measured speeds -----------------------------------------------------------------------


def _measure(
    base: LadderRecipe, width: int, target_train: TrainConfig, where: Path, progress: Progress
) -> Speeds:
    """Probe every size as it will run: rungs side by side, the target on all cores."""
    lanes, threads = lanes_of(base)
    widths = [width * quarter // 4 for quarter in (3, 2, 1)]
    batch = base.train.global_batch_tokens
    progress.start("measuring speed", len(widths) + 1, "sizes")
    rungs: dict[int, Probe] = {}
    with workers(lanes, where) as pool:
        for d_model in widths:
            recipe = base.run_recipe(RungConfig(d_model, n_layers(width), (batch,)), batch)
            asked: Sequence[Future[Probe]] = [
                pool.submit(probe_in_worker, recipe, threads) for _ in range(lanes)
            ]
            slowest = max((f.result() for f in asked), key=lambda p: p.seconds_per_step)
            rungs[d_model] = slowest
            progress.advance(len(rungs), f"width {d_model}")
    with workers(1, where) as pool:
        target = _target(base, width, target_train, batch)
        found = pool.submit(probe_in_worker, target, usable_cores()).result()
    progress.finish()
    return Speeds(rungs, found)


def _ladder_seconds(ladder: LadderRecipe, probes: Mapping[int, Probe]) -> float:
    """Play the ladder's schedule through with predicted durations."""
    batch = ladder.train.global_batch_tokens
    lanes, _ = lanes_of(ladder)

    def seconds(rung: RungConfig, tokens: int, evaluations: int) -> float:
        probe = probes[rung.d_model]
        steps = tokens // batch * probe.seconds_per_step
        return steps + evaluations * probe.evaluation_seconds + RUN_OVERHEAD_SECONDS

    ready: list[tuple[float, str]] = []
    later: dict[str, list[tuple[float, str]]] = {}
    for job in jobs_of(ladder):
        if job.trunk is None:
            ready.append((seconds(job.rung, job.tokens, ladder.train.evaluations), job.run_id))
        else:
            rest = job.tokens - ladder.decay_start(job.tokens)
            later.setdefault(job.trunk, []).append((seconds(job.rung, rest, 1), job.run_id))
    free, clock = lanes, WORKER_START_SECONDS
    running: list[tuple[float, str]] = []
    while ready or running:
        ready.sort(reverse=True)
        while ready and free:
            took, run_id = ready.pop(0)
            heapq.heappush(running, (clock + took, run_id))
            free -= 1
        clock, run_id = heapq.heappop(running)
        free += 1
        ready += later.pop(run_id, [])
    return clock


def _target_seconds(target: TrainRecipe, probe: Probe) -> float:
    steps = target.steps * probe.seconds_per_step
    evaluations = target.train.evaluations * probe.evaluation_seconds
    return WORKER_START_SECONDS + steps + evaluations + RUN_OVERHEAD_SECONDS
