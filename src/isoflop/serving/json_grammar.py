"""Lets a model write nothing but texts of a grammar, byte by byte; not for reading JSON schemas
(`json_schema.py`).

A grammar is an expression of bytes, sequences, choices, repetitions and named parts (for what
contains itself). What may come next is a set of stacks of expressions still to be matched; sets
that were met before are remembered with their successors and with the tokens they allow, so that
the automaton is built as far as it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Byte:
    """One byte of a set."""

    of: frozenset[int]


@dataclass(frozen=True, eq=False)
class Seq:
    """One after the other."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class Alt:
    """One of them."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class Star:
    """Any number of it, also none."""

    part: Expression


@dataclass(frozen=True, eq=False)
class Lazy:
    """What is made when it is reached."""

    make: Callable[[], Expression]


Expression = Byte | Seq | Alt | Star | Lazy
NOTHING = Seq(())


def literal(text: bytes) -> Seq:
    """These bytes."""
    return Seq(tuple(Byte(frozenset({byte})) for byte in text))


def optional(part: Expression) -> Alt:
    """It or nothing."""
    return Alt((part, NOTHING))


@dataclass(frozen=True, eq=False)
class _Stack:
    """Expressions to be matched one after the other; the bottom is `None`."""

    top: Expression
    below: _Stack | None


class _State:
    """A set of stacks, each beginning with a byte, and whether the text may end here."""

    def __init__(self, stacks: tuple[_Stack, ...], complete: bool) -> None:
        self.stacks, self.complete = stacks, complete
        self.next: dict[int, _State | None] = {}
        self.mask: Mask | None = None


class Automaton:
    """The states of a grammar, made as they are reached."""

    def __init__(self, grammar: Expression) -> None:
        self._stacks: dict[tuple[int, int], _Stack] = {}
        self._states: dict[tuple[frozenset[int], bool], _State] = {}
        self._made: dict[int, Expression] = {}
        self.start = self._state([self._push(grammar, None)])

    def step(self, state: _State, byte: int) -> _State | None:
        """The state after a byte, or None if it may not come."""
        if byte not in state.next:
            after = [stack.below for stack in state.stacks
                     if isinstance(stack.top, Byte) and byte in stack.top.of]  # fmt: skip
            state.next[byte] = self._state(after) if after else None
        return state.next[byte]

    def _push(self, top: Expression, below: _Stack | None) -> _Stack:
        key = (id(top), id(below))
        if key not in self._stacks:
            self._stacks[key] = _Stack(top, below)
        return self._stacks[key]

    def _state(self, stacks: Iterable[_Stack | None]) -> _State:
        """The state of these stacks after replacing all that are no bytes."""
        ready: dict[int, _Stack] = {}
        seen: set[int] = set()
        complete = False
        waiting = list(stacks)
        while waiting:
            stack = waiting.pop()
            if stack is None:
                complete = True
                continue
            if id(stack) in seen:
                continue
            seen.add(id(stack))
            if isinstance(stack.top, Byte):
                ready[id(stack)] = stack
            else:
                waiting += self._replaced(stack.top, stack)
        key = (frozenset(ready), complete)
        if key not in self._states:
            self._states[key] = _State(tuple(ready.values()), complete)
        return self._states[key]

    def _replaced(self, top: Expression, stack: _Stack) -> list[_Stack | None]:
        below = stack.below
        if isinstance(top, Seq):
            for part in reversed(top.parts):
                below = self._push(part, below)
            return [below]
        if isinstance(top, Alt):
            return [self._push(part, below) for part in top.parts]
        if isinstance(top, Star):
            return [below, self._push(top.part, stack)]
        if isinstance(top, Lazy):
            if id(top) not in self._made:
                self._made[id(top)] = top.make()
            return [self._push(self._made[id(top)], below)]
        return [stack]


class TokenTrie:
    """The tokens of a vocabulary by their bytes.

    Args:
        token_bytes: The bytes of each id; b"" of those that show nothing.
    """

    def __init__(self, token_bytes: Sequence[bytes]) -> None:
        self.token_bytes = token_bytes

    @cached_property
    def root(self) -> _Branch:
        """Where all tokens begin."""
        root = _Branch({}, [])
        for index, spelled in enumerate(self.token_bytes):
            node = root
            for byte in spelled:
                node = node.children.setdefault(byte, _Branch({}, []))
            if spelled:
                node.ids.append(index)
        return root

    def mask(self, automaton: Automaton, state: _State) -> Mask:
        """(V,) the tokens whose bytes may all come."""
        allowed = np.zeros(len(self.token_bytes), dtype=np.bool_)
        waiting = [(self.root, state)]
        while waiting:
            node, here = waiting.pop()
            for byte, child in node.children.items():
                after = automaton.step(here, byte)
                if after is not None:
                    allowed[child.ids] = True
                    waiting.append((child, after))
        return allowed


@dataclass(frozen=True)
class _Branch:
    children: dict[int, _Branch]
    ids: list[int]


class JsonGrammar:
    """The grammar of one answer.

    Args:
        end_ids: Tokens that may come where the text may end, and end it.
    """

    def __init__(self, trie: TokenTrie, automaton: Automaton, end_ids: frozenset[int]) -> None:
        self._trie, self._automaton = trie, automaton
        self._end_ids = sorted(end_ids)
        self._state: _State | None = automaton.start

    def allowed(self) -> Mask:
        """(V,) which tokens may come next."""
        state = self._state
        if state is None:
            return np.zeros(len(self._trie.token_bytes), dtype=np.bool_)
        if state.mask is None:
            state.mask = self._trie.mask(self._automaton, state)
        mask = state.mask
        if state.complete:
            mask = mask.copy()
            mask[self._end_ids] = True
        return mask

    def accept(self, token: int) -> None:
        """Note the token that came; nothing may come after one that ends the text."""
        state = self._state
        for byte in self._trie.token_bytes[token]:
            state = None if state is None else self._automaton.step(state, byte)
        self._state = None if token in self._end_ids else state
