"""Draws answers to prompts, judges them, and keeps the best as rows of an instruction set.

Not for learning from them (`iterate.py`), nor for what rewards are (`rewards.py`).

Shape suffixes: P prompts, K answers to each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.alignment.answers import Answer
from isoflop.alignment.chat import Chat
from isoflop.alignment.forecast import Rewards, best_of, best_of_divergence
from isoflop.alignment.iterate_recipe import DrawConfig, IterateRecipe, KeepConfig
from isoflop.alignment.rewards import Attempt
from isoflop.alignment.rollout import Sampling, sample
from isoflop.alignment.rounds import Question, Setting, attempts_at, round_seed
from isoflop.core.artifact import build_directory, write_json, write_manifest
from isoflop.core.errors import DataError
from isoflop.core.hardware import machine
from isoflop.core.recipe import to_dict
from isoflop.data.endpoint import Endpoint
from isoflop.data.instruct import BAD_ROWS, KIND, SUMMARY, file_name
from isoflop.data.instruct_rows import Kind, prompt_messages
from isoflop.data.loader import shuffled
from isoflop.models.decoder import Decoder


@dataclass(frozen=True)
class Judged:
    """The answers to one prompt with what they are worth."""

    attempts: tuple[Attempt, ...]
    rewards: tuple[float, ...]
    ended: tuple[bool, ...]
    """Whether each ended by itself: one that was cut off is not learnt from."""

    def order(self) -> list[int]:
        """The answers that ended and say something, once each: those that earn most first."""
        seen: set[tuple[int, ...]] = set()
        kept = []
        for i in sorted(range(len(self.rewards)), key=lambda i: -self.rewards[i]):
            each = self.attempts[i]
            if self.ended[i] and each.text.strip() and each.answer.ids not in seen:
                seen.add(each.answer.ids)
                kept.append(i)
        return kept


@dataclass(frozen=True)
class BestOf:
    """What the best of n answers earn, for powers of two of n."""

    reward: float
    """Mean of single answers."""
    best: Mapping[str, float]
    """n → mean of the best of n, unbiased."""
    divergence: Mapping[str, float]
    """n → nats from the policy that drew, at most (`best_of_divergence`)."""
    ended: float
    """Share of answers that ended by themselves."""


def judge_round(
    model: Decoder, chat: Chat, setting: Setting, recipe: IterateRecipe, number: int, journal: Path
) -> list[Judged]:
    """Draw and judge the answers of a round.

    Args:
        number: Of the round, from 0: it decides prompts and draws.
        journal: Where a server's replies are kept, so that none is asked for twice.

    Raises:
        DataError: A server refuses or does not answer.
    """
    draw, seed = recipe.draw, recipe.train.seed
    count = len(setting.questions)
    places = np.arange(number * draw.prompts, (number + 1) * draw.prompts)
    questions = [setting.questions[i] for i in shuffled(places, count, seed)]
    at = round_seed(seed, number, "draws")
    if draw.server.url:
        answers, ended = _from_server(draw, chat, questions, at, journal)
    else:
        sampling = Sampling(draw.max_new_tokens, draw.temperature, draw.top_k, draw.top_p)
        prompts = [question.ids for question in questions]
        drawn = sample(model, prompts, sampling, setting.stop_ids, seed=at, copies=draw.answers)
        answers, ended = list(drawn.answers), drawn.ended_B.tolist()
    attempts = attempts_at(setting, questions, answers, seed, number)
    rewards = setting.reward(attempts).tolist()
    width = draw.answers
    return [
        Judged(tuple(attempts[i : i + width]), tuple(rewards[i : i + width]),
               tuple(ended[i : i + width]))
        for i in range(0, len(attempts), width)
    ]  # fmt: skip


def _from_server(
    draw: DrawConfig, chat: Chat, questions: Sequence[Question], seed: int, journal: Path
) -> tuple[list[Answer], list[bool]]:
    config = replace(draw.server, temperature=draw.temperature, max_tokens=draw.max_new_tokens)
    endpoint = Endpoint(config, journal)

    def ask(number: int) -> str:
        messages = prompt_messages(questions[number // draw.answers].row)
        return endpoint.ask(messages, (seed + number) % 2**31)

    with ThreadPoolExecutor(config.parallel) as pool:
        texts = list(pool.map(ask, range(len(questions) * draw.answers)))
    answers, ended = [], []
    for number, text in enumerate(texts):
        ids = tuple(chat.tokenizer.encode(text))
        answers.append(Answer(questions[number // draw.answers].ids, (*ids, chat.stop_id)))
        # A server does not say what it drew: an answer of all tokens allowed was cut off.
        ended.append(len(ids) < draw.max_new_tokens)
    return answers, ended


def best_of_figures(judged: Sequence[Judged]) -> BestOf:
    """What single answers and the best of several earn."""
    rewards_PK: Rewards = np.array([each.rewards for each in judged])
    total = rewards_PK.shape[1]
    powers = [2**i for i in range(total.bit_length()) if 2**i <= total]
    return BestOf(
        reward=float(rewards_PK.mean()),
        best={str(n): best_of(rewards_PK, n) for n in powers},
        divergence={str(n): best_of_divergence(n) for n in powers},
        ended=float(np.mean([each.ended for each in judged])),
    )


def kept_rows(
    judged: Sequence[Judged], keep: KeepConfig, ids: bool
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Supervised rows of the answers that are kept, and reasons of prompts without one.

    Args:
        ids: Keep what was drawn as ids, so that nothing is encoded anew.
    """
    rows, dropped = [], Counter[str]()
    for each in judged:
        order = each.order()
        good = [
            i for i in order if keep.least_reward is None or each.rewards[i] >= keep.least_reward
        ][: keep.best]
        if not good:
            dropped["no answer ended" if not order else "no answer earns enough"] += 1
        for i in good:
            row = each.attempts[i].row
            messages = [*prompt_messages(row), _said(each.attempts[i], ids)]
            rows.append({"messages": messages, "reward": each.rewards[i]})
    return rows, dropped


