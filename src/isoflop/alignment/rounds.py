"""Rounds of drawing answers and learning from them, as the batches of the one training loop.

A round's answers are drawn from the policy as it is when the loop asks for the round's first
batch; where a round has several steps they are kept on disk, so that a run killed between two of
them goes on with the same bits. Not for what advantages and losses are (`grpo.py`, `ppo.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from isoflop.alignment.answers import Answer, AnswerRows, by_length
from isoflop.alignment.answers import frozen_logprobs as logprobs_of
from isoflop.alignment.policy import adapt_kl_coef
from isoflop.alignment.policy_recipe import PolicyRecipe, RolloutConfig
from isoflop.alignment.reward_model import RewardModel
from isoflop.alignment.rewards import Attempt, Reward, correct
from isoflop.alignment.rollout import Sampling, sample
from isoflop.core.artifact import atomic_file
from isoflop.core.errors import RunError
from isoflop.data.loader import shuffled
from isoflop.models.decoder import Decoder
from isoflop.training.checkpoint import begun_checkpoints

FOLDER = "rollouts"


class Policy(nn.Module):
    """What is trained: an actor, a critic where there is one, and where its rounds stand.

    Args:
        kl_coef: β of the first round.
    """

    progress: Tensor

    def __init__(
        self, decoder: Decoder, critic: RewardModel | None = None, kl_coef: float = 0.0
    ) -> None:
        super().__init__()
        self.decoder, self.critic = decoder, critic
        # A buffer, so that checkpoints hold it: rounds begun, step at which the present one
        # began, β of the next, and how far the last step's policy was from the one that drew.
        start = torch.tensor([0.0, 0.0, kl_coef, 0.0], dtype=torch.float64)
        self.register_buffer("progress", start)

    @property
    def rounds(self) -> int:
        """Rounds begun."""
        return int(self.progress[0])

    @property
    def began(self) -> int:
        """The step at which the present round began."""
        return int(self.progress[1])

    @property
    def kl_coef(self) -> float:
        """β of the next round."""
        return float(self.progress[2])

    @property
    def drift(self) -> float:
        """KL(π_drew‖π) as the last step estimated it, nats per token."""
        return float(self.progress[3])


@dataclass(frozen=True)
class Question:
    """A prompt to be answered."""

    ids: tuple[int, ...]
    row: Mapping[str, Any]
    """What it is judged by."""


@dataclass(frozen=True)
class Setting:
    """What policies learn in."""

    questions: tuple[Question, ...]
    reward: Reward
    decode: Callable[[Sequence[int]], str]
    """Ids of an answer → its text."""
    stop_ids: tuple[int, ...]
    reference: Decoder
    """The policy it starts from, frozen."""
    held_out: tuple[Question, ...] = ()
    watched: bool = False
    """Whether rewards stand for what the rows' checkers could tell, which is then told too."""


@dataclass(frozen=True)
class Drawn:
    """The answers of a round, judged."""

    rows: AnswerRows
    sampler_BA: Tensor
    """log π by the sampler, float32 or as wide as the model."""
    old_BA: Tensor | None
    """The same by the trainer; None where the round has one step, whose own they are."""
    reference_BA: Tensor | None
    """log π_ref; None where nothing pulls towards it."""
    reward_B: Tensor
    kl_coef: float
    facts: dict[str, float]

    @property
    def behaviour_BA(self) -> Tensor:
        """log π of the policy that drew, by the trainer where it was asked."""
        return self.sampler_BA if self.old_BA is None else self.old_BA

    def divergence_BA(self) -> Tensor:
        """k1 of every token against the reference; 0 where there is none."""
        if self.reference_BA is None:
            return torch.zeros_like(self.sampler_BA)
        return self.behaviour_BA - self.reference_BA


@dataclass(frozen=True)
class Experience:
    """The answers of a round or of a part of it, ready to learn from: a batch of the loop."""

    rows: AnswerRows
    sampler_BA: Tensor
    advantages_BA: Tensor
    kl_coef: float
    old_BA: Tensor | None = None
    reference_BA: Tensor | None = None
    values_BA: Tensor | None = None
    returns_BA: Tensor | None = None
    facts: Mapping[str, float] = field(default_factory=dict)

    @property
    def n_valid(self) -> int:
        """Answer tokens."""
        return self.rows.n_tokens

    def take(self, numbers: Tensor) -> Experience:
        """Some of the answers, cut to the longest of them."""
        rows = self.rows.take(numbers)
        width = rows.mask_BA.shape[1]

        def cut(values_BA: Tensor | None) -> Tensor | None:
            return None if values_BA is None else values_BA[numbers, :width]

        return Experience(
            rows,
            self.sampler_BA[numbers, :width],
            self.advantages_BA[numbers, :width],
            self.kl_coef,
            cut(self.old_BA),
            cut(self.reference_BA),
            cut(self.values_BA),
            cut(self.returns_BA),
        )


