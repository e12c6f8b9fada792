"""What passes from a source to a corpus: a part to read, a document, a note that one was skipped.

Not for reading or cleaning them: `sources` reads, `corpus` cleans and writes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class InputSplit:
    """A part of a source that is read from start to end by one worker."""

    identity: str
    """The file (or another part), relative to the source; never a path of this machine."""
    location: str
    """Where this machine finds it: a path, a URL, or "" for what is generated."""
    bytes: int
    """About how much there is to read, as it is stored; what work is divided by."""
    start: int = 0
    stop: int | None = None
    """The range [start, stop) of the file, in bytes or records as its format has it; None: all."""
    stamp: str = ""
    """Changes when the file does: its size and time of change, or the object store's own tag."""
    seed: int = 0
    """The recipe's seed, for the sources that draw."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text with where it came from; one row of a corpus."""

    id: str
    """Unique within its source and never a path of this machine: a relative path, `file:number`
    of the 1-based record, or `file@offset` of its first byte."""
    text: str
    source: str
    """Name of the recipe's source."""
    language: str
    """`en`, `zh`, `code`, another BCP 47 tag, or `und` where nobody said."""
    url: str = ""
    meta: dict[str, object] = field(default_factory=dict)
    """What else the source said: `license` as far as it is known; `offset`, the first byte or the
    number of the record, where a file holds several."""


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
    """1-based line or row in the file, where the file was read from its start."""
    broken: bool = False
    """Whether it is damage to be listed in `rejects.jsonl`, rather than a choice of ours."""
    detail: str = ""
    """What the reader said of it."""
    offset: int | None = None
    """The byte of the file (once decompressed) at which the skipped part starts."""

    @property
    def place(self) -> str:
        """`file:line`, else `file@offset`, else the file, as far as it is known."""
        if self.line is not None:
            return f"{self.where}:{self.line}"
        return self.where if self.offset is None else f"{self.where}@{self.offset}"


def order_key(seed: int, identity: str) -> bytes:
    """A key to sort by, so that a size cap takes an even sample and not the first letters."""
    return hashlib.sha256(f"{seed}\0{identity}".encode("utf-8", "surrogatepass")).digest()
