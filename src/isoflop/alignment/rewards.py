"""What an answer is worth: rules, reward models, and sums of them; not how policies use it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isoflop.alignment.answers import Answer
from isoflop.alignment.policy_recipe import RewardTerm
from isoflop.alignment.reward_model import RewardModel, load_reward_model
from isoflop.core.errors import RecipeError
from isoflop.data.answers import is_right, matches


@dataclass(frozen=True)
class Attempt:
    """An answer to be judged."""

    row: Mapping[str, Any]
    """The row its prompt came from, with `answer` or `verifier`."""
    answer: Answer
    """Its prompt and its ids."""
    text: str
    """The answer without the token that ended it."""


Reward = Callable[[Sequence[Attempt]], Tensor]
"""Attempts → their rewards, (B,) float64."""


def reward_of(terms: Sequence[RewardTerm], vocab_size: int) -> Reward:
    """The sum of a recipe's terms.

    Args:
        vocab_size: Of the policy: a reward model must read the same ids.

    Raises:
        ArtifactError: A reward model cannot be opened.
        RecipeError: It has another vocabulary, or no head of that name.
    """
    parts = [(term.weight, _term(term, vocab_size)) for term in terms]

    def total(attempts: Sequence[Attempt]) -> Tensor:
        out_B = torch.zeros(len(attempts), dtype=torch.float64)
        for weight, part in parts:
            out_B += weight * part(attempts)
        return out_B

    return total


def is_correct(row: Mapping[str, Any], text: str) -> bool:
    """Whether a text answers a verifiable row."""
    answer = row.get("answer")
    if isinstance(answer, str):
        return is_right(text, answer)
    return matches(text, str(row["verifier"]))


def exact(attempts: Sequence[Attempt]) -> Tensor:
    """1 where the final answer is right, else 0."""
    return _numbers([float(is_correct(each.row, each.text)) for each in attempts])


def _term(term: RewardTerm, vocab_size: int) -> Reward:
    if term.kind == "regex":
        pattern = re.compile(term.pattern or "", re.DOTALL)
        return lambda some: _numbers([float(bool(pattern.fullmatch(a.text))) for a in some])
    if term.kind == "length":
        free = term.tokens or 1
        return lambda some: _numbers([min(0.0, 1 - len(a.answer.ids) / free) for a in some])
    if term.kind == "model" and term.path is not None:
        return _model(load_reward_model(term.path), term, vocab_size)
    return exact


def _model(model: RewardModel, term: RewardTerm, vocab_size: int) -> Reward:
    if model.decoder.config.vocab_size != vocab_size:
        raise RecipeError(
            f"the reward model has {model.decoder.config.vocab_size} ids, the policy {vocab_size}",
            where=str(term.path),
            fix="Train it from the same tokenizer",
        )
    if term.head is not None and term.head not in model.heads:
        raise RecipeError(
            f"the reward model has no head `{term.head}`",
            where=str(term.path),
            fix=f"It has {', '.join(model.heads)}",
        )
    head = 0 if term.head is None else model.heads.index(term.head)

    def judge(attempts: Sequence[Attempt]) -> Tensor:
        return model.judge([each.answer for each in attempts])[:, head].double()

    return judge


def _numbers(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
