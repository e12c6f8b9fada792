"""What GRPO and PPO are told: the recipes as frozen dataclasses, checked as a whole; no torch.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isoflop.alignment.sft_recipe import StartConfig
from isoflop.core.errors import RecipeError
from isoflop.training.guard_recipe import GuardConfig, guard_problems
from isoflop.training.optimizer_recipe import OptimizerConfig, optimizer_problems

KlForm = Literal["reverse-in-reward", "reverse-k2", "reverse-k3", "forward-k3"]


@dataclass(frozen=True)
class PromptData:
    """What is asked."""

    set: Path
    """A directory made by `isoflop data instruct`, with verifiable rows."""
    text: Path | None = None
    """Shards of text the model was trained on (`isoflop tokenize`), whose bits per byte are told
    before and after: what the run cost; not told when not given."""


@dataclass(frozen=True)
class RewardTerm:
    """One part of the reward (a `[[rewards]]` table); the reward is their sum."""

    kind: Literal["exact", "regex", "length", "model", "chance"]
    """exact: 1 where the final answer is the row's, else 0 (its `verifier`, a pattern, or its
    `tests`, run in a sandbox with the answer as the program, where it has no answer); regex: 1
    where the whole text fits `pattern`; length: how far the answer exceeds `tokens`, as a share of
    it, negative; model: the score of a reward model; chance: 0 or 1 as a coin falls, whatever the
    answer, for a control that can teach nothing."""
    weight: float = 1.0
    """Factor of this term."""
    pattern: str | None = None
    """A regular expression (regex)."""
    tokens: int | None = None
    """Length that costs nothing (length)."""
    path: Path | None = None
    """`model/` of a run of `isoflop reward` (model)."""
    head: str | None = None
    """Which of the reward model's heads; its first when not given (model)."""


@dataclass(frozen=True)
class RolloutConfig:
    """What is drawn between updates (`[rollouts]`)."""

    prompts: int = 16
    """Prompts of a round."""
    answers: int = 8
    """Answers to each prompt."""
    max_new_tokens: int = 64
    """Longest answer."""
    temperature: float = 1.0
    """Of the draws; the policy that is trained is the one at this temperature."""
    top_k: int | None = None
    """Draw among this many likeliest tokens only."""
    top_p: float | None = None
    """Draw among the fewest likeliest tokens that hold this much probability."""
    epochs: int = 1
    """Times the answers of a round are gone through."""
    minibatches: int = 1
    """Optimizer steps in which they are gone through once."""
    missing_stop_penalty: float = 0.0
    """Taken off the reward of an answer that does not end within max_new_tokens."""
    most_correction: float | None = 2.0
    """Tokens weigh by how much likelier the trainer thinks them than the sampler did, at most this
    much (truncated importance sampling, Yao et al. 2025); none when left out with `None`."""


@dataclass(frozen=True)
class KlConfig:
    """The pull towards the model it starts from (`[kl]`)."""

    coef: float = 0.02
    """β: reward that a nat of divergence costs; 0 for no pull."""
    form: KlForm = "reverse-in-reward"
    """Which divergence, and where: reverse-in-reward (k1 in the reward), reverse-k2 and reverse-k3
    (k2, or k3 times the ratio, of whole answers in the loss) all lead to π* ∝ π_ref·exp(r/β);
    forward-k3 (k3 of tokens in the loss, as GRPO was published) optimises KL(π_ref‖π) instead."""
    target: float | None = None
    """Adapt β so that an answer diverges by this many nats (Ziegler et al. 2019); fixed when not
    given."""
    horizon: int = 10_000
    """Answers over which β adapts."""


@dataclass(frozen=True)
class GrpoConfig:
    """How answers to one prompt are compared (`[grpo]`)."""

    baseline: Literal["group", "leave-one-out"] = "group"
    """What a reward is compared with: the mean of its group, or of the group's others (RLOO)."""
    divide_by_std: bool = False
    """Divide by the group's standard deviation, as published (Shao et al. 2024): it changes what is
    optimised, prompts nearly solved and nearly hopeless count most."""
    clip_low: float = 0.2
    """The ratio to the policy that drew is not rewarded below 1 − this."""
    clip_high: float = 0.28
    """Nor above 1 + this; higher than clip_low, rare tokens may grow (Yu et al. 2025)."""


