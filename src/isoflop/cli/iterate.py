"""`isoflop iterate`: parses, calls `alignment.iterate.iterate`, prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from isoflop.alignment.iterate_recipe import IterateRecipe
from isoflop.cli.arguments import RecipeArguments, parse_recipe_arguments
from isoflop.core.console import make_progress, print_result


@dataclass(frozen=True, kw_only=True)
class IterateArguments(RecipeArguments):
    """Draw answers, keep the best and learn from them, round after round: rejection-sampling
    fine-tuning, on-policy DPO, best-of-n; or continue the rounds in the output directory."""


def run(args: list[str]) -> int:
    """Run `isoflop iterate RECIPE.toml -o RUN`."""
    arguments, recipe = parse_recipe_arguments(IterateArguments, IterateRecipe, args, "iterate")
    from isoflop.alignment.iterate import iterate

    result = iterate(recipe, arguments.out, make_progress(arguments.json))
    lines = []
    if result.exact_match_start is not None:
        lines.append(f"held-out prompts answered right before: {result.exact_match_start:.1%}")
    for number, each in enumerate(result.rounds, 1):
        best = ", ".join(f"{value:.3f} of {n}" for n, value in each.best_of["best"].items())
        after = "" if each.exact_match is None else f"; right after it {each.exact_match:.1%}"
        lines.append(f"round {number}: {each.rows:,} rows; best reward {best}{after}")
        lines += [f"  no row of {count:,} prompts: {why}" for why, count in each.dropped.items()]
    lines.append(f"{'model' if result.learnt else 'set'}: {result.made}")
    document = {**asdict(result), "run": str(result.run), "made": str(result.made)}
    print_result(document, "\n".join(lines), arguments.json)
    return 0
