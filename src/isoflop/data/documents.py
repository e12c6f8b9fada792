"""The two things a source yields: a document, or a note that something was skipped and why.

Not for reading or cleaning them: `sources` reads, `corpus` cleans and writes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it came from; one row of a corpus."""

    id: str
    """Unique within its source; a relative path or `file:line`, never a path of this machine."""
    text: str
    source: str
    """Name of the recipe's source."""
    language: str
    """`en`, `zh`, `code`, another BCP 47 tag, or `und` where nobody said."""
    url: str = ""
    meta: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something a source could not or should not turn into a document."""

    where: str
    """The file or document, relative to the source."""
    reason: str
    """One of a few fixed phrases, the key under which the funnel counts it."""
    bytes: int = 0
    """Size of what was skipped, as far as it is known."""
    line: int | None = None
    """1-based line or row in the file."""
    broken: bool = False
    """Whether it is damage to be listed in `rejects.jsonl`, rather than a choice of ours."""
    detail: str = ""
    """What the reader said of it."""


def order_key(seed: int, identity: str) -> bytes:
    """A key to sort by, so that a size cap takes an even sample and not the first letters."""
    return hashlib.sha256(f"{seed}\0{identity}".encode("utf-8", "surrogatepass")).digest()
