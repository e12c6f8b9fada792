"""The demo's first half: text, tokenizer, ladder, law, and the target that the promise is about.

Holds no stage of its own: it writes the recipes and calls the functions behind the public commands,
each where its result is not on disk yet. Not for the promises (`promise.py`).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.core.artifact import MANIFEST, build_directory, read_json, write_json
from isoflop.core.clock import StageClock
from isoflop.core.console import Progress, warn
from isoflop.core.hardware import calibrate, usable_cores
from isoflop.core.recipe import load_recipe
from isoflop.core.toml_write import write_recipe
from isoflop.data import corpus, shards, tokenizer
from isoflop.data.recipe import DataRecipe, SourceConfig, SourceKind
from isoflop.laws import Law, fit, read_table
from isoflop.laws.predict import load_law
from isoflop.planning.budget import TOKENS_PER_PARAMETER, Budget, plan_budget
from isoflop.planning.ladder import last_metrics
from isoflop.planning.recipe import LadderRecipe, RungConfig, WidthRule
from isoflop.planning.workers import train_in_worker, workers
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.recipe import DataConfig, TrainConfig, TrainRecipe

if TYPE_CHECKING:
    from isoflop.training.pretrain import TrainResult

FORM = "kaplan-nd"
VOCAB_SIZE = 1024
BYTES_PER_MINUTE: Mapping[SourceKind, int] = {"python": 2_500_000, "word-problems": 250_000}
"""Text gathered per minute of demo; one epoch of it outlasts the target on two fast cores."""
PLAN_SECONDS, REPORT_SECONDS = 20.0, 5.0
PROMPTS = (
    "Question: Tom has 7 apples and buys 5 more. How many apples does Tom have?\nAnswer:",
    "问题：小明有7个苹果，又买了5个。小明现在有多少个苹果？\n答案：",
    "def read_lines(path):\n",
    "The module ",
)


def base_ladder(shards_dir: Path, seed: int) -> LadderRecipe:
    """What all runs of the demo share; sizes and horizons come from the budget."""
    return LadderRecipe(
        data=DataConfig(shards_dir),
        rungs=(RungConfig(32, 3, (1 << 20,)),),
        optimizer=OptimizerConfig(learning_rate=4e-3, warmup_tokens=50 * 1024, beta2=0.999),
        width_rule=WidthRule(base_width=64, exponent=0.5),
        train=TrainConfig(
            seq_len=128,
            device="cpu",  # where its record of earlier promises was made
            global_batch_tokens=512,
            micro_batch_tokens=512,
            seed=seed,
            evaluations=1,
            eval_tokens=100_000,  # the same text for all: what it leaves out, it leaves out of all
            log_every=20,
            checkpoint_every=1000,
            tensorboard=False,
        ),
    )


def target_train(seed: int) -> TrainConfig:
    """How the target is logged: as a run of its own, with samples and TensorBoard events."""
    shared = base_ladder(Path(), seed).train
    return replace(shared, evaluations=5, sample_prompts=PROMPTS, tensorboard=True)


def prepare(out: Path, minutes: float, clock: StageClock, progress: Progress) -> None:
    """Corpus, tokenizer and shards."""
    with clock.stage("measure"):
        calibrate(progress=progress)
    with clock.stage("data"):
        if not is_finished(out / "corpus"):
            recipe = DataRecipe(
                sources=tuple(
                    SourceConfig(kind, max_bytes=int(n_bytes * minutes))
                    for kind, n_bytes in BYTES_PER_MINUTE.items()
                ),
                held_out_fraction=min(0.2, 0.35 / minutes),
            )
            write_recipe(
                out / "recipes" / "data.toml",
                recipe,
                "isoflop data build recipes/data.toml -o corpus",
            )
            corpus.build(recipe, out / "corpus", progress, placement="auto")
        if not is_finished(out / "tokenizer"):
            tokenizer.train(corpus.inspect(out / "corpus"), VOCAB_SIZE, out / "tokenizer", progress)
        if not is_finished(out / "shards"):
            shards.tokenize(
                corpus.inspect(out / "corpus"),
                out / "tokenizer",
                out / "shards",
                progress,
                placement="auto",
            )


def plan_demo(
    out: Path, minutes: float, seed: int, clock: StageClock, progress: Progress
) -> Mapping[str, Any]:
    """Choose sizes and horizons once, and write the recipes that the other stages run."""
    path = out / "plan.json"
    if path.exists():
        plan: Mapping[str, Any] = read_json(path)
        return plan
    with clock.stage("plan"):
        opened = shards.open_shards(out / "shards")
        left = 60 * minutes - clock.total() - PLAN_SECONDS - REPORT_SECONDS
        budget = plan_budget(
            base_ladder(out / "shards", seed),
            target_train(seed),
            left,
            opened.vocab_size,
            opened.train.n_tokens,
            out,
            progress,
        )
    write_recipe(
        out / "recipes" / "ladder.toml",
        budget.ladder,
        "isoflop ladder recipes/ladder.toml -o ladder",
    )
    write_recipe(
        out / "recipes" / "target.toml",
        budget.target,
        "isoflop train recipes/target.toml -o target",
    )
    plan = _plan_document(budget, clock)
    write_json(path, plan)
    progress.note(
        f"plan: {len(budget.ladder.rungs)} sizes, then a target of {budget.target_params:,} "
        f"parameters on {budget.target.train.tokens:,} tokens "
        f"({budget.target_flops:.3g} FLOPs); {plan['seconds']['total'] / 60:.1f} minutes in all"
    )
    share = budget.target.train.tokens / budget.target_params
    if share < TOKENS_PER_PARAMETER:
        warn(
            f"{share:.1f} tokens per parameter are few: promises were scored from "
            f"{TOKENS_PER_PARAMETER} on, and below it they came 2 to 5 % too low. More minutes, or "
            "a machine with less other work, help"
        )
    return plan


def _plan_document(budget: Budget, clock: StageClock) -> dict[str, Any]:
    seconds = {
        **clock.seconds(),
        "ladder": budget.ladder_seconds,
        "target": budget.target_seconds,
        "report": REPORT_SECONDS,
    }
    return {
        "params": budget.target_params,
        "tokens": budget.target.train.tokens,
        "flops": budget.target_flops,
        "model": asdict(budget.target.model),
        "global_batch_tokens": budget.target.train.global_batch_tokens,
        "learning_rate": budget.target.optimizer.learning_rate,
        "schedule": budget.target.optimizer.schedule,
        "memory_bytes": {"total": budget.target_peak_memory_bytes},
        "seconds": {**seconds, "total": sum(seconds.values())},
    }


def fit_law(out: Path) -> Law:
    """The law through the ladder."""
    path = out / "law.json"
    if not path.exists():
        fit(read_table([out / "ladder"]), form=FORM, objective="lsq").save(path)
    return load_law(path)


def train_target(out: Path, progress: Progress) -> TrainResult:
    """Train the target in a fresh process on all cores, so that its memory is its own."""
    recipe = load_recipe(out / "recipes" / "target.toml", TrainRecipe)
    directory = out / "target"
    progress.start("target", recipe.train.tokens, "tokens")
    with workers(1, out) as pool:
        future = pool.submit(train_in_worker, recipe, directory, usable_cores())
        while not wait([future], timeout=0.5).done:
            tokens, loss = last_metrics(directory)
            progress.advance(tokens, f"loss {loss:.3f}" if tokens else "")
    return future.result()


def copy_model(out: Path) -> None:
    """Put the target's model where the contract has it."""
    if is_finished(out / "model"):
        return
    with build_directory(out / "model") as aside:
        shutil.copytree(out / "target" / "model", aside, dirs_exist_ok=True)


def is_finished(directory: Path) -> bool:
    """Whether a stage has left its artifact there."""
    return (directory / MANIFEST).exists()
