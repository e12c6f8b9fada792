"""The demo's second half: the base model is taught, aligned, judged, compressed and served.

Holds no stage of its own: it writes the recipes and calls the functions behind the public commands,
each where its result is not on disk yet. Not for what the recipes say (`recipes.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from isoflop.alignment.foresee import SPREAD, foresee
from isoflop.alignment.policy_recipe import GrpoRecipe
from isoflop.alignment.policy_run import grpo
from isoflop.alignment.sft import sft
from isoflop.alignment.sft_recipe import SftRecipe
from isoflop.compression.compress import compress
from isoflop.compression.recipe import CompressConfig
from isoflop.compression.result import read_result
from isoflop.core.artifact import read_json
from isoflop.core.clock import StageClock
from isoflop.core.console import Progress, warn
from isoflop.core.foresight import Span
from isoflop.core.ledger import LEDGER, Ledger
from isoflop.core.recipe import load_recipe
from isoflop.core.stages import Stages
from isoflop.core.toml_write import write_recipe
from isoflop.data.instruct import instruct
from isoflop.demo import recipes
from isoflop.demo.pretraining import is_finished
from isoflop.demo.promise import promise_once, settle
from isoflop.demo.served import EXCHANGES, ask_served
from isoflop.evaluation.evaluate import evaluate
from isoflop.evaluation.rungs import ABILITIES, evaluate_rungs

SFT, GRPO = "recipes/sft.toml", "recipes/grpo.toml"


def tell(
    out: Path, seed: int, seconds: float, clock: StageClock, progress: Progress
) -> dict[str, Any]:
    """Everything after the base model; what it came to, as `summary.json` has it.

    Args:
        seconds: Wall-clock seconds there are for it: where they are too few for all of the
            fine-tuning, it is cut short.

    Raises:
        RunError, ArtifactError, DataError: As the stages.
    """
    spent = {name: out / name for name in ("instructions", "sft", "grpo", "int8", "serving")}
    left = {
        name: 0.0 if name in spent and is_finished(spent[name]) else each
        for name, each in recipes.SECONDS.items()
    }
    stages = Stages(progress, "demo", left)
    with clock.stage("instructions"):
        stages.stage("instructions")
        _write_sets(out)
    with clock.stage("sft"):
        _plan_fine_tuning(out, seed, seconds)
        recipe = load_recipe(out / SFT, SftRecipe)
        taught = sft(recipe, out / "sft", stages.stage("sft"))
    with clock.stage("grpo"):
        _plan_practice(out, seed)
        aligned = grpo(load_recipe(out / GRPO, GrpoRecipe), out / "grpo", stages.stage("grpo"))
    took = {"sft_seconds": taught.seconds, "grpo_seconds": aligned.seconds}
    settle(Ledger(out / LEDGER), took)
    final = out / "grpo" / "model"
    with clock.stage("evaluation"):
        judged = stages.stage("evaluation")
        if not is_finished(out / "evaluation"):
            evaluate(
                final, recipes.TASKS, out / "evaluation", limit=recipes.EVAL_LIMIT, seed=seed,
                progress=judged,
            )  # fmt: skip
        if not (out / "ladder" / ABILITIES).exists():
            tasks = recipes.RUNG_TASKS
            evaluate_rungs(
                out / "ladder", tasks, limit=recipes.EVAL_LIMIT, seed=seed, progress=judged
            )
    with clock.stage("int8"):
        if is_finished(out / "int8"):
            small = read_result(out / "int8")
        else:
            small = compress(
                final, out / "shards", out / "int8", CompressConfig("int8"), stages.stage("int8")
            )
    with clock.stage("serving"):
        stages.stage("serving")
        if not is_finished(out / "serving"):
            ask_served(out / "int8", out / "serving")
    stages.finish()
    abilities = read_json(out / "ladder" / ABILITIES)
    return {
        "chat": {"sft": _figures(vars(taught)), "grpo": _figures(vars(aligned))},
        "emergence": {name: each["verdict"] for name, each in abilities["emergence"].items()},
        "int8": {
            "bytes": small.bytes,
            "bytes_full": small.bytes_full,
            "bits_per_byte": small.measured.bits_per_byte,
            "bits_per_byte_full": small.measured.bits_per_byte_full,
            "held": small.promises[0].held,
        },
        "served": read_json(out / "serving" / EXCHANGES),
    }


def _write_sets(out: Path) -> None:
    """The two sets of problems: to learn from, and to practise for a reward."""
    for name, recipe in (
        ("instructions", recipes.instructions()),
        ("practice", recipes.practice()),
    ):
        if not is_finished(out / name):
            path = f"recipes/{name}.toml"
            write_recipe(out / path, recipe, f"isoflop data instruct {path} -o {name}")
            instruct(recipe, out / name)


def _plan_fine_tuning(out: Path, seed: int, seconds: float) -> None:
    """Choose the length of the fine-tuning once, and promise what it will take."""
    if (out / SFT).exists():
        return
    recipe = recipes.fine_tuning(out, seed)
    foreseen, typical = foresee(recipe), recipes.SECONDS["sft"]
    span = foreseen.seconds or Span(typical, typical / SPREAD, typical * SPREAD)
    rest = sum(each for name, each in recipes.SECONDS.items() if name != "sft")
    share = min(1.0, (seconds - rest) / span.value)
    if share < 1:
        share = max(share, recipes.LEAST_SHARE)
        warn(
            f"{seconds / 60:.0f} minutes are left, so the fine-tuning has {share:.0%} of its "
            "epochs, and answers fewer questions. More minutes help"
        )
    epochs = round(share * recipe.train.epochs, 2)
    recipe = replace(recipe, train=replace(recipe.train, epochs=epochs))
    _promise_seconds(out, "sft", span.scaled(share), foreseen.basis)
    write_recipe(out / SFT, recipe, f"isoflop sft {SFT} -o sft")


def _plan_practice(out: Path, seed: int) -> None:
    """Write the recipe of the reinforcement, and promise what it will take."""
    if (out / GRPO).exists():
        return
    recipe = recipes.reinforcement(out, seed)
    foreseen = foresee(recipe)
    if foreseen.seconds is not None:
        _promise_seconds(out, "grpo", foreseen.seconds, foreseen.basis)
    write_recipe(out / GRPO, recipe, f"isoflop grpo {GRPO} -o grpo")


def _promise_seconds(out: Path, stage: str, span: Span, basis: tuple[str, ...]) -> None:
    ledger = Ledger(out / LEDGER)
    ends = (span.value, span.low, span.high)
    promise_once(ledger, f"{stage}_seconds", "s", *ends, "; ".join(basis))


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a run of fine-tuning or reinforcement came to, without its paths."""
    names = (
        "loss", "exact_match_start", "exact_match", "bits_per_byte_before", "bits_per_byte", "kl",
        "seconds",
    )  # fmt: skip
    return {name: result[name] for name in names if result.get(name) is not None}
