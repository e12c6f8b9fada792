"""The demo from end to end: pre-training with its promise, what follows it, and the report.

Holds no stage of its own. Each step is skipped where its result is on disk, so that the same
command continues an interrupted demo.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.core.artifact import read_json, write_json
from isoflop.core.clock import StageClock
from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import RecipeError, RunError
from isoflop.core.hardware import calibrate
from isoflop.core.ledger import Ledger, Promise
from isoflop.core.lock import locked
from isoflop.core.recipe import load_recipe
from isoflop.core.stages import Stages
from isoflop.demo.pretraining import (
    REPORT_SECONDS,
    copy_model,
    fit_law,
    is_finished,
    plan_demo,
    prepare,
    train_target,
)
from isoflop.demo.promise import promise_target, runs_of, settle_target
from isoflop.demo.recipes import SECONDS
from isoflop.planning.ladder import computed_flops, run_ladder
from isoflop.planning.recipe import LadderRecipe
from isoflop.reporting.write import report

if TYPE_CHECKING:
    from isoflop.training.pretrain import TrainResult

MOST_ALONE = 10.0
"""Minutes up to which the demo is its pre-training alone."""
STORY_SHARE = 0.5
"""Of the minutes, where there are more: what comes after pre-training."""


@dataclass(frozen=True)
class DemoResult:
    """How a demo ended; `summary.json` holds the same."""

    directory: Path
    summary: Mapping[str, Any]
    promises: tuple[Promise, ...]
    report: Path
    model: Path
    """The base model, of which the promise is."""

    @property
    def chat_model(self) -> Path:
        """The model to talk to: the taught one, where there is one."""
        taught = self.directory / "grpo" / "model"
        return taught if taught.is_dir() else self.model


def demo(
    out: Path, minutes: float = 20.0, seed: int = 0, progress: Progress = SILENT
) -> DemoResult:
    """Run or continue the demo in the directory `out`.

    Args:
        minutes: Wall-clock minutes it may take on this machine, installation not counted. Up to
            `MOST_ALONE` of them are for pre-training alone; of more, half is for what follows.
        seed: Of initial weights and data order; the text is the same for all seeds.

    Raises:
        RunError: `out` holds a demo of another seed or length, or something else.
        RecipeError: The minutes are too few for this machine.
    """
    with locked(out):
        _claim(out, minutes, seed)
        clock = StageClock(out / "stages.json")
        whole, alone = minutes > MOST_ALONE, _alone(minutes)
        prepare(out, alone, clock, progress)
        plan = plan_demo(out, alone, seed, clock, progress)
        stages = Stages(
            progress,
            "pre-training" if whole else "demo",
            {
                "ladder": 0.0 if is_finished(out / "ladder") else plan["seconds"]["ladder"],
                "target": 0.0 if is_finished(out / "target") else plan["seconds"]["target"],
            },
        )
        with clock.stage("ladder"):
            ladder_recipe = load_recipe(out / "recipes" / "ladder.toml", LadderRecipe)
            run_ladder(ladder_recipe, out / "ladder", stages.stage("ladder"))
        law = fit_law(out)
        ledger = promise_target(out, law, plan)
        with clock.stage("target"):
            result = train_target(out, stages.stage("target"))
        settle_target(ledger, result)
        copy_model(out)
        stages.finish()
        more: Mapping[str, Any] = {}
        if whole:
            from isoflop.demo.story import tell  # torch, which all before it leaves to workers

            left = 60 * minutes - clock.total() - REPORT_SECONDS
            more = tell(out, seed, left, clock, progress)
        with clock.stage("report"):
            summary = _summarise(out, seed, plan, ledger, result, clock, more)
            page = report([out], out / "report.html")
    return DemoResult(out, summary, ledger.read(), page.path, out / "model")


def _summarise(
    out: Path,
    seed: int,
    plan: Mapping[str, Any],
    ledger: Ledger,
    result: TrainResult,
    clock: StageClock,
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Write `summary.json`.

    Args:
        more: What the second half came to; empty without one.
    """
    kept = {promise.quantity: promise for promise in ledger.read()}
    loss = kept["loss"]
    ladder_flops = {row["run_id"]: float(row["flops"]) for row in runs_of(out / "ladder")}
    ladder_recipe = load_recipe(out / "recipes" / "ladder.toml", LadderRecipe)
    foretold = {name: each for name, each in plan["seconds"].items() if name != "total"}
    foretold |= SECONDS if more else {}
    flops = {"ladder": computed_flops(ladder_recipe, ladder_flops), "target": result.flops}
    summary = {
        "seed": seed,
        "promise": {"value": loss.value, "low": loss.low, "high": loss.high, "level": loss.level},
        "outcome": result.loss,
        "held": loss.held,
        "error_percent": 100 * (loss.value / result.loss - 1),
        "seconds": clock.total(),
        "promised_seconds": sum(foretold.values()),
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
                "promised_seconds": foretold.get(name),
                "flops": flops.get(name),
            }
            for name, seconds in clock.seconds().items()
        ],
        "peak_gflops": max(calibrate().gflops["float32"].values()),
        **more,
    }
    write_json(out / "summary.json", summary)
    return summary


# --- bookkeeping ---------------------------------------------------------------------------


def _alone(minutes: float) -> float:
    """Of so many minutes, those for pre-training."""
    return minutes if minutes <= MOST_ALONE else (1 - STORY_SHARE) * minutes


def _claim(out: Path, minutes: float, seed: int) -> None:
    """Note what demo lives in `out`, or check that it is this one."""
    if not 0 < minutes < math.inf:
        raise RecipeError(f"--minutes {minutes} must be positive")
    path, asked = out / "demo.json", {"minutes": minutes, "seed": seed}
    if path.exists():
        found = read_json(path)
        if found["seed"] == seed and found["minutes"] == _alone(minutes) < minutes:
            write_json(path, asked)  # its pre-training is this one's
        elif found != asked:
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
