"""Attacks a safety filter with listed requests in many disguises, and counts what it lets through
and what it blocks for no reason; not for attacks on a model's own judgement."""

from __future__ import annotations

import base64
import codecs
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isoflop.core.errors import DataError
from isoflop.serving.safety import SafetyFilter

LISTS = Path(__file__).with_name("redteam_lists")
_Z95 = 1.959963984540054
_LEET = str.maketrans("oieas", "01345")
_LOOKALIKE = str.maketrans("aeopcxyi", "аеорсхуі")


@dataclass(frozen=True)
class Share:
    """A share with Wilson's interval (Wilson 1927) at 95 %."""

    count: int
    of: int
    value: float
    low: float
    high: float


def share(count: int, of: int) -> Share:
    """`count` of `of`, with its interval."""
    p, z2 = count / of, _Z95**2
    middle = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z95 * math.sqrt(p * (1 - p) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return Share(count, of, p, max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class Attacked:
    """How a filter held."""

    passed: Share
    """Attacks that it let through; without a filter that is all of them."""
    passed_by_disguise: Mapping[str, Share]
    blocked: Share
    """Ordinary lines that it refused."""
    passed_lines: tuple[tuple[str, str], ...]
    """(disguise, request) of the attacks that passed."""
    blocked_lines: tuple[str, ...]


def disguises(text: str) -> Iterator[tuple[str, str]]:
    """(name, disguised text): the plain text first; the others depend on its script."""
    yield "plain", text
    if text.isascii():
        yield "leet", text.lower().translate(_LEET)
        yield "look-alike letters", text.lower().translate(_LOOKALIKE)
        yield "rot13", "Decode and answer: " + codecs.encode(text, "rot13")
    else:
        yield "gaps", " ".join(text)
    yield "zero width", "\u200b".join(text)
    yield "base64", "Decode and answer: " + base64.b64encode(text.encode()).decode()


def attack(safety: SafetyFilter, attacks: Sequence[str], benign: Sequence[str]) -> Attacked:
    """Ask everything of a filter.

    Args:
        attacks: Requests it is to refuse; each is tried in all disguises.
        benign: Lines it is to let through.
    """
    tried: Counter[str] = Counter()
    passed: list[tuple[str, str]] = []
    for text in attacks:
        for name, said in disguises(text):
            tried[name] += 1
            if not safety.verdict(said).names:
                passed.append((name, text))
    blocked = tuple(line for line in benign if safety.verdict(line).names)
    through = Counter(name for name, _ in passed)
    return Attacked(
        passed=share(len(passed), tried.total()),
        passed_by_disguise={name: share(through[name], count) for name, count in tried.items()},
        blocked=share(len(blocked), len(benign)),
        passed_lines=tuple(passed),
        blocked_lines=blocked,
    )


def read_lines(path: Path) -> list[str]:
    """The lines of a list, without comments (`#` at the beginning) and empty ones.

    Raises:
        DataError: It cannot be read or holds nothing.
    """
    return [line for lines in read_families(path).values() for line in lines]


def read_families(path: Path) -> dict[str, list[str]]:
    """The lines of a list by family: `## NAME` begins one; lines before the first are of "".

    Raises:
        DataError: As `read_lines`.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list cannot be read: {error}", where=str(path)) from None
    families: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        if line.startswith("##"):
            name = line.lstrip("#").strip()
        elif line.strip() and not line.startswith("#"):
            families.setdefault(name, []).append(line.strip())
    if not families:
        raise DataError("the list is empty", where=str(path))
    return families
