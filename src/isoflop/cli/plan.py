"""`isoflop plan`: from a budget to a whole run, foretold; parses, calls one function, prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from isoflop.cli.arguments import Arguments, MaybeAmount, parse_arguments
from isoflop.cli.laws_open import refuse_table
from isoflop.core.console import format_seconds, print_result, warn

if TYPE_CHECKING:
    from isoflop.planning.layout import Layout
    from isoflop.planning.planned import Plan

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class PlanArguments(Arguments):
    """Plan a run from one budget: FLOPs, GPU hours, money, or minutes of this machine."""

    flops: MaybeAmount = None
    """Budget: training FLOPs, 6 x params x tokens."""
    hours: float | None = None
    """Budget: hours of the GPUs (with --gpus)."""
    money: float | None = None
    """Budget: USD."""
    minutes: float | None = None
    """Budget: minutes of this machine, measured once (see `isoflop doctor --calibrate`)."""
    gpu: str | None = None
    """The kind of GPU: a100-40gb, a100-80gb, h100-80gb, h200, b200, l40s, rtx-4090, mi300x …
    (h100-80gb if omitted; an unknown name lists all)."""
    gpus: int | None = None
    """How many; for a budget of FLOPs as many as finish within a month, if omitted."""
    params: MaybeAmount = None
    """Parameters, counted as the law counts them; the law's optimum if omitted."""
    tokens: MaybeAmount = None
    """Training tokens; with --params they are the budget."""
    law: Annotated[str | None, arg(metavar="LAW.json|NAME")] = None
    """A law from `isoflop laws fit`, or a published one by name (besiroglu if omitted)."""
    hyperparameters: Annotated[Path | None, arg(metavar="LAW.json")] = None
    """A law of the form `hyperparameters`, instead of the published ones."""
    seq_len: int | None = None
    """Tokens per sequence; 2048, from 7 billion parameters 4096, on a CPU 256, if omitted."""
    vocab_size: int | None = None
    """The tokenizer's size; by the model's size if omitted."""
    batch_tokens: int | None = None
    """Tokens per step over all devices; by a law if omitted."""
    price: float | None = None
    """USD per GPU and hour, instead of the list price."""
    tasks: Annotated[tuple[Path, ...], arg(metavar="LAW.json...")] = ()
    """Laws of the form `loss-to-task`, whose scores to foretell."""
    level: float = 0.9
    """Probability that the intervals of loss and scores promise."""


def run(args: list[str]) -> int:
    """Run `isoflop plan ARGS`; 1 if the law's verdict is `unsupported`."""
    asked = parse_arguments(PlanArguments, args, "plan")
    from isoflop.planning import plan

    for law in (asked.law, asked.hyperparameters, *asked.tasks):
        if law is not None:
            refuse_table(law)
    made = plan(**{name: value for name, value in vars(asked).items() if name != "json"})
    if not made.supported:
        warn(f"the law is {made.verdict}")
    print_result(made.to_dict(), plan_text(made), asked.json)
    return 0 if made.supported else 1


# --- words ---------------------------------------------------------------------------------


def plan_text(made: Plan) -> str:
    """The plan for people: a short table, the layouts compared, the reason, the assumptions."""
    lines = [f"a run on {made.devices.name} ({made.devices.gpu.full_name})", ""]
    lines += [f"  {name:<13} {text}" for name, text in _rows(made)]
    if len(made.candidates) > 1:
        lines += ["", "layouts, the best of each kind (the first is taken)", *_table(made)]
    lines += ["", f"why: {made.why}", "", "this rests on"]
    lines += [f"  - {said}" for said in made.assumptions]
    if not made.supported:
        lines += ["", f"verdict: {made.verdict}"]
    return "\n".join(lines)


