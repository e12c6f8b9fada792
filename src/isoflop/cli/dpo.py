"""`isoflop dpo`: parses, calls `alignment.dpo_run.dpo`, prints."""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.alignment.dpo_recipe import DpoRecipe
from isoflop.cli.arguments import parse_recipe_arguments
from isoflop.cli.plan_first import CostlyArguments, begins
from isoflop.core.console import make_progress, print_result
from isoflop.core.process import is_main_process


@dataclass(frozen=True, kw_only=True)
class DpoArguments(CostlyArguments):
    """Train a model on preference pairs (DPO, IPO, hinge, SimPO, KTO), or continue the run in the
    output directory."""


def run(args: list[str]) -> int:
    """Run `isoflop dpo RECIPE.toml -o RUN`."""
    arguments, recipe = parse_recipe_arguments(DpoArguments, DpoRecipe, args, "dpo")
    from isoflop.alignment.dpo_run import dpo
    from isoflop.alignment.foresee import foresee

    if not begins(arguments, arguments.plan, arguments.out, lambda: foresee(recipe)):
        return 0

    result = dpo(recipe, arguments.out, make_progress(arguments.json))
    if not is_main_process():
        return 0
    what = "rated answers" if recipe.dpo.loss == "kto" else "pairs"
    lines = [
        f"{result.run}: {result.pairs:,} {what}, {result.steps:,} steps, {result.seconds:.0f} s"
    ]
    if result.left_out:
        lines.append(f"left out: {result.left_out:,} (too long, or the same in ids)")
    if result.loss is not None:
        lines.append(f"held-out loss {result.loss:.4f}")
    if result.accuracy is not None:
        lines.append(
            f"held-out pairs ordered right: {result.accuracy:.1%}, mean margin {result.margin:.3f}"
        )
    if result.bits_per_byte_before is not None:
        lines.append(
            f"text it knew: {result.bits_per_byte_before:.4f} bits per byte before, "
            f"{result.bits_per_byte:.4f} after"
        )
    lines.append(f"model: {result.run / 'model'}")
    print_result({**vars(result), "run": str(result.run)}, "\n".join(lines), arguments.json)
    return 0
