"""The ledger: promises written down before the work, scored after it, in a chain of hashes.

Not for making promises, nor for judging a law: it keeps what was said.

A ledger is a file of JSON lines that only grows. A line makes a promise; a later line with the
same id settles it and repeats what was promised. Each line carries the hash of the one before
(`previous`) and of itself (`hash`), so a changed, removed or inserted line breaks the chain. What
the chain alone cannot show is that lines were cut off the end, or that the whole file was written
anew: keep `LedgerCheck.head`, as reports do, to prove that too.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from io import FileIO
from pathlib import Path
from typing import Any

from isoflop.core.artifact import fsync_directory, sha256_json
from isoflop.core.console import warn
from isoflop.core.errors import ArtifactError

LEDGER = "ledger.jsonl"
_GENESIS = "0" * 64
_CHANGED = "The ledger was changed after it was written; restore it from a copy"


@dataclass(frozen=True)
class Promise:
    """One promised quantity and, once the work is done, what came of it."""

    id: str
    quantity: str
    """What is promised: `loss`, `seconds`, `peak_memory` …"""
    unit: str
    value: float
    """The point promised."""
    low: float
    high: float
    """The interval, ends included."""
    level: float
    """The probability with which the outcome should lie inside, 0 to 1."""
    made_at: str
    """UTC, ISO 8601."""
    basis: str
    """What the promise rests on: a law and its hash, a measurement."""
    outcome: float | None = None
    """What was measured; None while open, and when the work gave no finite number."""
    outcome_at: str | None = None
    """UTC, ISO 8601; None while open."""
    held: bool | None = None
    """Whether the outcome lies inside the interval; None while open."""

    @property
    def settled(self) -> bool:
        """Whether the outcome is known."""
        return self.outcome_at is not None


@dataclass(frozen=True)
class Tally:
    """How the promises of one level fared."""

    level: float
    promised: int
    settled: int
    held: int

    def sentence(self) -> str:
        """`of 42 promises at 90 %, 39 held`, and how many are open."""
        open_ = self.promised - self.settled
        noun = "promise" if self.settled == 1 else "promises"
        text = f"of {self.settled} {noun} at {self.level * 100:g} %, {self.held} held"
        return f"{text} ({open_} still open)" if open_ else text


@dataclass(frozen=True)
class LedgerCheck:
    """What a verified ledger holds."""

    lines: int
    head: str
    """The hash of the last line; whoever keeps it can later prove that nothing was cut off."""
    torn: str | None
    """An unfinished last line, left by a crash in mid-write; the next append drops it."""


class Ledger:
    """A ledger file; it need not exist before the first promise.

    Args:
        report: Told when an unfinished last line is dropped; prints to stderr by default.
    """

    def __init__(self, path: Path, report: Callable[[str], None] = warn) -> None:
        self.path, self._report = path, report

    def promise(
        self,
        quantity: str,
        unit: str,
        value: float,
        low: float,
        high: float,
        level: float,
        basis: str,
    ) -> str:
        """Write a promise, durably, and return its id.

        Raises:
            ValueError: The numbers are not finite, not in the order low ≤ value ≤ high, or the
                level is not inside 0 to 1.
            ArtifactError: The ledger is broken.
        """
        if not (math.isfinite(low) and math.isfinite(high) and low <= value <= high):
            raise ValueError(f"a promise needs finite low <= value <= high: {low} {value} {high}")
        if not 0 < level < 1:
            raise ValueError(f"the level of a promise lies between 0 and 1: {level}")
        with self._appending() as (known, append):
            made = Promise(
                id=f"p{len(known) + 1}",
                quantity=quantity,
                unit=unit,
                value=float(value),
                low=float(low),
                high=float(high),
                level=float(level),
                made_at=_now(),
                basis=basis,
            )
            append(made)
        return made.id

    def settle(self, id: str, outcome: float) -> Promise:
        """Write what came of a promise; an outcome that is not finite counts as not held.

        Raises:
            ArtifactError: No such promise, or it is settled already, or the ledger is broken.
        """
        with self._appending() as (known, append):
            made = known.get(id)
            if made is None:
                listed = ", ".join(known) or "none"
                raise ArtifactError(
                    f"no promise `{id}` in this ledger",
                    where=str(self.path),
                    fix=f"It has {listed}",
                )
            if made.settled:
                raise ArtifactError(
                    f"promise `{id}` ({made.quantity}) was settled at {made.outcome_at}",
                    where=str(self.path),
                    fix="A ledger is never rewritten; make a new promise",
                )
            finite = math.isfinite(outcome)
            settled = replace(
                made,
                outcome=float(outcome) if finite else None,
                outcome_at=_now(),
                held=finite and made.low <= outcome <= made.high,
            )
            append(settled)
        return settled

    def read(self) -> tuple[Promise, ...]:
        """Every promise, in the order they were made, with its outcome where known.

        Raises:
            ArtifactError: The file is missing or its chain is broken, with the line.
        """
        return tuple(_read_chain(self._content(), self.path).promises.values())

    def verify(self) -> LedgerCheck:
        """Check every line of the chain.

        Raises:
            ArtifactError: The file is missing or a line was changed, naming the line.
        """
        chain = _read_chain(self._content(), self.path)
        return LedgerCheck(chain.lines, chain.head, chain.torn)

    def calibration(self) -> tuple[Tally, ...]:
        """How many promises held, for each level from the highest down."""
        promises = self.read()
        return tuple(
            Tally(
                level=level,
                promised=sum(p.level == level for p in promises),
                settled=sum(p.level == level and p.settled for p in promises),
                held=sum(p.level == level and bool(p.held) for p in promises),
            )
            for level in sorted({p.level for p in promises}, reverse=True)
        )

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise ArtifactError(
                "no such ledger",
                where=str(self.path),
                fix=f"Give a {LEDGER} or a directory that holds one",
            ) from None

    @contextmanager
    def _appending(self) -> Iterator[tuple[dict[str, Promise], Callable[[Promise], None]]]:
        """Hold the file alone; give what it promises and a function that adds one line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with open(self.path, "a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # rungs of a ladder may share a ledger
            file.seek(0)
            chain = _read_chain(file.read(), self.path)
            if chain.torn is not None:
                self._report(
                    f"{self.path}: dropped an unfinished line after line {chain.lines}, left by "
                    f"a crash while it was written: {chain.torn[:80]}"
                )
                file.truncate(chain.size)

            def append(promise: Promise) -> None:
                separator = b"" if chain.ends_with_newline else b"\n"
                _append_durably(file, self.path, separator + _line(promise, chain.head))

            yield chain.promises, append
        if is_new:
            fsync_directory(self.path.parent)


# --- the chain -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chain:
    promises: dict[str, Promise]
    lines: int
    head: str
    size: int
    """Bytes of the whole lines."""
    torn: str | None
    ends_with_newline: bool


def _read_chain(content: bytes, path: Path) -> _Chain:
    """Check and fold all lines.

    Raises:
        ArtifactError: Naming the first line that does not fit.
    """
    promises: dict[str, Promise] = {}
    head, size, count, torn = _GENESIS, 0, 0, None
    pieces = content.split(b"\n")
    last = pieces.pop()
    for number, piece in enumerate(pieces, start=1):
        head = _accept(piece, head, promises, f"{path}:{number}")
        size, count = size + len(piece) + 1, number
    if last:
        where = f"{path}:{count + 1}"
        if _is_unfinished(last):
            torn = last.decode(errors="backslashreplace")
        else:  # whole, but for its newline
            head = _accept(last, head, promises, where)
            size, count = size + len(last), count + 1
    return _Chain(promises, count, head, size, torn, ends_with_newline=not last or torn is not None)


def _accept(piece: bytes, head: str, promises: dict[str, Promise], where: str) -> str:
    """Check one line against the chain, fold it into `promises`, return its hash."""
    try:
        record = json.loads(piece)
        promise = Promise(**{field.name: record[field.name] for field in fields(Promise)})
        previous = record["previous"]
        # The bytes must be exactly those we would write: no edit is small enough to pass.
        intact = _line(promise, previous).rstrip(b"\n") == piece
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ArtifactError(
            "this line is not a promise as Isoflop writes it", where=where, fix=_CHANGED
        ) from None
    if not intact:
        raise ArtifactError("this line does not match its hash", where=where, fix=_CHANGED)
    if previous != head:
        raise ArtifactError(
            "this line does not follow the one before it: a line was removed, inserted or moved",
            where=where,
            fix=_CHANGED,
        )
    earlier = promises.get(promise.id)
    as_promised = replace(promise, outcome=None, outcome_at=None, held=None)
    if earlier != (as_promised if promise.settled else None):
        raise ArtifactError(
            f"this line does not fit what promise `{promise.id}` said before",
            where=where,
            fix=_CHANGED,
        )
    promises[promise.id] = promise
    return str(record["hash"])


def _line(promise: Promise, previous: str) -> bytes:
    record: Mapping[str, Any] = {**asdict(promise), "previous": previous}
    record = {**record, "hash": sha256_json(record)}
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _is_unfinished(line: bytes) -> bool:
    """Whether a last line without a newline is the beginning of one, as a crash leaves it."""
    try:
        json.JSONDecoder().raw_decode(line.decode(errors="replace"))
    except ValueError:
        return True
    return False


def _append_durably(file: FileIO, path: Path, line: bytes) -> None:
    end = file.seek(0, os.SEEK_END)
    try:
        written = 0
        while written < len(line):  # an unbuffered write may take a part only
            written += file.write(line[written:])
        os.fsync(file.fileno())
    except OSError as error:
        file.truncate(end)  # a full disk leaves no half line
        error.filename = error.filename or str(path)
        raise


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
