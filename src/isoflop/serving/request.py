"""What an engine is asked and what it answers; not the API's form of either (`protocol.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from isoflop.serving.sampler import Sampling

Finish = Literal["stop", "length", "content_filter", "cancelled"]
"""Why an answer ends: an end token or stop string, the limit, the safety filter, or its client."""


class Grammar(Protocol):
    """What an answer must look like, token by token."""

    def allowed(self) -> npt.NDArray[np.bool_]:
        """(V,) which tokens may come next; all False once nothing may."""

    def accept(self, token: int) -> None:
        """Note the token that came."""


class Guard(Protocol):
    """What watches an answer's text on its way to the client."""

    consumed: int
    """Characters taken in that have been let through, or replaced."""
    hidden: list[tuple[int, int]]
    """Spans of them that were replaced."""
    blocked: bool
    """Whether the answer must end here."""

    def push(self, text: str) -> str:
        """The text that is let through now."""

    def finish(self) -> str:
        """What was held back, at the end."""


@dataclass(frozen=True)
class Request:
    """A prompt to be continued, or only read."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    """0 only reads the prompt."""
    sampling: Sampling = field(default_factory=Sampling)
    n: int = 1
    """Answers to the same prompt, each with random numbers of its own."""
    first_choice: int = 0
    """The number of the first of them, for its random numbers."""
    beams: int = 0
    """Search for the likeliest answers with so many beams instead of drawing them; the `n` best are
    told when the search has ended. 0 draws."""
    length_penalty: float = 1.0
    """Beam search ranks answers by log-probability / length^penalty."""
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    """Tokens that end an answer."""
    visible: Mapping[int, bytes] = field(default_factory=dict)
    """Tokens that usually show nothing → what stands in the text for them."""
    logprobs: int | None = None
    """Report the log-probability of each token and of this many likeliest ones."""
    prompt_logprobs: bool = False
    """Report those of the prompt too; needs `logprobs`."""
    embed: bool = False
    """Report the mean of the prompt's final states."""
    grammar: Callable[[], Grammar] | None = None
    """Makes the grammar of one answer."""
    guard: Callable[[], Guard] | None = None
    """Makes the guard of one answer."""


@dataclass(frozen=True)
class TokenScore:
    """A token and how likely the model thought it, before bias, penalties and temperature."""

    id: int
    logprob: float | None
    """Natural; None of a prompt's first token, which nothing comes before."""
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens and theirs."""


@dataclass(frozen=True)
class Output:
    """News of one answer."""

    choice: int
    text: str = ""
    """New text."""
    tokens: tuple[TokenScore, ...] = ()
    """New tokens; only where log-probabilities were asked for."""
    prompt_tokens: tuple[TokenScore, ...] = ()
    """The prompt's, once, where they were asked for."""
    embedding: tuple[float, ...] | None = None
    finish: Finish | None = None
    n_new: int = 0
    """Tokens of the answer so far."""
    n_cached: int = 0
    """Tokens of the prompt that were not computed again."""


Sink = Callable[[Output], None]
"""Called in the engine's thread with each piece of news."""


@dataclass(frozen=True)
class Answer:
    """One whole answer."""

    text: str
    ids: tuple[int, ...]
    finish: Finish
    tokens: tuple[TokenScore, ...] = ()
    prompt_tokens: tuple[TokenScore, ...] = ()
    embedding: tuple[float, ...] | None = None
    n_cached: int = 0


def top_scores(
    logprobs_V: Sequence[float] | npt.NDArray[np.float64], most: int
) -> tuple[tuple[int, float], ...]:
    """The `most` likeliest tokens and their log-probabilities, equals by id."""
    values = np.asarray(logprobs_V)
    if most < 1:
        return ()
    most = min(most, len(values))
    least = np.partition(values, -most)[-most]
    ids = np.flatnonzero(values >= least)
    ids = ids[np.argsort(-values[ids], kind="stable")][:most]
    return tuple((int(index), float(values[index])) for index in ids)