@dataclass(frozen=True)
class PpoConfig:
    """Actor and critic (`[ppo]`)."""

    gamma: float = 1.0
    """Discount per token."""
    lam: float = 0.95
    """λ of generalised advantage estimation."""
    whiten: bool = True
    """Scale the advantages of a round to variance 1."""
    clip: float = 0.2
    """The ratio to the policy that drew is not rewarded outside 1 ± this."""
    value_clip: float | None = 0.2
    """Furthest a value moves in a round; unlimited when `None`."""
    value_coef: float = 0.5
    """Weight of the critic's loss."""
    critic_rate: float = 1.0
    """The critic's learning rate as a multiple of the actor's."""
    entropy_coef: float = 0.0
    """Weight of the entropy that is rewarded."""
    early_stop_kl: float | None = None
    """End a round once the policy is this many nats per token from the one that drew; never when
    not given."""
    critic: Path | None = None
    """A reward model that the critic starts from; the model itself, with a head of zeros, when not
    given."""


@dataclass(frozen=True)
class PolicyTrain:
    """How long, and what is written down (`[train]`)."""

    rounds: int = 100
    """Rounds of rollouts."""
    micro_batch_answers: int = 64
    """Answers per forward and backward pass; changes speed and memory only."""
    seed: int = 0
    """Fixes prompts and draws."""
    threads: int | None = None
    """CPU threads; all cores when not given."""
    log_every: int = 5
    """Steps between lines of metrics.jsonl."""
    evaluations: int = 2
    """Held-out evaluations during the run, evenly spaced, the last at the end."""
    eval_answers: int = 200
    """Most held-out prompts that are answered at each evaluation, greedily."""
    forecast_answers: int = 16
    """Answers of the reference to each of up to 64 prompts, from which forecast.json tells before
    the run what it can come to; 0 for none."""
    checkpoint_every: int = 50
    """Steps between checkpoints."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""


@dataclass(frozen=True)
class PolicyRecipe:
    """What GRPO and PPO have in common."""

    model: StartConfig
    """The model it starts from, which is also the reference."""
    data: PromptData
    """The prompts."""
    rewards: tuple[RewardTerm, ...] = (RewardTerm("exact"),)
    """What answers are worth: the sum of these terms."""
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    """What is drawn between updates."""
    kl: KlConfig = field(default_factory=KlConfig)
    """The pull towards the reference."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer and schedule; tokens of warm-up are counted as full answers."""
    train: PolicyTrain = field(default_factory=PolicyTrain)
    """Length, logging."""
    guard: GuardConfig = field(default_factory=lambda: GuardConfig(spike_z=0.0))
    """Bad steps; a policy's loss is near zero by nature, so that its jumps mean nothing."""

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value at once.
        """
        if problems := [*_problems(self), *self.own_problems()]:
            raise RecipeError("; ".join(problems), where="recipe")

    def own_problems(self) -> Iterator[str]:
        """What is impossible in the method's own table."""
        yield from ()


@dataclass(frozen=True)
class GrpoRecipe(PolicyRecipe):
    """One run of group-relative policy optimisation."""

    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    """How answers are compared."""

    def own_problems(self) -> Iterator[str]:
        """What is impossible in `[grpo]`."""
        if self.rollouts.answers < 2:
            yield "rollouts.answers must be at least 2: answers are compared with each other"
        for name in ("clip_low", "clip_high"):
            if not getattr(self.grpo, name) > 0:
                yield f"grpo.{name} = {getattr(self.grpo, name)} must be positive"


