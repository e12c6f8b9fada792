"""The whole flow on this machine: data, ladder, law, promise, the bigger run, the score, a report.

Holds no stage of its own: it writes the recipes, calls the functions behind the public commands,
and keeps the promises in a ledger. Each step is skipped where its result is on disk, so that the
same command continues an interrupted demo.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from concurrent.futures import wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.core.artifact import MANIFEST, build_directory, read_json, write_json
from isoflop.core.clock import StageClock
from isoflop.core.console import SILENT, Progress, warn
from isoflop.core.errors import RecipeError, RunError
from isoflop.core.hardware import calibrate, usable_cores
from isoflop.core.ledger import Ledger, Promise
from isoflop.core.lock import locked
from isoflop.core.recipe import load_recipe
from isoflop.core.stages import Stages
from isoflop.core.toml_write import write_recipe
from isoflop.data import corpus, shards, tokenizer
from isoflop.data.recipe import DataRecipe, SourceConfig, SourceKind
from isoflop.demo_promise import promise_target, runs_of, settle
from isoflop.laws import Law, fit, read_table
from isoflop.laws.predict import load_law
from isoflop.planning.budget import TOKENS_PER_PARAMETER, Budget, plan_budget
from isoflop.planning.ladder import computed_flops, last_metrics, run_ladder
from isoflop.planning.recipe import LadderRecipe, RungConfig, WidthRule
from isoflop.planning.workers import train_in_worker, workers
from isoflop.reporting.write import report
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


@dataclass(frozen=True)
class DemoResult:
    """How a demo ended; `summary.json` holds the same."""

    directory: Path
    summary: Mapping[str, Any]
    promises: tuple[Promise, ...]
    report: Path
    model: Path


def demo(
    out: Path, minutes: float = 10.0, seed: int = 0, progress: Progress = SILENT
) -> DemoResult:
    """Run or continue the demo in the directory `out`.

    Args:
        minutes: Wall-clock minutes it may take on this machine, installation not counted.
        seed: Of initial weights and data order; the text is the same for all seeds.

    Raises:
        RunError: `out` holds a demo of another seed or length, or something else.
        RecipeError: The minutes are too few for this machine.
    """
    with locked(out):
        _claim(out, minutes, seed)
        clock = StageClock(out / "stages.json")
        _prepare(out, minutes, clock, progress)
        plan = _plan(out, minutes, seed, clock, progress)
        stages = Stages(
            progress,
            "demo",
            {
                "ladder": 0.0 if _finished(out / "ladder") else plan["seconds"]["ladder"],
                "target": 0.0 if _finished(out / "target") else plan["seconds"]["target"],
                "report": REPORT_SECONDS,
            },
        )
        with clock.stage("ladder"):
            ladder_recipe = load_recipe(out / "recipes" / "ladder.toml", LadderRecipe)
            run_ladder(ladder_recipe, out / "ladder", stages.stage("ladder"))
        law = _fit(out)
        ledger = promise_target(out, law, plan)
        with clock.stage("target"):
            result = _train_target(out, stages.stage("target"))
        settle(ledger, result)
        _copy_model(out)
        with clock.stage("report"):
            stages.stage("report")
            summary = _summarise(out, seed, plan, ledger, result, clock)
            page = report([out], out / "report.html")
        stages.finish()
    return DemoResult(out, summary, ledger.read(), page.path, out / "model")


# --- the stages ----------------------------------------------------------------------------


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


def _prepare(out: Path, minutes: float, clock: StageClock, progress: Progress) -> None:
    """Corpus, tokenizer and shards."""
    with clock.stage("measure"):
        calibrate(progress=progress)
    with clock.stage("data"):
        if not _finished(out / "corpus"):
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
        if not _finished(out / "tokenizer"):
            tokenizer.train(corpus.inspect(out / "corpus"), VOCAB_SIZE, out / "tokenizer", progress)
        if not _finished(out / "shards"):
            shards.tokenize(
                corpus.inspect(out / "corpus"),
                out / "tokenizer",
                out / "shards",
                progress,
                placement="auto",
            )


def _plan(
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


def _fit(out: Path) -> Law:
    path = out / "law.json"
    if not path.exists():
        fit(read_table([out / "ladder"]), form=FORM, objective="lsq").save(path)
    return load_law(path)


def _train_target(out: Path, progress: Progress) -> TrainResult:
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


def _copy_model(out: Path) -> None:
    if _finished(out / "model"):
        return
    with build_directory(out / "model") as aside:
        shutil.copytree(out / "target" / "model", aside, dirs_exist_ok=True)


def _summarise(
    out: Path,
    seed: int,
    plan: Mapping[str, Any],
    ledger: Ledger,
    result: TrainResult,
    clock: StageClock,
) -> dict[str, Any]:
    kept = {promise.quantity: promise for promise in ledger.read()}
    loss = kept["loss"]
    ladder_flops = {row["run_id"]: float(row["flops"]) for row in runs_of(out / "ladder")}
    ladder_recipe = load_recipe(out / "recipes" / "ladder.toml", LadderRecipe)
    flops = {"ladder": computed_flops(ladder_recipe, ladder_flops), "target": result.flops}
    summary = {
        "seed": seed,
        "promise": {"value": loss.value, "low": loss.low, "high": loss.high, "level": loss.level},
        "outcome": result.loss,
        "held": loss.held,
        "error_percent": 100 * (loss.value / result.loss - 1),
        "seconds": clock.total(),
        "promised_seconds": plan["seconds"]["total"],
        "bits_per_byte": result.bits_per_byte,
        "target": {
            "params": result.params,
            "tokens": result.tokens,
            "flops": result.flops,
            "seconds": result.seconds,
            "promised_seconds": kept["seconds"].value,
            "peak_memory_bytes": result.peak_memory_bytes,
        },
        "ladder": {
            "rungs": len(ladder_flops),
            "largest_rung_flops": max(ladder_flops.values()),
            "total_flops": flops["ladder"],
        },
        "stages": [
            {
                "name": name,
                "seconds": seconds,
                "promised_seconds": plan["seconds"].get(name),
                "flops": flops.get(name),
            }
            for name, seconds in clock.seconds().items()
        ],
        "peak_gflops": max(calibrate().gflops["float32"].values()),
    }
    write_json(out / "summary.json", summary)
    return summary


# --- bookkeeping ---------------------------------------------------------------------------


def _claim(out: Path, minutes: float, seed: int) -> None:
    """Note what demo lives in `out`, or check that it is this one."""
    if not 0 < minutes < math.inf:
        raise RecipeError(f"--minutes {minutes} must be positive")
    path, asked = out / "demo.json", {"minutes": minutes, "seed": seed}
    if path.exists():
        found = read_json(path)
        if found != asked:
            raise RunError(
                f"the directory holds a demo with {found}, not {asked}",
                where=str(out),
                fix="Give the same --minutes and --seed to continue it, or another --out",
            )
        return
    foreign = sorted(p.name for p in out.iterdir() if not p.name.startswith("."))
    if foreign:
        raise RunError(
            f"the directory is not a demo: it holds {foreign[0]}",
            where=str(out),
            fix="Choose another directory with --out",
        )
    write_json(path, asked)


def _finished(directory: Path) -> bool:
    return (directory / MANIFEST).exists()
