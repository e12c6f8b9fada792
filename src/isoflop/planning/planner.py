"""The whole plan of a run from a budget: size, data, shape, rates, layout, time, cost, loss.

Not for carrying it out (`train`, `ladder`). Imports neither torch nor numpy before there is a
budget to plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isoflop.core.errors import RecipeError
from isoflop.models.accounting import count_parameters
from isoflop.planning.cost import PUE, run_cost
from isoflop.planning.forecast import FLOPS_PER_PARAMETER_TOKEN, LossLaw, resolve_law
from isoflop.planning.gpus import get_gpu
from isoflop.planning.memory import USABLE
from isoflop.planning.planned import Checkpoints, Plan, Range
from isoflop.planning.rates import DECAY_SHARE, schedule
from isoflop.planning.rungs import FirstLadder, first_ladder
from isoflop.planning.shape import counted
from isoflop.planning.site import (
    DEFAULT_GPU,
    Design,
    Site,
    Wishes,
    design,
    enough_steps,
    local_site,
    remote_site,
)
from isoflop.planning.timing import spread, sustained_share

if TYPE_CHECKING:
    from isoflop.laws.predict import Prediction

LONGEST_SECONDS = 30 * 86400.0
"""Where no devices are given, so many are taken that the run lasts at most a month."""
MOST_DEVICES = 2**16
ROUNDS = 12
KEPT_SHARES = (1 / 8, 1 / 4, 1 / 2, 1 - DECAY_SHARE, 1.0)
CHECKPOINT_BYTES = 12
"""Per parameter: float32 weights and both moments."""
CHECKPOINT_SECONDS = 1800.0


def plan(
    *,
    flops: float | None = None,
    hours: float | None = None,
    money: float | None = None,
    minutes: float | None = None,
    gpu: str | None = None,
    gpus: int | None = None,
    params: float | None = None,
    tokens: float | None = None,
    law: str | Path | None = None,
    hyperparameters: Path | None = None,
    seq_len: int | None = None,
    vocab_size: int | None = None,
    batch_tokens: int | None = None,
    price: float | None = None,
    tasks: Sequence[Path] = (),
    level: float = 0.9,
) -> Plan:
    """Plan a run.

    Exactly one budget: `flops`; `hours` of the GPUs; `money` in USD; `minutes` of this machine; or
    `params` and `tokens` together. One of `params` and `tokens` beside a budget fixes that one.

    Args:
        gpu: A name of `planning.gpus`.
        gpus: How many; chosen for a budget of FLOPs so that the run lasts at most a month.
        law: A `law.json` or a published name.
        hyperparameters: A `law.json` for learning rate and batch.
        price: USD per GPU-hour, instead of the list price.
        tasks: `law.json`s of the form `loss-to-task`, whose scores to foretell.
        level: Probability that the intervals of loss and scores promise.

    Raises:
        RecipeError: The budget is not one, too small, or its model fits no layout.
        ArtifactError: A law cannot be read.
        TableError: A law does not serve here.
    """
    numbers = {
        "flops": flops, "hours": hours, "money": money, "minutes": minutes, "gpus": gpus,
        "params": params, "tokens": tokens, "seq-len": seq_len, "vocab-size": vocab_size,
        "batch-tokens": batch_tokens, "price": price,
    }  # fmt: skip
    _check(numbers)
    loss_law = resolve_law(law)
    wishes = Wishes(seq_len, vocab_size, batch_tokens, hyperparameters)
    notes: list[str] = []
    if params is not None and tokens is not None:
        flops = FLOPS_PER_PARAMETER_TOKEN * params * tokens
    if flops is not None:
        chosen, length = _of_flops(flops, gpu, gpus, params, tokens, loss_law, wishes, notes)
    else:
        site, seconds = _time(hours, money, minutes, gpu, gpus, price, notes)
        chosen, length = _of_time(seconds, site, params, tokens, loss_law, wishes)
    length = max(1, round(length / chosen.batch_tokens)) * chosen.batch_tokens
    enough_steps(length, chosen.batch_tokens)
    return _plan(chosen, length, loss_law, tasks, price, level, notes)


def _check(numbers: dict[str, float | None]) -> None:
    """Refuse numbers that are not positive, and none or several budgets."""
    wrong = [
        f"{name} = {value:g}"
        for name, value in numbers.items()
        if value is not None and not (math.isfinite(value) and value > 0)
    ]
    if wrong:
        raise RecipeError(f"{', '.join(wrong)}: must be positive", where="plan")
    budgets = [f"--{n}" for n in ("flops", "hours", "money", "minutes") if numbers[n] is not None]
    both = numbers["params"] is not None and numbers["tokens"] is not None
    if len(budgets) + both != 1:
        what = f"{' and '.join(budgets)} are budgets at once" if budgets else "there is no budget"
        if both and budgets:
            what = f"{budgets[0]} is a budget beside --params and --tokens, which are one"
        raise RecipeError(
            what,
            where="plan",
            fix="Give one of --flops, --hours with --gpus, --money, --minutes (of this machine), "
            "or --params with --tokens",
        )
    if numbers["minutes"] is not None and numbers["gpus"] is not None:
        raise RecipeError(
            "--minutes are of this machine, not of GPUs", where="plan", fix="Give --hours instead"
        )


def _split(
    flops: float, params: float | None, tokens: float | None, law: LossLaw
) -> tuple[float, float]:
    """Parameters and tokens of a budget, with one of them perhaps fixed."""
    if params is not None:
        return params, flops / (FLOPS_PER_PARAMETER_TOKEN * params)
    if tokens is not None:
        return flops / (FLOPS_PER_PARAMETER_TOKEN * tokens), tokens
    return law.optimal(flops)


def _of_flops(
    flops: float,
    gpu: str | None,
    gpus: int | None,
    params: float | None,
    tokens: float | None,
    law: LossLaw,
    wishes: Wishes,
    notes: list[str],
) -> tuple[Design, float]:
    """The design and the tokens of a budget of FLOPs."""
    size, length = _split(flops, params, tokens, law)
    if gpus is not None:
        chosen = design(remote_site(gpu, gpus), law, size, length, wishes)
    else:
        chosen = _enough_devices(gpu, law, size, length, wishes)
        notes.append(
            f"no --gpus given: {chosen.site.name} are the fewest (in powers of two) that hold the "
            f"model and finish in {LONGEST_SECONDS / 86400:.0f} days, or come nearest to it"
        )
    fixed = tokens is not None and params is not None
    return chosen, length if fixed else flops / (FLOPS_PER_PARAMETER_TOKEN * chosen.law_params)


def _enough_devices(
    gpu: str | None, law: LossLaw, size: float, length: float, wishes: Wishes
) -> Design:
    flops = FLOPS_PER_PARAMETER_TOKEN * size * length
    busy = flops / (get_gpu(gpu or DEFAULT_GPU).flops * LONGEST_SECONDS)
    devices = 2 ** max(0, math.floor(math.log2(max(1.0, busy))))
    last: Design | None = None
    while True:
        try:
            found = design(remote_site(gpu, devices), law, size, length, wishes)
        except RecipeError as error:
            if error.where == "layout" and last is not None:
                return last  # the batch does not divide over more
            if error.where != "memory" or devices >= MOST_DEVICES:
                raise
        else:
            last = found
            if found.seconds(length) <= LONGEST_SECONDS or devices >= MOST_DEVICES:
                return found
        devices *= 2


def _time(
    hours: float | None,
    money: float | None,
    minutes: float | None,
    gpu: str | None,
    gpus: int | None,
    price: float | None,
    notes: list[str],
) -> tuple[Site, float]:
    """The site and the seconds of a budget of time or money."""
    if minutes is not None:
        return local_site(), 60 * minutes
    if hours is not None:
        if gpus is None:
            raise RecipeError("--hours of how many GPUs?", where="plan", fix="Give --gpus too")
        return remote_site(gpu, gpus), 3600 * hours
    if gpus is None:
        notes.append("no --gpus given: one node of 8")
    site = remote_site(gpu, gpus or 8)
    known = site.gpu.price if price is None else price
    if known is None or money is None:
        raise RecipeError(
            f"there is no list price for {site.gpu.name}", where="price", fix="Give --price"
        )
    return site, 3600 * money / (known * site.devices)


def _of_time(
    seconds: float,
    site: Site,
    params: float | None,
    tokens: float | None,
    law: LossLaw,
    wishes: Wishes,
) -> tuple[Design, float]:
    """The design whose run fills the seconds.

    Time is nearly proportional to FLOPs, so a few proportional corrections find the budget; what
    is left, since sizes come in steps, goes into tokens.
    """
    if seconds < 2 * site.start_seconds:
        raise RecipeError(
            f"the budget is too small: {seconds:.3g} s, of which starting takes about "
            f"{site.start_seconds:g}",
            where="budget",
            fix="Give it some minutes",
        )
    flops = 0.4 * site.gpu.flops * site.devices * seconds
    for _ in range(ROUNDS):
        size, length = _split(flops, params, tokens, law)
        chosen = design(site, law, size, length, wishes)
        ratio = seconds / chosen.seconds(length)
        if abs(math.log(ratio)) < 0.005:
            break
        flops *= ratio
    return chosen, tokens if tokens is not None else chosen.tokens_in(seconds)


# --- what is said of it --------------------------------------------------------------------


def _plan(
    chosen: Design,
    tokens: int,
    law: LossLaw,
    tasks: Sequence[Path],
    price: float | None,
    level: float,
    notes: list[str],
) -> Plan:
    taken, site = chosen.choice.best, chosen.site
    steps = tokens // chosen.batch_tokens
    value = chosen.seconds(tokens)
    faster, slower = spread(site.devices, site.gpu)
    promise = law.loss(counted(chosen.config, law.loss_count), tokens, level)
    if promise is None:
        best, _ = law.optimal(FLOPS_PER_PARAMETER_TOKEN * chosen.law_params * tokens)
        notes.append(
            f"no loss is promised: {law.name} knows runs of about the best size only, and this one "
            f"has {chosen.law_params / best:.2g} times it"
        )
    flops = FLOPS_PER_PARAMETER_TOKEN * chosen.law_params * tokens
    ladder = None
    if not law.own:
        ladder = first_ladder(law, flops, chosen.seq_len, chosen.config.vocab_size)
    return Plan(
        params=chosen.law_params,
        params_count=law.count,
        tokens=tokens,
        flops=flops,
        model=chosen.config,
        seq_len=chosen.seq_len,
        global_batch_tokens=chosen.batch_tokens,
        steps=steps,
        learning_rate=chosen.rates.learning_rate,
        schedule=schedule(steps, chosen.batch_tokens),
        loss=None if promise is None else Range(promise.loss, promise.low, promise.high),
        level=level,
        tasks=_scores(tasks, promise, notes),
        devices=site,
        layout=taken.layout,
        memory_bytes=taken.memory,
        seconds=Range(value, value / faster, value * slower),
        tokens_per_second=taken.tokens_per_second,
        mfu=taken.mfu,
        cost=run_cost(site.gpu, site.devices * value / 3600, price),
        ladder=ladder,
        checkpoints=_checkpoints(chosen, tokens),
        candidates=chosen.choice.table,
        why=chosen.choice.why,
        law=law.name,
        verdict=_verdict(law, promise, chosen.config.vocab_size),
        assumptions=(*_assumptions(chosen, law, price, ladder), *notes),
    )


def _scores(
    paths: Sequence[Path], promise: Prediction | None, notes: list[str]
) -> dict[str, Range]:
    """Task scores at the promised loss, by the name of the law's file; refused ones are noted."""
    scores: dict[str, Range] = {}
    if promise is None or not paths:
        return scores
    from isoflop.laws.load import load_law
    from isoflop.laws.tasks import TaskLaw
    from isoflop.laws.two_step import score_at

    for path in paths:
        law = load_law(path)
        if not isinstance(law, TaskLaw):
            raise RecipeError(
                f"a law of the form {law.form} foretells no task score",
                where=str(path),
                fix="Give laws of the form loss-to-task: isoflop laws fit --form loss-to-task",
            )
        if not law.supported:
            notes.append(f"no score for {path.stem}: {law.verdict}")
            continue
        found = score_at(promise, law)
        scores[path.stem] = Range(found.value, found.low, found.high)
    return scores


