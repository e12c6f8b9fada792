"""Which tokens of which sequences are computed next, within a budget of tokens and of memory.

Answers under way go first, a token each; what the budget leaves goes to prompts, block by block,
in order of arrival. When memory runs out the newest sequence gives its blocks back and is computed
again later. Not for computing (`forward.py`), nor for choosing and sending tokens (`engine.py`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from isoflop.serving.cache import BlockPool, block_hashes
from isoflop.serving.forward import Unit
from isoflop.serving.settings import BLOCK


@dataclass(eq=False)
class Progress:
    """One sequence on its way through the engine."""

    tokens: list[int]
    """The prompt and the answer so far."""
    n_prompt: int
    after: Progress | None = None
    """A sequence with the same prompt that is to be computed first, so that this one reuses it."""
    reuse: bool = True
    """Whether blocks of others may stand for its prompt; not where every row is asked for."""
    drafts: list[int] = field(default_factory=list)
    """Guesses of the next tokens, to be computed and checked in one go."""
    n_computed: int = 0
    """Leading tokens whose keys and values are in the cache."""
    n_cached: int = 0
    """Those among them that were found there."""
    blocks: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    """Of the prompt's full blocks."""
    n_drafted: int = 0
    """Leading tokens whose keys and values the draft model has."""

    def __post_init__(self) -> None:
        self.hashes = block_hashes(self.tokens[: self.n_prompt])

    @property
    def waits_for_prompt(self) -> bool:
        """Whether its prompt is not all computed."""
        return self.n_computed < self.n_prompt

    def next_units(self, most_tokens: int) -> list[tuple[int, int]]:
        """(start, length) of the units to be computed next: blocks of the prompt, then tokens of
        the answer one by one. The first comes whatever its length, others within the limit."""
        units: list[tuple[int, int]] = []
        at, end = self.n_computed, len(self.tokens) + len(self.drafts)
        spent = 0
        while at < end:
            length = 1 if at >= self.n_prompt else min(BLOCK, self.n_prompt - at)
            if units and spent + length > most_tokens:
                break
            units.append((at, length))
            at, spent = at + length, spent + length
        return units


P = TypeVar("P", bound=Progress)


@dataclass(frozen=True)
class Work(Generic[P]):
    """What is computed of one sequence in one step."""

    sequence: P
    units: tuple[Unit, ...]


class Scheduler(Generic[P]):
    """Sequences that wait and that run, and their blocks.

    Args:
        token_budget: Tokens computed in one step; at least one unit of each running answer and
            one of a prompt come whatever it is.
        most_running: Sequences under way at once.
    """

    def __init__(self, pool: BlockPool, token_budget: int, most_running: int) -> None:
        self.pool, self.token_budget, self.most_running = pool, token_budget, most_running
        self.waiting: deque[P] = deque()
        self.running: list[P] = []
        self.n_preempted = 0

    def add(self, sequence: P) -> None:
        """Put a sequence at the end of the queue."""
        self.waiting.append(sequence)

    def fits(self, n_tokens: int) -> bool:
        """Whether a sequence of so many tokens can ever be held."""
        return -(-n_tokens // BLOCK) <= self.pool.n_blocks

    def remove(self, sequence: P) -> None:
        """Take a sequence out, finished or cancelled, and free its blocks."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._free(sequence)

    def reserve(self, sequence: P, n_tokens: int) -> int:
        """Give a running sequence memory for so many tokens, as far as there is some free: for how
        many it has."""
        while len(sequence.blocks) * BLOCK < n_tokens:
            block = self.pool.allocate()
            if block is None:
                return len(sequence.blocks) * BLOCK
            sequence.blocks.append(block)
        return n_tokens

    def plan(self) -> list[Work[P]]:
        """What to compute now; empty if there is nothing to do."""
        left = self.token_budget
        planned: dict[int, Work[P]] = {}
        for prompts in (False, True):
            for sequence in list(self.running):
                if sequence.waits_for_prompt is not prompts or sequence not in self.running:
                    continue
                if prompts and left <= 0 and planned:
                    break
                work = self._work(sequence, max(left, 1), planned)
                if work is not None:
                    planned[id(sequence)] = work
                    left -= sum(len(unit.tokens) for unit in work.units)
        while self.waiting and len(self.running) < self.most_running and (left > 0 or not planned):
            sequence = self.waiting[0]
            if not self._admissible(sequence):
                break
            self.waiting.popleft()
            self._reuse_prefix(sequence)
            self.running.append(sequence)
            work = self._work(sequence, max(left, 1), planned)
            if work is not None:
                planned[id(sequence)] = work
                left -= sum(len(unit.tokens) for unit in work.units)
        return list(planned.values())

    def computed(self, work: Work[P]) -> None:
        """Note that a step has computed the work; full blocks of prompts can now be reused."""
        sequence = work.sequence
        last = work.units[-1]
        first_new = sequence.n_computed // BLOCK
        sequence.n_computed = last.start + len(last.tokens)
        for index in range(first_new, min(sequence.n_computed // BLOCK, len(sequence.hashes))):
            self.pool.publish(sequence.blocks[index], sequence.hashes[index])

    def _admissible(self, sequence: P) -> bool:
        """Whether it may begin: the one it waits for has its prompt, and its own has room."""
        before = sequence.after
        if before is not None and before.waits_for_prompt and before in self.running:
            return False
        return -(-(len(sequence.tokens) + 1) // BLOCK) <= self.pool.n_free or not self.running

    def _reuse_prefix(self, sequence: P) -> None:
        if not sequence.reuse:
            return
        # The prompt's last token is always computed: its logits are what is asked for.
        for key in sequence.hashes[: (sequence.n_prompt - 1) // BLOCK]:
            block = self.pool.find(key)
            if block is None:
                break
            sequence.blocks.append(block)
        sequence.n_computed = sequence.n_cached = len(sequence.blocks) * BLOCK
        sequence.n_drafted = sequence.n_computed

    def _work(self, sequence: P, most_tokens: int, planned: dict[int, Work[P]]) -> Work[P] | None:
        """The sequence's next units with memory for them; None if it had to give way itself."""
        spans = sequence.next_units(most_tokens)
        start, length = spans[-1]
        while len(sequence.blocks) * BLOCK < start + length:
            block = self.pool.allocate()
            if block is not None:
                sequence.blocks.append(block)
                continue
            newest = self.running[-1]
            self._preempt(newest)
            planned.pop(id(newest), None)
            if newest is sequence:
                return None
        known, drafts, blocks = sequence.tokens, sequence.drafts, sequence.blocks
        n_known = len(known)
        units = []
        for at, size in spans:
            drafted = drafts[max(0, at - n_known) : max(0, at + size - n_known)]
            units.append(Unit(known[at : at + size] + drafted, at, blocks))
        return Work(sequence, tuple(units))

    def _preempt(self, sequence: P) -> None:
        self.running.remove(sequence)
        self._free(sequence)
        self.waiting.appendleft(sequence)
        self.n_preempted += 1

    def _free(self, sequence: P) -> None:
        # From the end: a prefix is worth keeping longer than what follows it.
        for block in reversed(sequence.blocks):
            self.pool.release(block)
        sequence.blocks, sequence.n_computed, sequence.n_drafted = [], 0, 0
        sequence.drafts = []
