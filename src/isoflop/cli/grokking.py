"""`isoflop grokking`: memorising and understanding a sum, by weight decay; not for language."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoflop.cli.arguments import parse_recipe_arguments
from isoflop.cli.plan_first import CostlyArguments, begins
from isoflop.core.console import make_progress, print_result
from isoflop.core.foresight import Foresight
from isoflop.evaluation.grokking_recipe import GrokkingRecipe

if TYPE_CHECKING:
    from isoflop.evaluation.grokking import Grokking


@dataclass(frozen=True, kw_only=True)
class GrokkingArguments(CostlyArguments):
    """Train a one-layer model on (a + b) mod p, once for each weight decay, and draw when it
    memorises and when it understands. Writes grokking.json and report.html."""


def run(args: list[str]) -> int:
    """Run `isoflop grokking RECIPE.toml -o DIR`; 1 if no arm generalised."""
    arguments, recipe = parse_recipe_arguments(GrokkingArguments, GrokkingRecipe, args, "grokking")
    from isoflop.core.artifact import write_atomic
    from isoflop.evaluation.grokking import run_grokking
    from isoflop.reporting.grokking_page import page

    def foretell() -> Foresight:
        from isoflop.evaluation.grokking import foresee

        return foresee(recipe)

    if not begins(arguments, arguments.plan, arguments.out, foretell):
        return 0
    found = run_grokking(recipe, arguments.out, make_progress(arguments.json))
    report = arguments.out / "report.html"
    write_atomic(report, page(found.document()))
    document = {**found.document(), "report": str(report)}
    print_result(document, "\n".join([*_lines(found), f"{report}"]), arguments.json)
    return 0 if any(arm.generalised_at is not None for arm in found.arms) else 1


def _lines(found: Grokking) -> Iterator[str]:
    p, n = found.recipe.modulus, found.recipe.train_pairs
    yield f"(a + b) mod {p}, {n:,} of {p * p:,} pairs trained on, {found.recipe.steps:,} steps"
    yield f"{'weight decay':>12} {'memorised':>10} {'generalised':>12} {'held out':>9} {'norm':>7}"
    for arm in found.arms:
        last = arm.moments[-1]
        when = [f"{step:,}" if step else "never" for step in (arm.memorised_at, arm.generalised_at)]
        yield (
            f"{arm.weight_decay:>12g} {when[0]:>10} {when[1]:>12} {last.accuracy:>9.1%} "
            f"{last.weight_norm:>7.1f}"
        )