@dataclass(frozen=True)
class PpoRecipe(PolicyRecipe):
    """One run of proximal policy optimisation."""

    ppo: PpoConfig = field(default_factory=PpoConfig)
    """Actor and critic."""

    def own_problems(self) -> Iterator[str]:
        """What is impossible in `[ppo]`."""
        ppo = self.ppo
        for name in ("gamma", "lam"):
            if not 0 <= getattr(ppo, name) <= 1:
                yield f"ppo.{name} = {getattr(ppo, name)} is outside [0, 1]"
        for name in ("clip", "value_clip", "critic_rate", "early_stop_kl"):
            value = getattr(ppo, name)
            if value is not None and not value > 0:
                yield f"ppo.{name} = {value} must be positive"
        for name in ("value_coef", "entropy_coef"):
            if getattr(ppo, name) < 0:
                yield f"ppo.{name} = {getattr(ppo, name)} must not be negative"


def _problems(recipe: PolicyRecipe) -> Iterator[str]:
    rollouts, train, kl = recipe.rollouts, recipe.train, recipe.kl
    for table, names in (
        ("rollouts", ("prompts", "answers", "max_new_tokens", "epochs", "minibatches")),
        (
            "train",
            ("rounds", "micro_batch_answers", "log_every", "evaluations", "eval_answers",
             "checkpoint_every"),
        ),
    ):  # fmt: skip
        for name in names:
            value = getattr(getattr(recipe, table), name)
            if value < 1:
                yield f"{table}.{name} = {value} must be at least 1"
    if not rollouts.temperature > 0:
        yield f"rollouts.temperature = {rollouts.temperature} must be positive: nothing is learnt "
        "from answers that are all the same"
    if rollouts.top_k is not None and rollouts.top_k < 2:
        yield f"rollouts.top_k = {rollouts.top_k} must be at least 2"
    if rollouts.top_p is not None and not 0 < rollouts.top_p <= 1:
        yield f"rollouts.top_p = {rollouts.top_p} is outside (0, 1]"
    if rollouts.prompts * rollouts.answers < rollouts.minibatches:
        yield f"rollouts.minibatches = {rollouts.minibatches} are more than there are answers"
    if rollouts.most_correction is not None and rollouts.most_correction < 1:
        yield f"rollouts.most_correction = {rollouts.most_correction} must be at least 1"
    if train.forecast_answers < 0:
        yield f"train.forecast_answers = {train.forecast_answers} must not be negative"
    if train.threads is not None and train.threads < 1:
        yield f"train.threads = {train.threads} must be at least 1"
    if kl.coef < 0:
        yield f"kl.coef = {kl.coef} must not be negative"
    if kl.target is not None and not (kl.target > 0 and kl.coef > 0):
        yield "kl.target needs to be positive, and a positive kl.coef to begin with"
    if kl.horizon < 1:
        yield f"kl.horizon = {kl.horizon} must be at least 1"
    yield from reward_problems(recipe.rewards)
    yield from optimizer_problems(recipe.optimizer)
    yield from guard_problems(recipe.guard)


def reward_problems(terms: Sequence[RewardTerm]) -> Iterator[str]:
    """What is impossible in `[[rewards]]`, one phrase each."""
    if not terms:
        yield "give at least one [[rewards]] table"
    for number, term in enumerate(terms):
        yield from (f"rewards[{number}]: {problem}" for problem in _term_problems(term))


def _term_problems(term: RewardTerm) -> Iterator[str]:
    needed = {"regex": "pattern", "length": "tokens", "model": "path"}
    for kind, name in needed.items():
        given = getattr(term, name) is not None
        if given != (term.kind == kind):
            yield f"kind {term.kind} {'takes no' if given else 'needs'} {name}"
    if term.head is not None and term.kind != "model":
        yield f"kind {term.kind} takes no head"
    if term.tokens is not None and term.tokens < 1:
        yield f"tokens = {term.tokens} must be at least 1"
    if term.pattern is not None:
        try:
            re.compile(term.pattern)
        except re.error as error:
            yield f"pattern is not a regular expression: {error}"