def _verdict(law: LossLaw, promise: Prediction | None, vocab_size: int) -> str:
    """The law's own, unless its loss is that of a model that knows nothing."""
    guessing = math.log(vocab_size)
    if law.verdict == "supported" and promise is not None and promise.loss >= guessing:
        return (
            f"unsupported: {law.name} does not reach down to this size: its loss is not below that "
            f"of guessing, {guessing:.2f}; fit a law to a ladder of your own"
        )
    return law.verdict


def _checkpoints(chosen: Design, tokens: int) -> Checkpoints:
    batch = chosen.batch_tokens
    kept = tuple(int(share * tokens) // batch * batch for share in KEPT_SHARES)
    each = CHECKPOINT_BYTES * count_parameters(chosen.config).params_total
    every = max(1, round(CHECKPOINT_SECONDS / chosen.choice.best.time.total))
    return Checkpoints(min(every, tokens // batch), kept, each, each * len(kept))


def _assumptions(
    chosen: Design, law: LossLaw, price: float | None, ladder: FirstLadder | None
) -> list[str]:
    """What the plan rests on, the shakiest first."""
    gpu, devices = chosen.site.gpu, chosen.site.devices
    said = [f"law {law.name}, {law.source}", *law.notes]
    if law.own:
        said.append("N is all weights but the input embedding, as in our run tables")
    if ladder is not None:
        said.append(
            f"this law is not yours: run the ladder first ({ladder.runs} runs, "
            f"{100 * ladder.share:.1f} % of this run's FLOPs, on top of them), fit it, plan again"
        )
    said += chosen.rates.notes
    said.append(
        f"{gpu.full_name}: {gpu.flops / 1e12:.3g} TFLOP/s {gpu.dtype} ({gpu.source}); the best "
        f"matrix product reaches {gpu.matmul_share:.0%} of it ({gpu.matmul_source}), those of a "
        f"step {gpu.step_share:.0%} of that"
    )
    if not chosen.site.local:
        said.append(
            f"fused attention and loss, compiled blocks; master weights, gradients and moments in "
            f"float32; {1 - USABLE:.0%} of the memory left for the driver, NCCL and fragmentation"
        )
    said.append(
        f"{sustained_share(devices, gpu):.0%} of the time goes into steps, the rest into "
        "evaluations, checkpoints, stragglers and restarts"
    )
    cost = run_cost(gpu, 1.0, price)
    if not chosen.site.local:
        said.append(
            f"price: {cost.price_source}; energy: board limit of {gpu.watts:g} W, PUE {PUE:g}"
        )
    return said
