"""`isoflop compress`: a smaller model, its loss promised before and measured after.

Not for the methods (`isoflop/compression`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, OutPath, parse_arguments
from isoflop.cli.laws_plot import PlotFile, check_plot, save_plot
from isoflop.cli.plan_first import PlanFirst, begins
from isoflop.compression.recipe import CompressConfig, Method, StudentConfig
from isoflop.core.console import make_progress, print_result
from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from isoflop.compression.result import Compressed


@dataclass(frozen=True, kw_only=True)
class CompressArguments(Arguments):
    """Make a smaller model of a trained one; what it loses is promised first and measured after."""

    model: Positional[Path]
    """A model directory."""
    out: OutPath
    """The model directory to write, with ledger.jsonl and result.json beside the weights; of drop
    and distill a run's directory with the model in model/, continued by the same command."""
    data: Path
    """Text to calibrate, foretell and judge on: shards of the model's tokenizer, or a text file."""
    method: Method = "int8"
    """int8, int4: round to nearest; gptq: round so that layers' outputs change least; magnitude,
    wanda: set weights to zero; drop: take out layers, heads or neurons and train what is left;
    distill: train a smaller model to foretell as this one does; average: the mean with --others."""
    bits: Literal[4, 8] = 4
    """Of gptq."""
    group: int = 32
    """Columns that share a scale, at 4 bits."""
    sparsity: float = 0.5
    """Share of weights that magnitude and wanda remove."""
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    """Which they may remove: any of a row, or two of every four neighbours."""
    tokens: int = 16_384
    """Tokens to calibrate on, to foretell with and to judge on, each at most."""
    beside: tuple[Path, ...] = ()
    """With --plot: other directories that this command made of the same model, to be drawn too."""
    plot: PlotFile = None
    """Draw the full model, this one and those beside by size and loss, light and dark."""
    others: tuple[Path, ...] = ()
    """Of average: models of the same shape, such as other checkpoints, to average with this."""
    student: StudentConfig = field(default_factory=StudentConfig)
    """The smaller model of drop and distill."""
    plan: PlanFirst = False


def run(args: list[str]) -> int:
    """Run the command; 1 if the loss measured lies outside the interval promised."""
    arguments = parse_arguments(CompressArguments, args, "compress")
    from isoflop.compression.compress import compress
    from isoflop.compression.foresee import foresee

    packed = {"int8": 8, "int4": 4, "gptq": arguments.bits}.get(arguments.method)
    model, group = arguments.model, arguments.group if packed == 4 else 256
    if not begins(arguments, arguments.plan, arguments.out, lambda: foresee(model, packed, group)):
        return 0
    config = CompressConfig(
        method=arguments.method,
        bits=arguments.bits,
        group=arguments.group,
        sparsity=arguments.sparsity,
        pattern=arguments.pattern,
        tokens=arguments.tokens,
        student=arguments.student,
        others=arguments.others,
    )
    check_plot(arguments.plot)
    if arguments.beside and arguments.plot is None:
        raise RecipeError("--beside is for --plot", where="compress", fix="Add --plot FILE.svg")
    progress = make_progress(arguments.json)
    found = compress(arguments.model, arguments.data, arguments.out, config, progress)
    if arguments.plot is not None:
        from isoflop.reporting.pareto import plot_pareto, points_of

        points = points_of([arguments.out, *arguments.beside])
        save_plot(arguments.plot, "compressed models", lambda: plot_pareto(points))
    document = {**found.document(), "path": str(arguments.out)}
    print_result(document, "\n".join(page(found)), arguments.json)
    return 0 if found.promises[0].held else 1


def page(found: Compressed) -> Iterator[str]:
    """Promised and measured, and the two models side by side."""
    measured, width = found.measured, max(len(p.quantity) for p in found.promises)
    yield f"{'promised at 90 %':<{width}}  {'value':>11}  {'interval':>25}  {'measured':>11}"
    for promise in found.promises:
        interval = f"{promise.low:.5g} to {promise.high:.5g}"
        outcome = "none" if promise.outcome is None else f"{promise.outcome:.5g}"
        verdict = "held" if promise.held else "broken"
        yield (
            f"{promise.quantity:<{width}}  {promise.value:>11.5g}  {interval:>25}  {outcome:>11}  "
            f"{verdict}"
        )
    yield (
        f"\nbits per byte {measured.bits_per_byte_full:.4f} -> {measured.bits_per_byte:.4f} "
        f"({measured.relative_loss:+.2%}) on {measured.tokens:,} tokens"
    )
    yield f"KL to the full model {measured.kl:.3g} nats per token; {measured.flipped:.2%} flipped"
    yield f"weights {found.bytes_full:,} -> {found.bytes:,} bytes"
    inner = found.path / "model"
    yield f"model: {inner if inner.is_dir() else found.path}"