Advantages = Callable[[Policy, Drawn], Experience]
"""Turns judged answers into what is learnt from them."""


def draw_round(policy: Policy, setting: Setting, recipe: PolicyRecipe, number: int) -> Drawn:
    """Draw, judge and measure the answers of round `number`; adapts the policy's β for the next."""
    rollouts, kl = recipe.rollouts, recipe.kl
    asked = shuffled(
        np.arange(number * rollouts.prompts, (number + 1) * rollouts.prompts),
        len(setting.questions),
        recipe.train.seed,
    )
    questions = [setting.questions[index] for index in asked]
    drawn = sample(
        policy.decoder,
        [question.ids for question in questions],
        sampling_of(rollouts),
        setting.stop_ids,
        seed=round_seed(recipe.train.seed, number, "draws"),
        copies=rollouts.answers,
    )
    rows, ended_B = drawn.rows(), drawn.ended_B
    attempts = attempts_at(setting, questions, drawn.answers, recipe.train.seed, number)
    reward_B = setting.reward(attempts) - rollouts.missing_stop_penalty * (~ended_B).double()
    size, heat = recipe.train.micro_batch_answers, rollouts.temperature
    sampler_BA = drawn.logprobs_BA.to(policy.decoder.lm_head.weight.dtype)
    one_step = rollouts.epochs * rollouts.minibatches == 1
    old_BA = None if one_step else logprobs_of(policy.decoder, rows, heat, size)
    reference_BA = logprobs_of(setting.reference, rows, heat, size) if policy.kl_coef else None
    found = Drawn(rows, sampler_BA, old_BA, reference_BA, reward_B, policy.kl_coef, {})
    per_answer = found.divergence_BA().double().sum(-1)
    groups_PG = reward_B.view(-1, rollouts.answers)
    found.facts.update(
        reward=reward_B.mean().item(),
        reward_std=reward_B.std(unbiased=False).item(),
        answer_tokens=rows.lengths_B.double().mean().item(),
        ended=ended_B.double().mean().item(),
        dead_groups=(groups_PG == groups_PG[:, :1]).all(-1).double().mean().item(),
        kl=per_answer.mean().item(),
        kl_coef=policy.kl_coef,
    )
    if setting.watched:
        found.facts["checked"] = sum(correct(attempts)) / len(attempts)
    if kl.target is not None:
        policy.progress[2] = adapt_kl_coef(
            policy.kl_coef, per_answer.mean().item(), kl.target, kl.horizon, len(rows)
        )
    return found


