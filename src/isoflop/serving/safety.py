"""A filter of prompts and answers: listed subjects and personal data; one text, one verdict.

It knows what its lists spell, in English and Chinese and under common disguises (`disguise.py`),
and nothing of meaning; a classifier (`risk.py`), where there is one, also judges what no list
spells. Not for cleaning a corpus (`data/`).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from isoflop.core.errors import DataError, RecipeError
from isoflop.data import pii
from isoflop.serving.disguise import View, open_end, views
from isoflop.serving.request import Guard
from isoflop.serving.risk import RiskJudge, RiskReader, open_judge
from isoflop.serving.settings import THRESHOLD, SafetyMode

LISTS = Path(__file__).with_name("safety_lists")
WINDOW = 80
"""Characters within which the parts of a rule must stand."""
CLASSIFIER = "classifier"
"""The name under which the classifier's findings go."""
_CONTEXT = 2 * WINDOW
_KEY = 3
_GAPS = " .-_*·,、|/"
_HAN = re.compile(r"[\u2e80-\u9fff]")
# What may be the beginning of a number, an address or a key at the end of a text.
_OPEN_PII = re.compile(r"(?:[\d+(][\d ().+\-]{0,40})?[!-~]{0,600}$")


@dataclass(frozen=True)
class Rule:
    """Terms of a subject: one of each group must stand within `WINDOW` characters."""

    category: str
    groups: tuple[re.Pattern[str], ...]
    terms: tuple[tuple[str, ...], ...]
    """Of each group, as they are spelled."""

    def find(self, view: View) -> list[tuple[int, int]]:
        """Spans of the view: from the first to the last part of each occurrence."""
        places: list[list[tuple[int, int]]] = []
        for group in reversed(self.groups):  # what is spoken of is rarer than what is done to it
            places.append([match.span() for match in group.finditer(view.text)])
            if not places[-1]:
                return []
        found = []
        for anchor in places[0]:
            spans = [anchor]
            for others in places[1:]:
                near = min(others, key=lambda span: abs(span[0] - anchor[0]))
                if abs(near[0] - anchor[0]) > WINDOW:
                    break
                spans.append(near)
            else:
                found.append((min(s for s, _ in spans), max(e for _, e in spans)))
        return found


@dataclass(frozen=True)
class Hit:
    """Something found in a text."""

    kind: Literal["category", "pii"]
    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Verdict:
    """What a filter finds in a text for which a prompt is refused."""

    names: tuple[str, ...]
    """Listed subjects, and `CLASSIFIER` where the risk is above the threshold."""
    risk: float | None
    """What the classifier says, 0 to 1; None without one."""


