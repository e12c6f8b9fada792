"""What an answer will cost, measured before the first client comes, and what it then costs.

Not for the counts of what was done (`metrics.py`) nor for how many may wait (`worker.py`).
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from isoflop.core.ledger import Ledger
from isoflop.serving.replies import event
from isoflop.serving.request import Request
from isoflop.serving.sampler import Sampling
from isoflop.serving.worker import Worker

LOADS = (1, 8, 32)
"""Answers under way at once that promises are made for."""
PROMPT = 64
"""Tokens of the prompts that promises are made for."""
TOKENS = 24
"""Tokens of the answers measured."""
LEVEL = 0.9
FASTER, SLOWER = 0.5, 3.0
"""The interval's ends over the value: clients and other work share the machine, and texts that
repeat themselves are guessed ahead."""
FEWEST = 20
"""Pieces seen before a promise is settled."""


@dataclass(frozen=True)
class Cost:
    """What a load is foretold to cost."""

    load: int
    """Answers under way at once."""
    first_seconds: float
    """From requests that come together, with prompts of `PROMPT` tokens, to their first tokens."""
    between_seconds: float
    """Between two tokens of one answer."""
    tokens_per_second: float
    """Of all answers together."""

    def value(self, name: str) -> float:
        """`time_to_first_token`, `inter_token_latency` or `throughput`."""
        found = {
            "time_to_first_token": self.first_seconds, "inter_token_latency": self.between_seconds,
            "throughput": self.tokens_per_second,
        }  # fmt: skip
        return found[name]


def measure_costs(worker: Worker) -> tuple[Cost, ...]:
    """Ask an idle worker as many questions at once as each load says, with prompts drawn at random,
    and time the pieces of the answers as they reach a reader that writes them as events.

    Not to be called from within an event loop.
    """
    engine = worker.engine
    most = min(engine.config.most_running, LOADS[-1])
    n_prompt = min(PROMPT, engine.max_seq_len - TOKENS)
    if n_prompt < 1:
        return ()
    draw = np.random.default_rng(0)
    found = []
    for load in sorted({min(load, most) for load in LOADS}):
        prompts = draw.integers(0, engine.vocab_size, (load, n_prompt)).tolist()
        firsts, between = asyncio.run(_timed(worker, prompts))
        mean = statistics.mean(between or firsts)
        found.append(Cost(load, statistics.mean(firsts), mean, load / mean))
    return tuple(found)


async def _timed(worker: Worker, prompts: list[list[int]]) -> tuple[list[float], list[float]]:
    """Seconds to the first piece of each answer, and of each token after it."""
    firsts: list[float] = []
    between: list[float] = []

    async def ask(number: int, prompt: list[int]) -> None:
        # Sampled, so that guesses from the text are as rare as they are in most answers.
        sampling = Sampling(temperature=1.0, seed=number)
        last, known = time.perf_counter(), 0
        async for _, output in worker.submit([Request(tuple(prompt), TOKENS, sampling)]):
            event({"choices": [{"index": 0, "text": output.text}]})
            now = time.perf_counter()
            if not known:
                firsts.append(now - last)
            elif output.n_new > known:
                between.extend([(now - last) / (output.n_new - known)] * (output.n_new - known))
            last, known = now, output.n_new

    await asyncio.gather(*(ask(number, prompt) for number, prompt in enumerate(prompts)))
    return firsts, between


@dataclass
class _Seen:
    """Sums of what was measured at a load."""

    pieces: int = 0
    seconds: float = 0.0
    firsts: int = 0
    first_seconds: float = 0.0


@dataclass
class Promises:
    """The costs foretold, and beside them what answers cost.

    Args:
        costs: By load.
        path: The ledger to write the promises into; none is kept when None.
    """

    costs: Sequence[Cost]
    path: Path | None = None
    _seen: dict[int, _Seen] = field(default_factory=dict)
    _ids: dict[tuple[str, int], str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self) -> None:
        """Write the promises down, before the first request.

        Raises:
            ArtifactError: The ledger is broken.
        """
        if self.path is None:
            return
        ledger = Ledger(self.path)
        for cost in self.costs:
            basis = f"{cost.load} answers at once to prompts of {PROMPT} tokens, before serving"
            for name in ("time_to_first_token", "inter_token_latency", "throughput"):
                value, rate = cost.value(name), name == "throughput"
                low, high = (1 / SLOWER, 1 / FASTER) if rate else (FASTER, SLOWER)
                self._ids[name, cost.load] = ledger.promise(
                    f"{name} at load {cost.load}", "tokens/s" if rate else "seconds", value,
                    value * low, value * high, LEVEL, basis,
                )  # fmt: skip

    def note(self, load: int, tokens: int, since_start: float, since_last: float | None) -> None:
        """Note a piece of an answer of so many new tokens, while `load` answers were under way."""
        nearest = self._nearest(load)
        if nearest is None:
            return
        with self._lock:
            seen = self._seen.setdefault(nearest, _Seen())
            if since_last is None:
                seen.firsts += 1
                seen.first_seconds += since_start
            elif tokens:
                seen.pieces += tokens
                seen.seconds += since_last

    def measured(self) -> Iterator[tuple[str, Cost, float]]:
        """(what, the cost foretold, the mean measured) of everything seen often enough."""
        with self._lock:
            seen = {load: _Seen(**vars(each)) for load, each in self._seen.items()}
        for cost in self.costs:
            one = seen.get(cost.load, _Seen())
            if one.firsts >= FEWEST:
                yield "time_to_first_token", cost, one.first_seconds / one.firsts
            if one.pieces >= FEWEST and one.seconds:
                between = one.seconds / one.pieces
                yield "inter_token_latency", cost, between
                yield "throughput", cost, cost.load / between

    def settle(self) -> None:
        """Write down what came of the promises, at the end; those of loads never seen stay open."""
        if self.path is None:
            return
        ledger = Ledger(self.path)
        for name, cost, value in self.measured():
            ledger.settle(self._ids[name, cost.load], value)

    def _nearest(self, load: int) -> int | None:
        """The load foretold that is nearest by ratio."""
        if not self.costs:
            return None
        loads = [cost.load for cost in self.costs]
        return min(loads, key=lambda known: abs(np.log(max(1, load) / known)))


def lines(costs: Sequence[Cost]) -> Iterator[str]:
    """The promises as a table for people."""
    if costs:
        yield "answers at once   first token   between tokens   tokens/s together"
    for cost in costs:
        yield (
            f"{cost.load:>15}   {1000 * cost.first_seconds:>8.1f} ms   "
            f"{1000 * cost.between_seconds:>11.2f} ms   {cost.tokens_per_second:>17,.0f}"
        )
