"""What the demo teaches its model after pre-training, as recipes of the public commands.

Not for running them (`story.py`), nor for the recipes of ladder and target (`pretraining.py`).
"""

from __future__ import annotations

from pathlib import Path

from isoflop.alignment.policy_recipe import (
    GrpoRecipe,
    KlConfig,
    PolicyTrain,
    PromptData,
    RolloutConfig,
)
from isoflop.alignment.sft_recipe import InstructData, SftRecipe, SftTrainConfig, StartConfig
from isoflop.data.instruct_recipe import InstructRecipe, InstructSource
from isoflop.training.optimizer_recipe import OptimizerConfig

HELD_OUT = 0.1
"""Share of the computations that no training row asks, in no words; the same split in both sets."""
RUNG_TASKS = ("cloze", "arithmetic", "icl_mapping", "word_problems")
"""What every run of the ladder is asked, for the verdicts on emergence."""
TASKS = ("minimal_pairs", *RUNG_TASKS, "induction")
"""What the finished model is asked."""
EVAL_LIMIT = 20
"""Items of each group of a task."""


SECONDS = {
    "instructions": 10.0, "sft": 210.0, "grpo": 90.0, "evaluation": 60.0, "int8": 10.0,
    "serving": 20.0,
}  # fmt: skip
"""Reckoned for two cores: estimates, until a whole demo has been timed."""
LEAST_SHARE = 0.1
"""Of the fine-tuning's epochs, however little time there is."""


def instructions() -> InstructRecipe:
    """Word problems with worked steps and products by calls of the calculator, en and zh."""

    def calls(name: str, problem: str, difficulty: tuple[int, int], count: int) -> InstructSource:
        return InstructSource(
            "generated", name, problems=(problem,), difficulty=difficulty, work="calculator",
            count=count,
        )  # fmt: skip

    return InstructRecipe(
        sources=(
            InstructSource("generated", "words", problems=("word",), count=12_000),
            InstructSource("generated", "arithmetic", problems=("sum", "difference"), count=1200),
            calls("products", "product", (1, 4), 3000),
            calls("long products", "long-product", (4, 4), 5000),
        ),
        held_out_fraction=HELD_OUT,
    )


def practice() -> InstructRecipe:
    """Word problems to be answered for a reward."""
    source = InstructSource("generated", "practice", problems=("word",), count=4000)
    return InstructRecipe(sources=(source,), held_out_fraction=HELD_OUT)


def fine_tuning(out: Path, seed: int) -> SftRecipe:
    """From the demo's own base model; with text that it knows, lest it forget."""
    return SftRecipe(
        model=StartConfig(out / "model"),
        data=InstructData(out / "instructions", replay=out / "shards"),
        optimizer=OptimizerConfig(
            learning_rate=2e-3,
            schedule="linear",
            warmup_tokens=20_000,
            weight_decay=0.0,
            beta2=0.99,
        ),
        train=SftTrainConfig(
            epochs=3.0,
            global_batch_tokens=1024,
            micro_batch_tokens=1024,
            extra_layers=2,
            seed=seed,
            evaluations=2,
            eval_answers=300,
            tensorboard=False,
        ),
    )


def reinforcement(out: Path, seed: int) -> GrpoRecipe:
    """Rewards right answers to word problems."""
    return GrpoRecipe(
        model=StartConfig(out / "sft" / "model"),
        data=PromptData(out / "practice"),
        rollouts=RolloutConfig(prompts=64, answers=8, max_new_tokens=36),
        kl=KlConfig(coef=0.01),
        optimizer=OptimizerConfig(
            learning_rate=1e-4, schedule="linear", warmup_tokens=0, weight_decay=0.0, beta2=0.99
        ),
        train=PolicyTrain(rounds=24, micro_batch_answers=256, seed=seed, tensorboard=False),
    )
