"""`isoflop grpo`: parses, calls `alignment.policy_run.grpo`, prints."""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.alignment.policy_recipe import GrpoRecipe
from isoflop.cli.arguments import parse_recipe_arguments
from isoflop.cli.plan_first import CostlyArguments, begins
from isoflop.cli.policy import policy_lines
from isoflop.core.console import make_progress, print_result


@dataclass(frozen=True, kw_only=True)
class GrpoArguments(CostlyArguments):
    """Train a policy on rewards by comparing answers to one prompt (GRPO, RLOO), or continue
    the run in the output directory."""


def run(args: list[str]) -> int:
    """Run `isoflop grpo RECIPE.toml -o RUN`."""
    arguments, recipe = parse_recipe_arguments(GrpoArguments, GrpoRecipe, args, "grpo")
    from isoflop.alignment.foresee import foresee
    from isoflop.alignment.policy_run import grpo

    if not begins(arguments, arguments.plan, arguments.out, lambda: foresee(recipe)):
        return 0

    result = grpo(recipe, arguments.out, make_progress(arguments.json))
    document = {**vars(result), "run": str(result.run)}
    print_result(document, policy_lines(document), arguments.json)
    return 0