class SafetyFilter:
    """Rules, what becomes of what they find, and a log of it.

    Args:
        audit: File to which each finding is added as a line of JSON, the text as its hash.
        judge: Also finds texts that no rule describes. It knows no place in them, so what it
            finds is blocked, or else noted, and never replaced.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        mode: SafetyMode,
        audit: Path | None = None,
        judge: RiskJudge | None = None,
    ) -> None:
        self.rules, self.mode, self.judge = rules, mode, judge
        self.categories = sorted({rule.category for rule in rules})
        self._audit, self._lock = audit, threading.Lock()
        terms = {term for rule in rules for group in rule.terms for term in group}
        # Rules are tried where each group has a term whose beginning the text holds.
        self._keys = [
            [frozenset(term[:_KEY] for term in group) for group in rule.terms] for rule in rules
        ]
        self._starts = frozenset(term[:size] for term in terms for size in range(1, len(term)))
        self._longest = max(map(len, terms), default=1)

    def subjects(self, text: str) -> list[Hit]:
        """Listed subjects in a text, in order."""
        hits = {
            Hit("category", rule.category, *view.span(begin, end))
            for view in views(text)
            for rule in self._likely(view.text)
            for begin, end in rule.find(view)
        }
        return sorted(hits, key=lambda hit: (hit.start, hit.end, hit.name))

    def _likely(self, text: str) -> list[Rule]:
        """The rules that a text could break."""
        grams = {text[i : i + size] for size in range(1, _KEY + 1) for i in range(len(text))}
        return [
            rule
            for rule, groups in zip(self.rules, self._keys, strict=True)
            if not any(keys.isdisjoint(grams) for keys in groups)
        ]

    def personal(self, text: str) -> list[Hit]:
        """Personal data and secrets in a text, in order."""
        return [Hit("pii", found.kind, found.start, found.end) for found in pii.find(text)]

    def verdict(self, text: str) -> Verdict:
        """Listed subjects in a text, and its risk."""
        names = sorted({hit.name for hit in self.subjects(text)})
        if self.judge is None:
            return Verdict(tuple(names), None)
        risk = self.judge.risk(text)
        if risk > self.judge.threshold:
            names.append(CLASSIFIER)
        return Verdict(tuple(names), risk)

    def refused(self, text: str) -> list[str]:
        """The subjects for which a prompt is refused; noted in the audit log."""
        found = self.verdict(text)
        if found.names:
            action = "block" if self.mode == "block" else "flag"
            self.note("prompt", action, found.names, text, found.risk)
        return list(found.names) if self.mode == "block" else []

    def moderation(self, text: str) -> dict[str, Any]:
        """As OpenAI's moderation reports a text."""
        verdict = self.verdict(text)
        found = {f"pii/{hit.name}" for hit in self.personal(text)}
        categories = {name: name in verdict.names for name in self.categories}
        categories |= {f"pii/{kind}": f"pii/{kind}" in found for kind in pii.KINDS}
        scores = {name: float(hit) for name, hit in categories.items()}
        if verdict.risk is not None:
            categories[CLASSIFIER] = CLASSIFIER in verdict.names
            scores[CLASSIFIER] = verdict.risk
        return {
            "flagged": bool(verdict.names),
            "categories": categories,
            "category_scores": scores,
        }

    def guard(self) -> Guard:
        """Watches one answer."""
        return AnswerGuard(self)

    def safe_end(self, text: str) -> int:
        """How much of a text is certain: what follows may be the beginning of something listed."""
        end = min(open_end(text), _OPEN_PII.search(text).start())  # type: ignore[union-attr]
        tail = max(0, len(text) - 4 * self._longest)
        for view in views(text[tail:]):
            # A gap at the end may be one within a spaced term.
            said = view.text.rstrip(_GAPS)
            for size in range(min(len(said), self._longest), 0, -1):
                if said[-size:] in self._starts:
                    end = min(end, tail + view.start[len(said) - size])
                    break
        return end

    def note(
        self, where: str, action: str, names: Sequence[str], text: str, risk: float | None
    ) -> None:
        """Add a line to the audit log, where there is one."""
        if self._audit is None:
            return
        line = {
            "time": time.time(), "where": where, "action": action, "found": list(names),
            "risk": risk,
            "text_sha256": hashlib.sha256(text.encode()).hexdigest(), "characters": len(text),
        }  # fmt: skip
        with self._lock, open(self._audit, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class AnswerGuard:
    """Lets through what of an answer is certain to be allowed; see `request.Guard`."""

    def __init__(self, safety: SafetyFilter) -> None:
        self._safety = safety
        self._text = ""
        self.consumed = 0
        self.hidden: list[tuple[int, int]] = []
        self.blocked = False
        self._noted: set[Hit] = set()
        self._risk = None if safety.judge is None else RiskReader(safety.judge)

    def push(self, text: str) -> str:
        """The text that is let through now."""
        self._text += text
        return self._release(final=False)

    def finish(self) -> str:
        """What was held back, at the end."""
        return self._release(final=True)

    def _release(self, *, final: bool) -> str:
        if self.blocked:
            return ""
        safety = self._safety
        # The last released characters too: rules have parts that stand apart.
        base = max(0, self.consumed - _CONTEXT)
        recent = self._text[base:]
        end = len(recent) if final else min(safety.safe_end(recent), len(recent))
        if self._risk is not None:
            end = self._judged_end(self._risk, base, end, final=final)
        if base + end <= self.consumed:
            return ""
        hits = [hit for hit in safety.subjects(recent) if base + hit.end > self.consumed]
        self._note(hits, base)
        if hits and safety.mode == "block":
            self.blocked = True
            first = min(hits, key=lambda hit: (hit.start, hit.end))
            end = min(end, first.start)
            hits = []
        hidden = hits if safety.mode == "redact" else []
        if safety.mode in ("redact", "block"):
            hidden = hidden + safety.personal(recent)
        return self._replaced(recent, base, end, hidden)

    def _judged_end(self, risk: RiskReader, base: int, end: int, *, final: bool) -> int:
        """How much of the certain text the classifier lets through; it blocks where it must.

        Where it blocks, all before the risky piece is certain, for nothing will follow.
        """
        already = risk.risky_from is not None
        risk.read(self._text, final=final)
        if risk.risky_from is not None and not already:
            action = "block" if self._safety.mode == "block" else "flag"
            self._safety.note("answer", action, [CLASSIFIER], self._text, risk.risk)
        if self._safety.mode != "block":
            return end
        if risk.risky_from is None:
            return min(end, risk.judged - base)
        self.blocked = True
        return risk.risky_from - base

    def _replaced(self, recent: str, base: int, end: int, hidden: Sequence[Hit]) -> str:
        """The certain part of the text from where it was let through, with what is to be hidden
        replaced by its name."""
        place = self.consumed - base
        for hit in sorted(hidden, key=lambda hit: hit.start):
            if hit.start < end < hit.end:  # all of it or nothing
                end = hit.start
        parts: list[str] = []
        for hit in sorted(hidden, key=lambda hit: hit.start):
            if hit.end <= place or hit.end > end:
                continue
            parts += [recent[place : max(place, hit.start)], f"<{hit.name.upper()}>"]
            self.hidden.append((base + max(place, hit.start), base + hit.end))
            place = hit.end
        if place < end:
            parts.append(recent[place:end])
            place = end
        if base + place > self.consumed:
            self.consumed = base + place
        return "".join(parts)

    def _note(self, hits: Sequence[Hit], base: int) -> None:
        new = [
            hit for hit in hits
            if Hit(hit.kind, hit.name, base + hit.start, base + hit.end) not in self._noted
        ]  # fmt: skip
        self._noted |= {Hit(h.kind, h.name, base + h.start, base + h.end) for h in new}
        if new:
            names = sorted({hit.name for hit in new})
            risk = None if self._risk is None else self._risk.risk
            self._safety.note("answer", self._safety.mode, names, self._text, risk)


# --- lists -----------------------------------------------------------------------------------


def open_filter(
    mode: SafetyMode,
    lists: Path | None,
    audit: Path | None,
    classifier: Path | None = None,
    threshold: float = THRESHOLD,
) -> SafetyFilter | None:
    """The filter of a server, or None where nothing is filtered.

    Raises:
        DataError: A list is missing, or is no UTF-8 text, or a rule of it is empty.
        ArtifactError: The classifier is none, or is damaged.
        RecipeError: There is a classifier and nothing is to be filtered, or its threshold does
            not lie between 0 and 1.
    """
    if mode == "off":
        if classifier is not None:
            raise RecipeError(
                "a classifier judges nothing where the safety filter is off",
                where="--safety-classifier",
                fix="Add --safety block, or --safety flag",
            )
        return None
    judge = None if classifier is None else open_judge(classifier, threshold)
    return SafetyFilter(read_rules(lists or LISTS), mode, audit, judge)


def read_rules(folder: Path) -> list[Rule]:
    """The rules of a folder of lists, `CATEGORY.txt`: a rule a line, `#` begins a comment.

    A rule is terms with `|` between them, or several such groups with ` + ` between: then one of
    each must stand near the others. Terms in Latin letters are whole words unless they end with
    `*`; others may stand anywhere.

    Raises:
        DataError: As `open_filter`.
    """
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise DataError("no lists (CATEGORY.txt) in this folder", where=str(folder))
    rules = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the list cannot be read: {error}", where=str(path)) from None
        for number, line in enumerate(lines, start=1):
            rule = line.partition("#")[0].strip()
            if rule:
                groups = [_terms(part, f"{path}:{number}") for part in rule.split(" + ")]
                terms = tuple(tuple(term.rstrip("*") for term in group) for group in groups)
                rules.append(Rule(path.stem, tuple(map(_pattern, groups)), terms))
    return rules


def _terms(group: str, where: str) -> list[str]:
    terms = [" ".join(term.casefold().split()) for term in group.split("|")]
    if not all(term.strip("*") for term in terms):
        raise DataError("a rule has an empty term", where=where)
    return terms


def _pattern(terms: Sequence[str]) -> re.Pattern[str]:
    parts = []
    for term in sorted(terms, key=lambda term: (-len(term), term)):
        body = re.escape(term.rstrip("*")).replace(r"\ ", r"\s+")
        if _HAN.search(term):
            parts.append(body)
        else:
            parts.append(rf"(?<![a-z]){body}" + ("" if term.endswith("*") else r"(?![a-z])"))
    return re.compile("|".join(parts))
