"""`isoflop train`: parses, calls `training.pretrain.train`, prints."""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.cli.arguments import parse_recipe_arguments
from isoflop.cli.plan_first import CostlyArguments, begins
from isoflop.core.console import make_progress, print_result
from isoflop.core.foresight import Foresight
from isoflop.core.process import is_main_process
from isoflop.training.recipe import TrainRecipe


@dataclass(frozen=True, kw_only=True)
class TrainArguments(CostlyArguments):
    """Train a model from a recipe, or continue the run in the output directory. On several devices:
    torchrun --nproc-per-node N -m isoflop train RECIPE.toml -o RUN --parallel.fsdp N."""


def run(args: list[str]) -> int:
    """Run `isoflop train RECIPE.toml -o RUN`."""
    arguments, recipe = parse_recipe_arguments(TrainArguments, TrainRecipe, args, "train")
    from isoflop.planning.foresee import foresee_train
    from isoflop.training.pretrain import train
    from isoflop.training.stops import EarlyStop

    def foretell() -> Foresight:
        return foresee_train(recipe, arguments.out)

    if not begins(arguments, arguments.plan, arguments.out, foretell):
        return 0

    try:
        result = train(recipe, arguments.out, make_progress(arguments.json))
    except EarlyStop as stop:
        if not is_main_process():
            return 1
        stopped = {"run": str(arguments.out), "stopped_early": stop.what, "where": stop.where}
        print_result(stopped, stop.paragraph(), arguments.json)
        return 1
    if not is_main_process():
        return 0
    per_byte = result.bits_per_byte
    of_bytes = "" if per_byte is None else f", {per_byte:.4f} bits per byte"
    text = (
        f"{result.run}: {result.params:,} parameters on {result.tokens:,} tokens in "
        f"{result.seconds:.0f} s\nheld-out loss {result.loss:.4f} nats per token{of_bytes}\n"
        f"model: {result.run / 'model'}"
    )
    print_result({**vars(result), "run": str(result.run)}, text, arguments.json)
    return 0
