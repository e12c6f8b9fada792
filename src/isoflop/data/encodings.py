"""Finds out how bytes encode text, and says so only when it is sure. Not for repairing mojibake.

Damage that was saved as text is `normalise`'s business (`spelling.mojibake`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text with the encoding that it was in."""

    text: str
    encoding: str


def decode(raw: bytes, declared: str | None = None) -> Decoded | None:
    """The text that bytes hold, or None when no encoding or more than one is plausible."""
    try:
        return Decoded(raw.decode("utf-8-sig"), "utf-8")
    except UnicodeDecodeError:
        return None