def best_and_worst(
    judged: Sequence[Judged], ids: bool
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """A preference row for each prompt whose answers are not all worth the same.

    Args:
        ids: As in `kept_rows`.
    """
    rows, dropped = [], Counter[str]()
    for each in judged:
        order = each.order()
        if not order:
            dropped["no answer ended"] += 1
        elif each.rewards[order[0]] == each.rewards[order[-1]]:
            dropped["all answers earn the same"] += 1
        else:
            best, worst = (_said(each.attempts[order[place]], ids) for place in (0, -1))
            prompt = prompt_messages(each.attempts[0].row)
            rows.append({"prompt": prompt, "chosen": [best], "rejected": [worst]})
    return rows, dropped


def _said(attempt: Attempt, ids: bool) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": attempt.text}
    # The token that ended it is the template's.
    return {**message, "ids": list(attempt.answer.ids[:-1])} if ids else message


def write_drawn(
    out: Path, judged: Sequence[Judged], recipe: IterateRecipe, model: Path
) -> dict[str, Any]:
    """Write what is kept of a round as an instruction set, with its figures in `summary.json`.

    Args:
        model: What drew, for the manifest.

    Raises:
        DataError: Nothing is left to learn from.
    """
    in_process = not recipe.draw.server.url
    kind: Kind = "preference" if recipe.learn == "dpo" else "supervised"
    if recipe.learn == "dpo":
        rows, dropped = best_and_worst(judged, in_process)
    else:
        rows, dropped = kept_rows(judged, recipe.keep, in_process)
    if not rows:
        counts = ", ".join(f"{reason} {n}" for reason, n in sorted(dropped.items()))
        raise DataError(
            f"no answer is left to learn from ({counts})",
            where=str(out),
            fix="Draw more answers, at another temperature, or ask less of them",
        )
    summary = {
        "rows": {kind: {"train": len(rows), "held_out": 0}},
        "sources": {"drawn": {"kept": len(rows), "dropped": dict(sorted(dropped.items()))}},
        "families": {"train": len(judged), "held_out": 0},
        "best_of": asdict(best_of_figures(judged)),
    }
    with build_directory(out) as aside:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        (aside / file_name(kind, "train")).write_text("".join(lines), encoding="utf-8")
        (aside / BAD_ROWS).write_text("", encoding="utf-8")
        write_json(aside / SUMMARY, summary)
        write_manifest(
            aside, kind=KIND, config=to_dict(recipe), machine=machine(), seed=recipe.train.seed,
            inputs=(model, recipe.data.set),
        )  # fmt: skip
    return summary
