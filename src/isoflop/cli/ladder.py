"""`isoflop ladder`: parses, calls `planning.ladder.run_ladder`, prints."""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.cli.arguments import parse_recipe_arguments
from isoflop.cli.plan_first import CostlyArguments, begins
from isoflop.core.console import make_progress, print_result
from isoflop.core.foresight import Foresight
from isoflop.planning.ladder import RUNS, run_ladder
from isoflop.planning.launchers import LOCAL
from isoflop.planning.recipe import LadderRecipe


@dataclass(frozen=True, kw_only=True)
class LadderArguments(CostlyArguments):
    """Train many small models for a law, or continue the ladder in the output directory."""

    launcher: str = LOCAL
    """Where the runs are trained: local, or ray[:N or :ADDRESS]. The table is the same."""


def run(args: list[str]) -> int:
    """Run `isoflop ladder RECIPE.toml -o DIR`."""
    arguments, recipe = parse_recipe_arguments(LadderArguments, LadderRecipe, args, "ladder")

    def foretell() -> Foresight:
        from isoflop.planning.foresee import foresee_ladder

        return foresee_ladder(recipe, arguments.out)

    if not begins(arguments, arguments.plan, arguments.out, foretell):
        return 0
    ladder = run_ladder(recipe, arguments.out, make_progress(arguments.json), arguments.launcher)
    rows = [{**vars(result), "run": str(result.run)} for result in ladder.runs]
    lines = [f"{'params':>12} {'tokens':>14} {'loss':>8} {'bits/byte':>10} {'seconds':>8}"]
    lines += [
        f"{r.params:>12,} {r.tokens:>14,} {r.loss:>8.4f} {r.bits_per_byte:>10.4f} {r.seconds:>8.1f}"
        for r in ladder.runs
    ]
    table = ladder.directory / RUNS
    lines.append(
        f"{table}: {len(rows)} runs in {ladder.seconds:.0f} s; "
        f"next: isoflop laws fit {ladder.directory} -o law.json"
    )
    document = {"runs": rows, "table": str(table), "seconds": ladder.seconds}
    print_result(document, "\n".join(lines), arguments.json)
    return 0
