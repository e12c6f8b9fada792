"""Having a model continue prompts up to stop strings, many at a time.

Not for one user (`models/generate.py`) nor for serving. Context rule of lm-evaluation-harness: a
prompt loses its beginning where prompt and new text would not fit the window together.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from isoflop.core.errors import DataError, RecipeError
from isoflop.evaluation.cache import RowCache
from isoflop.evaluation.likelihood import FEWEST_ROWS, Ids, Subject, T
from isoflop.models.generate import choose

PROMPT_STEP = 16
"""Prompts are read at once up to a multiple of this, so that those of about one length share a
batch; the rest is read a token at a time, beside what others write."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    temperature: float = 0.0
    """Divides the logits; 0 takes the likeliest token."""
    top_p: float | None = None
    """Sample among the fewest likeliest tokens that hold this much probability."""
    seed: int = 0
    """Fixes the samples, with the prompt and the number of the sample."""


GREEDY = Sampling()


@dataclass(frozen=True)
class Written:
    """What a model wrote after a prompt."""

    text: str
    """Up to the first stop string, which is left out."""
    n_tokens: int
    finish: Literal["end", "stop", "length"]
    """The document ended, a stop string came, or `max_new_tokens` were written."""
    truncated: bool
    """Whether the prompt lost its beginning."""


def generate_until(
    subject: Subject,
    prompts: Sequence[str],
    stop: Sequence[str],
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    samples: int = 1,
) -> list[list[Written]]:
    """What the model writes after each prompt, `samples` times each.

    A text depends on its prompt, the number of the sample and `sampling`, not on the others.

    Args:
        stop: Strings that end a text; the end of a document always does.

    Raises:
        DataError: `max_new_tokens` leaves no room for a prompt.
        RecipeError: `max_new_tokens`, `samples` or the temperature is out of range.
    """
    limit = subject.decoder.config.max_seq_len
    if max_new_tokens < 1 or samples < 1 or not 0 <= sampling.temperature < float("inf"):
        raise RecipeError(
            "new tokens and samples must be at least 1, the temperature at least 0",
            where="generation",
        )
    if any(not one for one in stop):
        raise RecipeError("an empty stop string would end every text", where="generation")
    if max_new_tokens >= limit:
        raise DataError(
            f"{max_new_tokens} new tokens leave no room for a prompt in a window of {limit}",
            fix="Ask for fewer new tokens",
        )
    jobs = []
    for number, prompt in enumerate(prompts):
        ids = tuple(subject.tokenizer.encode(prompt)) or (subject.start_id,)
        kept = ids[-(limit - max_new_tokens) :]
        for sample in range(samples):
            key = f"{sampling.seed}/{sample}/{prompt}"
            jobs.append(_Job(number, kept, len(kept) < len(ids), random.Random(key)))
    written: list[list[Written]] = [[] for _ in prompts]
    for batch in _batches(jobs, subject.batch_tokens, max_new_tokens):
        _write(subject, batch, tuple(stop), max_new_tokens, sampling)
    for job in jobs:
        written[job.number].append(Written(job.text, len(job.new), job.finish, job.truncated))
    return written


class _Job:
    """One text being written."""

    def __init__(self, number: int, prompt: Ids, truncated: bool, draw: random.Random) -> None:
        self.number, self.prompt, self.truncated, self.draw = number, prompt, truncated, draw
        self.new: list[int] = []
        self.text = ""
        self.finish: Literal["end", "stop", "length"] = "length"
        self.done = False

    @property
    def prefix(self) -> int:
        """Leading ids of the prompt read at once; a function of the prompt alone."""
        return max(1, (len(self.prompt) - 1) // PROMPT_STEP * PROMPT_STEP)

    def token(self, place: int) -> int:
        """The id at a place of prompt and text."""
        n = len(self.prompt)
        return self.prompt[place] if place < n else self.new[place - n]

    def add(self, index: int, subject: Subject, stop: tuple[str, ...], most: int) -> None:
        """Take the next token."""
        self.new.append(index)
        if index == subject.tokenizer.eos_id:
            self.finish, self.done = "end", True
            return
        self.text = subject.tokenizer.decode(self.new)
        places = [self.text.index(one) for one in stop if one in self.text]
        if places:
            self.text, self.finish, self.done = self.text[: min(places)], "stop", True
        self.done = self.done or len(self.new) == most


def _batches(jobs: list[_Job], batch_tokens: int, most: int) -> Iterator[list[_Job]]:
    ordered = sorted(jobs, key=lambda job: (job.prefix, len(job.prompt)))
    start = 0
    while start < len(ordered):
        prefix = ordered[start].prefix
        size = max(FEWEST_ROWS, batch_tokens // (prefix + PROMPT_STEP + most))
        batch = [job for job in ordered[start : start + size] if job.prefix == prefix]
        yield batch
        start += len(batch)


@torch.no_grad()
def _write(
    subject: Subject, batch: list[_Job], stop: tuple[str, ...], most: int, sampling: Sampling
) -> None:
    """Continue all of a batch: one step reads the next token of every text, be it of its prompt
    or new, so that prompts of different lengths need no padding."""
    decoder = subject.decoder
    device = decoder.embed_tokens.weight.device
    cache = RowCache(decoder.config.n_layers)
    place = batch[0].prefix
    live = list(batch)
    rows = _filled(live)
    ids = torch.tensor([job.prompt[:place] for job in rows], device=device)
    while True:
        x_BD = decoder.hidden(ids, cache=cache)[:, -1]
        ready = [i for i, job in enumerate(live) if len(job.prompt) <= place and not job.done]
        if ready:
            logits_BV: Tensor = decoder.lm_head(x_BD).float()
            for i, index in zip(ready, _choose(logits_BV, live, ready, sampling), strict=True):
                live[i].add(index, subject, stop, most)
        left = [i for i, job in enumerate(live) if not job.done]
        if not left:
            return
        # Finished rows cost until they are taken out, and taking them out copies the cache.
        if len(left) <= len(live) // 2 and len(rows) > FEWEST_ROWS:
            live = [live[i] for i in left]
            rows = _filled(live)
            cache.select(_filled(left))
        # A finished text is fed its first token: nobody reads what comes of it.
        column = [job.prompt[0] if job.done else job.token(place) for job in rows]
        ids = torch.tensor(column, device=device)[:, None]
        place += 1


def _filled(live: list[T]) -> list[T]:
    """The texts, the first of them again up to a multiple of `FEWEST_ROWS`: see there."""
    return live + (live * FEWEST_ROWS)[: -len(live) % FEWEST_ROWS]


def _choose(logits_BV: Tensor, live: list[_Job], ready: list[int], sampling: Sampling) -> list[int]:
    if sampling.temperature == 0:
        likeliest: list[int] = logits_BV.argmax(-1)[ready].tolist()
        return likeliest
    return [
        choose(logits_BV[i], sampling.temperature, None, sampling.top_p, live[i].draw.random())
        for i in ready
    ]
