"""What learning from a policy's own best answers is told: the recipe, checked; no torch.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from isoflop.alignment.dpo_recipe import DpoConfig
from isoflop.alignment.policy_recipe import PromptData, RewardTerm, reward_problems
from isoflop.alignment.sft_recipe import StartConfig
from isoflop.core.errors import RecipeError
from isoflop.data.endpoint import EndpointConfig, endpoint_problems
from isoflop.training.optimizer_recipe import OptimizerConfig, optimizer_problems


@dataclass(frozen=True)
class DrawConfig:
    """What is drawn in a round (`[draw]`)."""

    prompts: int = 256
    """Prompts of a round."""
    answers: int = 8
    """Answers to each prompt."""
    max_new_tokens: int = 64
    """Longest answer."""
    temperature: float = 1.0
    """Of the draws."""
    top_k: int | None = None
    """Draw among this many likeliest tokens only."""
    top_p: float | None = None
    """Draw among the fewest likeliest tokens that hold this much probability."""
    server: EndpointConfig = field(default_factory=EndpointConfig)
    """Ask an OpenAI-compatible server (vLLM, `isoflop serve`) that serves the model in place of
    drawing in process; for one round, since what it serves does not learn."""


@dataclass(frozen=True)
class KeepConfig:
    """Which answers are learnt from (`[keep]`)."""

    best: int | None = 1
    """So many answers to each prompt, those that earn most; all of them when `None`."""
    least_reward: float | None = None
    """None of those that earn less than this (rejection sampling)."""


@dataclass(frozen=True)
class IterateTrain:
    """How much is learnt from each round (`[train]`)."""

    rounds: int = 3
    """Times answers are drawn and learnt from."""
    epochs: float = 1.0
    """Times the rows of a round are gone through."""
    batch_rows: int = 32
    """Rows of an optimizer step: windows of packed answers, or pairs."""
    micro_batch_rows: int = 32
    """Rows per forward and backward pass; changes speed and memory only."""
    seed: int = 0
    """Fixes prompts, draws and order."""
    threads: int | None = None
    """CPU threads; all cores when not given."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    eval_answers: int = 200
    """Most held-out prompts that are answered after each round, greedily."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""


@dataclass(frozen=True)
class IterateRecipe:
    """Rounds of drawing answers, keeping the best and learning from them."""

    model: StartConfig
    """The model it starts from."""
    data: PromptData
    """The prompts."""
    rewards: tuple[RewardTerm, ...] = (RewardTerm("exact"),)
    """What answers are worth: the sum of these terms."""
    draw: DrawConfig = field(default_factory=DrawConfig)
    """What is drawn in a round."""
    keep: KeepConfig = field(default_factory=KeepConfig)
    """Which answers are learnt from."""
    learn: Literal["sft", "dpo", "nothing"] = "sft"
    """sft: fine-tune on the answers kept (rejection sampling; RAFT, Dong et al. 2023); dpo: prefer
    the best answer to the worst (on-policy DPO; Xu et al. 2023); nothing: best-of-n alone, the set
    of answers with what they are worth."""
    reference: Literal["first", "previous"] = "first"
    """Of dpo: the model it all starts from, whose rounds lead to π_ref·exp(r/β) like one; or that
    of the round before, whose k rounds lead to π_ref·exp(k·r/β)."""
    dpo: DpoConfig = field(default_factory=DpoConfig)
    """The loss (dpo)."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and schedule, anew in each round."""
    train: IterateTrain = field(default_factory=IterateTrain)
    """How much is learnt."""

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value at once.
        """
        if problems := [*_problems(self)]:
            raise RecipeError("; ".join(problems), where="iterate recipe")


def _problems(recipe: IterateRecipe) -> Iterator[str]:
    draw, keep, train = recipe.draw, recipe.keep, recipe.train
    for table, names in (
        ("draw", ("prompts", "answers", "max_new_tokens")),
        (
            "train",
            ("rounds", "batch_rows", "micro_batch_rows", "log_every", "eval_answers",
             "checkpoint_every"),
        ),
    ):  # fmt: skip
        for name in names:
            value = getattr(getattr(recipe, table), name)
            if value < 1:
                yield f"{table}.{name} = {value} must be at least 1"
    if not train.epochs > 0:
        yield f"train.epochs = {train.epochs} must be positive"
    if train.batch_rows % train.micro_batch_rows:
        yield f"train.batch_rows = {train.batch_rows} is not a multiple of train.micro_batch_rows"
    if not draw.temperature > 0:
        yield f"draw.temperature = {draw.temperature} must be positive: the best of equal answers "
        "is none"
    if keep.best is not None and keep.best < 1:
        yield f"keep.best = {keep.best} must be at least 1"
    if recipe.learn == "dpo" and draw.answers < 2:
        yield "draw.answers must be at least 2 for dpo: answers are compared"
    if recipe.learn == "dpo" and (keep.best != 1 or keep.least_reward is not None):
        yield "keep is for sft: dpo compares the best answer with the worst"
    if recipe.learn == "dpo" and recipe.dpo.loss == "kto":
        yield "dpo.loss = kto is for rated answers; here are pairs"
    if recipe.dpo.reference is not None:
        yield "dpo.reference: say reference = first or previous"
    if recipe.learn == "nothing" and train.rounds > 1:
        yield "train.rounds must be 1 where nothing is learnt"
    if draw.server.url:
        yield from endpoint_problems(draw.server)
        if train.rounds > 1:
            yield "train.rounds must be 1 with draw.server: what it serves does not learn"
        if draw.top_k is not None or draw.top_p is not None:
            yield "draw.top_k and top_p are for draws in process"
    yield from reward_problems(recipe.rewards)
    yield from optimizer_problems(recipe.optimizer)
