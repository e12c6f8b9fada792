"""Counts words of the user's lists in a text; no list is shipped, and none judges a whole text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from isoflop.core.errors import DataError

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_UNSPACED = re.compile(r"[\u2e80-\ud7af\uf900-\ufaff\U00020000-\U000323af]")


class WordList:
    """Words and phrases to look for: whole words in spaced scripts, any place in Chinese."""

    def __init__(self, entries: Iterable[str]) -> None:
        spaced: dict[str, list[tuple[str, ...]]] = {}
        unspaced: set[str] = set()
        for entry in entries:
            folded = entry.casefold().strip()
            if _UNSPACED.search(folded):
                unspaced.add(folded)
            elif words := tuple(_WORD.findall(folded)):
                spaced.setdefault(words[0], []).append(words)
        self._spaced = spaced
        longest_first = sorted(unspaced, key=lambda word: (-len(word), word))
        self._unspaced = re.compile("|".join(map(re.escape, longest_first))) if unspaced else None

    def count(self, text: str) -> int:
        """How often the entries occur; case does not matter."""
        folded = text.casefold()
        found = len(self._unspaced.findall(folded)) if self._unspaced else 0
        if self._spaced:
            words = _WORD.findall(folded)
            if not self._spaced.keys().isdisjoint(words):
                for place, word in enumerate(words):
                    for entry in self._spaced.get(word, ()):
                        found += tuple(words[place : place + len(entry)]) == entry
        return found


def read_word_lists(paths: tuple[Path, ...]) -> WordList:
    """Word lists from files of UTF-8 text: an entry a line, `#` starts a comment.

    Raises:
        DataError: A list is missing or is not UTF-8 text.
    """
    entries: list[str] = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"the word list cannot be read: {error}",
                where=str(path),
                fix="Give UTF-8 text files with an entry a line in `clean.toxicity.lists`",
            ) from None
        entries += [entry for line in lines if (entry := line.partition("#")[0].strip())]
    return WordList(entries)
