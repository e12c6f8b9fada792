"""Guesses of the next tokens from the text itself; not by a model (`drafts.py`)."""

from __future__ import annotations

from collections.abc import Sequence

LONGEST = 3
"""Last tokens that are looked for; fewer where so many are not found."""


class PromptLookup:
    """What followed the last tokens of one sequence where they stood before (prompt lookup
    decoding, Saxena 2023)."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, ...], int] = {}
        self._n_read = 0

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most so many next tokens; empty if the last one never stood before.

        Args:
            tokens: Those of the call before, and more.
        """
        for end in range(self._n_read + 1, len(tokens)):
            for size in range(1, min(LONGEST, end) + 1):
                self._next[tuple(tokens[end - size : end])] = end
        self._n_read = max(self._n_read, len(tokens) - 1)
        for size in range(min(LONGEST, len(tokens) - 1), 0, -1):
            at = self._next.get(tuple(tokens[-size:]))
            if at is not None:
                return list(tokens[at : at + most])
        return []
