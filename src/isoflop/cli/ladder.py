"""`isoflop ladder`: parses, calls `planning.ladder.run_ladder`, has the runs scored, prints."""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.cli.arguments import parse_recipe_arguments
from isoflop.cli.plan_first import CostlyArguments, begins
from isoflop.core.console import make_progress, print_result
from isoflop.core.foresight import Foresight
from isoflop.planning.ladder import RUNS, run_ladder
from isoflop.planning.launchers import LOCAL
from isoflop.planning.recipe import EvalConfig, LadderRecipe


@dataclass(frozen=True, kw_only=True)
class LadderArguments(CostlyArguments):
    """Train many small models for a law, or continue the ladder in the output directory."""

    launcher: str = LOCAL
    """Where the runs are trained: local, or ray[:N or :ADDRESS]. The table is the same."""


def check_tasks(asked: EvalConfig) -> None:
    """Refuse tasks that cannot be run.

    Raises:
        RecipeError: One is unknown, or lacks its file.
    """
    if asked.tasks:
        from isoflop.evaluation.evaluate import choose_tasks

        choose_tasks(asked.tasks, asked.limit, asked.seed)


def run(args: list[str]) -> int:
    """Run `isoflop ladder RECIPE.toml -o DIR`."""
    arguments, recipe = parse_recipe_arguments(LadderArguments, LadderRecipe, args, "ladder")

    def foretell() -> Foresight:
        from isoflop.planning.foresee import foresee_ladder

        return foresee_ladder(recipe, arguments.out)

    check_tasks(recipe.eval)  # before hours of training
    if not begins(arguments, arguments.plan, arguments.out, foretell):
        return 0
    progress = make_progress(arguments.json)
    ladder = run_ladder(recipe, arguments.out, progress, arguments.launcher)
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
    if recipe.eval.tasks:
        from isoflop.evaluation.rungs import ABILITIES, evaluate_rungs

        asked = recipe.eval
        scored = evaluate_rungs(
            ladder.directory, asked.tasks, limit=asked.limit, seed=asked.seed, progress=progress
        )
        verdicts = {name: each["verdict"] for name, each in scored.document["emergence"].items()}
        lines += [f"{name}: {verdict}" for name, verdict in verdicts.items()]
        lines.append(
            f"{scored.items}: every item of every run; "
            f"next: isoflop report {ladder.directory} -o report.html"
        )
        document |= {
            "scores": str(scored.items), "abilities": str(ladder.directory / ABILITIES),
            "verdicts": verdicts,
        }  # fmt: skip
    print_result(document, "\n".join(lines), arguments.json)
    return 0
