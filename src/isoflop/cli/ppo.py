"""`isoflop ppo`: parses, calls `alignment.policy_run.ppo`, prints."""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.alignment.policy_recipe import PpoRecipe
from isoflop.cli.arguments import parse_recipe_arguments
from isoflop.cli.plan_first import CostlyArguments, begins
from isoflop.cli.policy import policy_lines
from isoflop.core.console import make_progress, print_result


@dataclass(frozen=True, kw_only=True)
class PpoArguments(CostlyArguments):
    """Train a policy on rewards with a critic (PPO), or continue the run in the output
    directory."""


def run(args: list[str]) -> int:
    """Run `isoflop ppo RECIPE.toml -o RUN`."""
    arguments, recipe = parse_recipe_arguments(PpoArguments, PpoRecipe, args, "ppo")
    from isoflop.alignment.foresee import foresee
    from isoflop.alignment.policy_run import ppo

    if not begins(arguments, arguments.plan, arguments.out, lambda: foresee(recipe)):
        return 0

    result = ppo(recipe, arguments.out, make_progress(arguments.json))
    document = {**vars(result), "run": str(result.run)}
    print_result(document, policy_lines(document), arguments.json)
    return 0
