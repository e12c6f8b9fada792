"""`isoflop data instruct`: parses, calls `data.instruct.instruct`, prints."""

from __future__ import annotations

import json
from dataclasses import dataclass

from isoflop.cli.arguments import OutPath, RecipeArguments, parse_recipe_arguments
from isoflop.core.console import print_result
from isoflop.data.instruct_recipe import InstructRecipe

_MAX_BAD_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class InstructArguments(RecipeArguments):
    """Make instruction, preference and verifiable rows from a recipe, split by problem family."""

    out: OutPath
    """The directory to write; an older set there is replaced once the new one is whole."""


def run_instruct(args: list[str]) -> int:
    """Run `isoflop data instruct RECIPE.toml -o DIR`."""
    arguments, recipe = parse_recipe_arguments(
        InstructArguments, InstructRecipe, args, "data instruct"
    )
    from isoflop.data.instruct import BAD_ROWS, instruct

    made = instruct(recipe, arguments.out)
    lines = [str(made.directory)]
    for kind, splits in made.summary["rows"].items():
        lines.append(f"  {kind:<12} {splits['train']:>9,} train {splits['held_out']:>9,} held out")
    for name, source in made.summary["sources"].items():
        for reason, count in source["dropped"].items():
            lines.append(f"  dropped {count:,} of {name}: {reason}")
    with open(made.directory / BAD_ROWS, encoding="utf-8") as file:
        bad = [json.loads(line) for line in file]
    lines += [f"  {row['file']}:{row['line']}: {row['reason']}" for row in bad[:_MAX_BAD_SHOWN]]
    if len(bad) > _MAX_BAD_SHOWN:
        lines.append(f"  … all {len(bad):,} in {made.directory / BAD_ROWS}")
    print_result({"set": made.directory, **made.summary}, "\n".join(lines), arguments.json)
    return 0
