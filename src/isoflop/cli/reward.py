"""`isoflop reward`: parses, calls `alignment.reward_run.reward`, prints."""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.alignment.dpo_recipe import RewardRecipe
from isoflop.cli.arguments import parse_recipe_arguments
from isoflop.cli.plan_first import CostlyArguments, begins
from isoflop.core.console import make_progress, print_result


@dataclass(frozen=True, kw_only=True)
class RewardArguments(CostlyArguments):
    """Train a reward model on preference pairs, or continue the run in the output directory."""


def run(args: list[str]) -> int:
    """Run `isoflop reward RECIPE.toml -o RUN`."""
    arguments, recipe = parse_recipe_arguments(RewardArguments, RewardRecipe, args, "reward")
    from isoflop.alignment.foresee import foresee
    from isoflop.alignment.reward_run import reward

    if not begins(arguments, arguments.plan, arguments.out, lambda: foresee(recipe)):
        return 0

    result = reward(recipe, arguments.out, make_progress(arguments.json))
    lines = [
        f"{result.run}: {result.pairs:,} pairs, heads {', '.join(result.heads)}, "
        f"{result.steps:,} steps, {result.seconds:.0f} s"
    ]
    if result.left_out:
        lines.append(f"left out: {result.left_out:,} (too long, or the same in ids)")
    if result.accuracy is not None:
        lines += [
            f"held-out pairs ordered right: {result.accuracy:.1%} (loss {result.loss:.4f}, "
            f"calibration off by {result.calibration_error:.3f})",
            f"length: correlation with the score {result.length_correlation:+.2f}; "
            f'"the longer one" alone orders {result.length_accuracy:.1%}',
        ]
    lines.append(f"model: {result.run / 'model'}")
    print_result({**vars(result), "run": str(result.run)}, "\n".join(lines), arguments.json)
    return 0
