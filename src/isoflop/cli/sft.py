"""`isoflop sft`: parses, calls `alignment.sft.sft`, prints."""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.alignment.sft_recipe import SftRecipe
from isoflop.cli.arguments import parse_recipe_arguments
from isoflop.cli.plan_first import CostlyArguments, begins
from isoflop.core.console import make_progress, print_result
from isoflop.core.process import is_main_process


@dataclass(frozen=True, kw_only=True)
class SftArguments(CostlyArguments):
    """Fine-tune a model on instructions, or continue the run in the output directory."""


def run(args: list[str]) -> int:
    """Run `isoflop sft RECIPE.toml -o RUN`."""
    arguments, recipe = parse_recipe_arguments(SftArguments, SftRecipe, args, "sft")
    from isoflop.alignment.foresee import foresee
    from isoflop.alignment.sft import sft

    if not begins(arguments, arguments.plan, arguments.out, lambda: foresee(recipe)):
        return 0

    result = sft(recipe, arguments.out, make_progress(arguments.json))
    if not is_main_process():
        return 0
    lines = [
        f"{result.run}: {result.trained_params:,} of {result.params_total:,} weights trained on "
        f"{result.conversations:,} conversations in {result.seconds:.0f} s"
    ]
    if result.left_out:
        lines.append(f"left out or cut: {result.left_out:,} ({result.run / 'left_out.jsonl'})")
    if result.loss is not None:
        lines.append(f"held-out loss {result.loss:.4f} nats per supervised token")
    if result.exact_match is not None:
        lines.append(f"held-out questions answered right: {result.exact_match:.1%}")
    if result.bits_per_byte is not None:
        lines.append(
            f"text it knew: {result.bits_per_byte_before:.4f} bits per byte before, "
            f"{result.bits_per_byte:.4f} after"
        )
    lines.append(f"model: {result.run / 'model'}")
    print_result({**vars(result), "run": str(result.run)}, "\n".join(lines), arguments.json)
    return 0
