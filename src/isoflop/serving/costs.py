"""What an answer will cost, measured before the first client comes, and what it then costs.

Not for the counts of what was done (`metrics.py`) nor for how many may wait (`worker.py`).
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from isoflop.core.ledger import Ledger
from isoflop.serving.engine import Engine
from isoflop.serving.request import Output, Request
from isoflop.serving.sampler import Sampling

LOADS = (1, 8, 32)
"""Answers under way at once that promises are made for."""
PROMPT = 64
"""Tokens of the prompt that the time to first token is promised for."""
STEPS = 12
"""Steps measured at each load."""
LEVEL = 0.9
SLOWER = 3.0
"""The interval's upper end, over the median: replies have to be written too, clients come in
bursts, and the machine has other work."""
FEWEST = 20
"""Pieces seen before a promise is settled."""


@dataclass(frozen=True)
class Cost:
    """What a load is foretold to cost."""

    load: int
    """Answers under way at once."""
    first_seconds: float
    """From a request with a prompt of `PROMPT` tokens to its first token, the others going on."""
    between_seconds: float
    """Between two tokens of one answer."""
    tokens_per_second: float
    """Of all answers together."""
    low: float
    """The share of the typical time that the fastest step took."""

    def value(self, name: str) -> float:
        """`time_to_first_token`, `inter_token_latency` or `throughput`."""
        found = {
            "time_to_first_token": self.first_seconds, "inter_token_latency": self.between_seconds,
            "throughput": self.tokens_per_second,
        }  # fmt: skip
        return found[name]


def measure_costs(engine: Engine) -> tuple[Cost, ...]:
    """Time steps of the engine at every load that it takes on, with prompts drawn at random.

    A step's time at a load is the median; the time to first token adds the steps that read a prompt
    while the others go on.
    """
    most = min(engine.config.most_running, LOADS[-1])
    loads = sorted({min(load, most) for load in LOADS})
    room = engine.max_seq_len - STEPS - 4
    n_prompt = max(1, min(PROMPT, room))
    draw = np.random.default_rng(0)
    found = []
    for load in loads:
        if room < 1:
            return ()
        firsts, steps = _timed(engine, load, n_prompt, draw)
        between = statistics.median(steps)
        found.append(
            Cost(
                load=load,
                first_seconds=statistics.median(firsts),
                between_seconds=between,
                tokens_per_second=load / between,
                low=min(steps) / between,
            )
        )
    return tuple(found)


def _timed(
    engine: Engine, load: int, n_prompt: int, draw: np.random.Generator
) -> tuple[list[float], list[float]]:
    """Seconds to the first token of one more answer among others, and of steps with all of them."""
    counts: dict[int, int] = {}

    def begin(number: int, length: int) -> int:
        def sink(output: Output) -> None:
            counts[number] = output.n_new

        prompt = tuple(int(x) for x in draw.integers(0, engine.vocab_size, length))
        # Sampled, so that guesses from the text are as rare as they are in most answers.
        wanted = Request(prompt, STEPS + 3, Sampling(temperature=1.0, seed=number))
        return engine.add(wanted, sink)

    numbers = [begin(number, 1) for number in range(load - 1)]
    while len(counts) < load - 1:
        engine.step()
    began = time.perf_counter()
    numbers.append(begin(load - 1, n_prompt))
    while load - 1 not in counts:
        engine.step()
    first = time.perf_counter() - began
    steps = []
    for _ in range(STEPS - load // 8):
        before = sum(counts.values())
        began = time.perf_counter()
        if not engine.step():
            break
        seconds = time.perf_counter() - began
        told = sum(counts.values()) - before
        if told:
            steps.append(seconds * load / told)
    for number in numbers:
        engine.cancel(number)
    return [first], steps or [first]


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
            basis = f"steps of the engine with {cost.load} answers under way, before serving"
            for name in ("time_to_first_token", "inter_token_latency", "throughput"):
                value, rate = cost.value(name), name == "throughput"
                low, high = (1 / SLOWER, 1 / cost.low) if rate else (cost.low, SLOWER)
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