def _rows(made: Plan) -> list[tuple[str, str]]:
    model, memory, seconds = made.model, made.memory_bytes, made.seconds
    step = made.candidates[0].time.total
    parts = ", ".join(
        f"{name} {value / GIB:.3g}" for name, value in memory.to_dict().items() if name != "total"
    )
    rows = [
        (
            "model",
            f"{_short(made.params)} parameters: {_many(model.n_layers, 'layer')} × "
            f"{model.d_model} wide, {_many(model.n_heads, 'head')} of {model.head_dim} "
            f"({model.n_kv_heads} for keys), "
            f"feed-forward {model.d_ff}, vocabulary {model.vocab_size:,}",
        ),
        (
            "data",
            f"{_short(made.tokens)} tokens, {made.tokens / made.params:.3g} per parameter; "
            f"{made.flops:.3g} FLOPs",
        ),
        (
            "batch",
            f"{made.global_batch_tokens:,} tokens "
            f"({_many(made.global_batch_tokens // made.seq_len, 'sequence')} of {made.seq_len:,}), "
            f"{made.steps:,} steps",
        ),
        (
            "rate",
            f"{made.learning_rate:.2e} at its peak; {made.schedule.name}, warm-up over "
            f"{_short(made.schedule.warmup_tokens)} tokens, decay over the last "
            f"{made.schedule.decay_fraction:.0%}",
        ),
        ("loss", _loss(made)),
        *(
            (f"task {name}", f"{score.value:.3g} ({score.low:.3g} to {score.high:.3g})")
            for name, score in made.tasks.items()
        ),
        (
            "layout",
            f"{_layout(made.layout)}, {_many(made.candidates[0].micro_steps, 'pass')} a step",
        ),
        (
            "memory",
            f"{memory.total / GIB:.3g} of {made.devices.gpu.memory_bytes / GIB:.3g} GiB a device: "
            f"{parts}",
        ),
        (
            "time",
            f"{format_seconds(seconds.value)} ({format_seconds(seconds.low)} to "
            f"{format_seconds(seconds.high)}); {step:.3g} s a step, "
            f"{made.tokens_per_second:,.0f} tokens/s, MFU {made.mfu:.1%}",
        ),
    ]
    return [*rows, *_more_rows(made)]


def _loss(made: Plan) -> str:
    if made.loss is None:
        return "not foretold (see the last lines)"
    return (
        f"{made.loss.value:.3f}, with {100 * made.level:g} % probability between "
        f"{made.loss.low:.3f} and {made.loss.high:.3f}"
    )


def _more_rows(made: Plan) -> list[tuple[str, str]]:
    rows = []
    cost, ladder, saved = made.cost, made.ladder, made.checkpoints
    if cost.usd is not None:
        at = f"{cost.usd_per_device_hour:g} USD × {_figure(cost.device_hours)} GPU-hours"
        rows.append(("cost", f"{_figure(cost.usd)} USD at {at}"))
    if cost.kilowatt_hours is not None:
        rows.append(("energy", f"{_figure(cost.kilowatt_hours)} kWh"))
    if ladder is not None:
        sizes = ", ".join(_short(rung.params) for rung in ladder.rungs)
        rows.append(
            (
                "ladder first",
                f"{ladder.runs} runs of {sizes}: {ladder.flops:.2g} FLOPs, "
                f"{ladder.share:.1%} of this run",
            )
        )
    kept = ", ".join(_short(tokens) for tokens in saved.keep_at_tokens)
    rows.append(
        (
            "checkpoints",
            f"every {saved.every_steps:,} steps; keep those at {kept} tokens "
            f"({saved.bytes_each / 1e9:,.3g} GB each)",
        )
    )
    return rows


def _table(made: Plan) -> list[str]:
    names = [_layout(one.layout) for one in made.candidates]
    width = max(map(len, names))
    head = f"  {'layout':<{width}}{'GiB':>8}{'s/step':>9}{'tokens/s':>13}{'MFU':>8}"
    rows = [
        f"  {name:<{width}}{one.memory.total / GIB:>8.1f}{one.time.total:>9.3g}"
        f"{one.tokens_per_second:>13,.0f}{one.mfu:>8.1%}{'' if one.fits else '  does not fit'}"
        for name, one in zip(names, made.candidates, strict=True)
    ]
    return [head, *rows]


def _layout(layout: Layout) -> str:
    """`fsdp 8, micro-batch 16` and what else is not 1."""
    axes = [
        f"{name} {getattr(layout, name)}"
        for name in ("dp", "fsdp", "tp", "cp", "pp")
        if getattr(layout, name) > 1
    ]
    if layout.fsdp * layout.cp > 1:
        axes.append(f"zero {layout.zero}")
    axes.append(f"micro-batch {layout.micro_batch}")
    if layout.recompute != "none":
        axes.append(f"recompute {layout.recompute}")
    return ", ".join(axes)


def _figure(number: float) -> str:
    """`12,345` or `1.23`."""
    return f"{number:,.{0 if number >= 100 else 2}f}"


def _many(count: int, noun: str) -> str:
    """`1 layer`, `2 layers`, `3 passes`."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def _short(number: float) -> str:
    """`1.48 billion`: three digits and a word."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {word}"
    return f"{number:,.0f}"