def attempts_at(
    setting: Setting,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    seed: int,
    round_: int,
) -> list[Attempt]:
    """A round's answers to be judged, as many in a row to each question."""
    draw = torch.Generator().manual_seed(round_seed(seed, round_, "luck"))
    luck = torch.rand(len(answers), generator=draw, dtype=torch.float64).tolist()
    each = len(answers) // len(questions)
    return [
        Attempt(questions[i // each].row, answer, setting.decode(answer.ids), luck[i])
        for i, answer in enumerate(answers)
    ]


def sampling_of(rollouts: RolloutConfig) -> Sampling:
    """How a recipe's answers are drawn."""
    return Sampling(rollouts.max_new_tokens, rollouts.temperature, rollouts.top_k, rollouts.top_p)


def round_seed(seed: int, number: int, what: str) -> int:
    """A seed for one use in one round."""
    digest = hashlib.sha256(f"{seed}/{number}/{what}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Rounds:
    """Hands the loop its batches, round after round, and keeps what it says of them.

    Args:
        store: The run's directory, where rounds of several steps are kept; None keeps none.
        early_stop: Drift at which a round ends before its last step; None for never.
    """

    def __init__(
        self,
        policy: Policy,
        setting: Setting,
        recipe: PolicyRecipe,
        advantages: Advantages,
        store: Path | None = None,
        early_stop: float | None = None,
    ) -> None:
        self._policy, self._setting, self._recipe = policy, setting, recipe
        self._advantages, self._store, self._early_stop = advantages, store, early_stop
        rollouts = recipe.rollouts
        self.steps_a_round = rollouts.epochs * rollouts.minibatches
        self._present: Experience | None = None
        self._sums: dict[str, float] = {}
        self._tokens = 0

    def batches(self, step: int) -> Sequence[Experience]:
        """The micro-batches of a step; begins a round where one is due."""
        present = self._experience(step)
        rollouts, train = self._recipe.rollouts, self._recipe.train
        self._sums, self._tokens = {}, 0
        epoch, part = divmod(step - self._policy.began, rollouts.minibatches)
        draw = torch.Generator()
        draw.manual_seed(round_seed(train.seed, self._policy.rounds, f"epoch {epoch}"))
        order = torch.randperm(len(present.rows), generator=draw)
        numbers = order.tensor_split(rollouts.minibatches)[part]
        parts = by_length(present.rows, train.micro_batch_answers, numbers)
        return [present.take(part) for part in parts]

    def note(self, tokens: int, drift: float, **facts: float) -> None:
        """Record what a micro-batch of this many tokens showed; means over tokens are kept."""
        self._tokens += tokens
        for key, value in {"drift": drift, **facts}.items():
            self._sums[key] = self._sums.get(key, 0.0) + value * tokens
        self._policy.progress[3] = self._sums["drift"] / self._tokens

    def facts(self) -> dict[str, float]:
        """What the logs say: of the round, and of the last step in it."""
        of_round = {} if self._present is None else dict(self._present.facts)
        means = {key: total / self._tokens for key, total in self._sums.items()}
        return {"round": float(self._policy.rounds), **of_round, **means}

    def _experience(self, step: int) -> Experience:
        policy = self._policy
        over = policy.rounds == 0 or step >= policy.began + self.steps_a_round
        if self._early_stop is not None and step > policy.began:
            over |= policy.drift > self._early_stop
        if over:
            self._present = self._begin(step)
        elif self._present is None:
            self._present = self._load()
        return self._present

    def _begin(self, step: int) -> Experience:
        policy = self._policy
        drawn = draw_round(policy, self._setting, self._recipe, policy.rounds)
        found = self._advantages(policy, drawn)
        policy.progress[0] += 1
        policy.progress[1] = step
        policy.progress[3] = 0.0
        if self._store is not None and self.steps_a_round > 1:
            self._save(found)
        return found

    # --- on disk ---------------------------------------------------------------------------

    def _path(self, began: int) -> Path:
        if self._store is None:
            raise ValueError("these rounds are not kept")
        return self._store / FOLDER / f"step_{began:08d}.safetensors"

    def _save(self, found: Experience) -> None:
        path = self._path(self._policy.began)
        rows = found.rows
        tensors = {
            "ids": rows.ids_BT, "start": rows.start_B, "answer": rows.answer_BA,
            "mask": rows.mask_BA, "kept": rows.kept_BAV, "sampler": found.sampler_BA,
            "advantages": found.advantages_BA, "old": found.old_BA,
            "reference": found.reference_BA, "values": found.values_BA,
            "returns": found.returns_BA,
        }  # fmt: skip
        held = {name: value.contiguous() for name, value in tensors.items() if value is not None}
        facts = json.dumps({"kl_coef": found.kl_coef, "facts": dict(found.facts)})
        with atomic_file(path) as file:
            file.write(safetensors.torch.save(held, {"experience": facts}))
        self._remove_old(path.parent)

    def _remove_old(self, folder: Path) -> None:
        """Keep the present round and those that a checkpoint lies within."""
        found = {int(path.stem.rpartition("_")[2]): path for path in folder.glob("step_*")}
        needed = {self._policy.began}
        for step in begun_checkpoints(folder.parent / "checkpoints"):
            needed |= {max((began for began in found if began < step), default=0)}
        for began, path in found.items():
            if began not in needed:
                path.unlink()

    def _load(self) -> Experience:
        path = self._path(self._policy.began) if self._store is not None else None
        if path is None or not path.exists():
            raise RunError(
                "the answers of the round that the checkpoint lies within are gone",
                where=str(path),
                fix="Start anew in another directory with -o",
            )
        with safe_open(path, "pt") as file:
            kept = json.loads(file.metadata()["experience"])
            held: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        rows = AnswerRows(
            held["ids"], held["start"], held["answer"], held["mask"], held.get("kept")
        )
        return Experience(
            rows, held["sampler"], held["advantages"], kept["kl_coef"], held.get("old"),
            held.get("reference"), held.get("values"), held.get("returns"), kept["facts"],
        )  # fmt: skip
