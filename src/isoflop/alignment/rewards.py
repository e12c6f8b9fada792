"""What an answer is worth: rules, programs' tests, reward models, and their sums.

Not for how policies use it (`grpo.py`, `ppo.py`).
"""

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
from isoflop.core.sandbox import Limits, run_programs
from isoflop.data.answers import is_right, matches


@dataclass(frozen=True)
class Attempt:
    """An answer to be judged."""

    row: Mapping[str, Any]
    """The row its prompt came from, with `answer`, `verifier` or `tests`."""
    answer: Answer
    """Its prompt and its ids."""
    text: str
    """The answer without the token that ended it."""
    luck: float = 0.0
    """A number in [0, 1) drawn beside the answer and independent of it."""


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


CHECKED_BY = ("answer", "verifier", "tests")
"""Keys of a row that tell right answers from wrong ones."""
LIMITS = Limits(seconds=3.0, memory_bytes=256 * 2**20)
"""Of a program that a policy writes."""
_FENCED = re.compile(r"```(?:python)?\n(.*?)(?:```|\Z)", re.DOTALL)


def correct(attempts: Sequence[Attempt]) -> list[bool]:
    """Whether each text answers its verifiable row: its final answer is the row's, it fits the
    row's pattern, or it is a program that passes the row's tests, run in a sandbox."""
    programs = [i for i, each in enumerate(attempts) if _tests(each.row)]
    sources = [_program(attempts[i].text) + "\n\n" + _tests(attempts[i].row) for i in programs]
    passed = dict(zip(programs, (ran.ok for ran in run_programs(sources, LIMITS)), strict=True))
    return [
        passed[i] if i in passed else _says(each.row, each.text) for i, each in enumerate(attempts)
    ]


def _says(row: Mapping[str, Any], text: str) -> bool:
    answer = row.get("answer")
    if isinstance(answer, str):
        return is_right(text, answer)
    return matches(text, str(row["verifier"]))


def _tests(row: Mapping[str, Any]) -> str:
    tests = row.get("tests")
    return tests if isinstance(tests, str) else ""


def _program(text: str) -> str:
    """What is between the first fences, or all of it."""
    fenced = _FENCED.search(text)
    return fenced[1] if fenced else text


def exact(attempts: Sequence[Attempt]) -> Tensor:
    """1 where the answer is right, else 0."""
    return _numbers([float(right) for right in correct(attempts)])


def _term(term: RewardTerm, vocab_size: int) -> Reward:
    if term.kind == "regex":
        pattern = re.compile(term.pattern or "", re.DOTALL)
        return lambda some: _numbers([float(bool(pattern.fullmatch(a.text))) for a in some])
    if term.kind == "length":
        free = term.tokens or 1
        return lambda some: _numbers([min(0.0, 1 - len(a.answer.ids) / free) for a in some])
    if term.kind == "chance":
        return lambda some: _numbers([float(a.luck >= 0.5) for a in some])
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
