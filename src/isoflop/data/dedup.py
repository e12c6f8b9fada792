"""Drops documents already seen, whole or for the most part; not for fuzzy (MinHash) matching.

Everything seen is held as hashes in memory: about 32 bytes a document and 60 bytes a distinct
line, so one gigabyte of text needs some two gigabytes.
"""

from __future__ import annotations

import hashlib

EXACT = "seen before (same text)"
MOSTLY = "mostly seen lines"

# A line shorter than this (`return None`, `"""`) says nothing about copying.
_MIN_LINE_CHARACTERS = 12
# Below this many telling lines the share of seen ones is noise; exact matching still applies.
_MIN_LINES = 5
_MAX_SEEN_SHARE = 0.5


class Deduplicator:
    """Remembers what was kept; asks of each new document whether it adds anything."""

    def __init__(self) -> None:
        self._documents: set[bytes] = set()
        self._lines: set[bytes] = set()

    def reason_to_drop(self, text: str) -> str | None:
        """Why this (normalised) text is to be dropped; None when it is kept and remembered.

        A document is dropped when its SHA-256 was seen, or when more than half of its distinct
        lines were seen in documents kept before it: vendored copies and generated variants would
        otherwise leak from the training text into the held-out text.
        """
        digest = hashlib.sha256(text.encode()).digest()
        if digest in self._documents:
            return EXACT
        stripped = {line.strip() for line in text.split("\n")}
        lines = {
            hashlib.blake2b(line.encode(), digest_size=8).digest()
            for line in stripped
            if len(line) >= _MIN_LINE_CHARACTERS
        }
        if len(lines) >= _MIN_LINES:
            seen = len(lines & self._lines)
            if seen > _MAX_SEEN_SHARE * len(lines):
                return MOSTLY
            self._lines |= lines
        self._documents.add(digest)
        return None
