"""How risky a text is, told by a classifier that `isoflop data classifier` has trained.

A text is judged piece by piece, sentence by sentence or so, so that the answer is the same for a
text that grows as for all of it at once. Not for what becomes of what is risky (`safety.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isoflop.core.artifact import read_manifest
from isoflop.core.errors import RecipeError
from isoflop.data.quality_classifier import Classifier, load
from isoflop.serving.disguise import views

LEAST_PIECE, PIECE, MOST_PIECE = 16, 200, 4096
"""Characters: a sentence shorter than the first is judged with the next one; one longer than the
second is cut, but not within a word (which may be encoded) until it is as long as the third."""
_SENTENCE = re.compile(r"[.!?](?=\s)|[。！？\n]")
_NO_WORD = re.compile(r"[^A-Za-z0-9+/_=-]")


@dataclass(frozen=True)
class RiskJudge:
    """A classifier and where risk begins."""

    classifier: Classifier
    threshold: float
    """Texts above it are risky."""

    def score(self, text: str) -> float:
        """The risk of a piece in its riskiest spelling, 0 to 1."""
        return max(
            self.classifier(part)
            for view in views(text)
            # What was encoded may be longer than what encodes a piece, and is cut anew.
            for part in (pieces(view.text) if len(view.text) > 2 * PIECE else (view.text,))
        )

    def risk(self, text: str) -> float:
        """The risk of a whole text: that of its riskiest piece."""
        reader = RiskReader(self)
        reader.read(text, final=True)
        return reader.risk


class RiskReader:
    """The risk of a text that grows.

    Each piece is judged alone, and with the one before it, over whose end a sentence may go on.
    """

    def __init__(self, judge: RiskJudge) -> None:
        self._judge = judge
        self._before = ""
        self.judged = 0
        """Characters judged so far."""
        self.risk = 0.0
        """The highest so far."""
        self.risky_from: int | None = None
        """Where the first piece above the threshold begins."""

    def read(self, text: str, *, final: bool = False) -> None:
        """Judge what is new.

        Args:
            text: All of it so far.
            final: Nothing more will come.
        """
        start = self.judged
        for piece in pieces(text, start, final=final):
            risk = self._judge.score(piece)
            if self._before:
                risk = max(risk, self._judge.score(self._before + piece))
            self.risk = max(self.risk, risk)
            if risk > self._judge.threshold and self.risky_from is None:
                self.risky_from = self.judged
            self._before = piece
            self.judged += len(piece)


def pieces(text: str, start: int = 0, *, final: bool = True) -> Iterator[str]:
    """The pieces of a text from `start` on; without `final`, those that more text cannot change."""
    while (end := _end(text, start)) is not None:
        yield text[start:end]
        start = end
    if final and start < len(text):
        yield text[start:]


def _end(text: str, start: int) -> int | None:
    """Where the piece that begins at `start` ends; None if more text could tell."""
    sentence = _SENTENCE.search(text, start + LEAST_PIECE - 1)
    word = _NO_WORD.search(text, start + PIECE - 1)
    ends = [found.end() for found in (sentence, word) if found is not None]
    if len(text) - start >= MOST_PIECE:
        ends.append(start + MOST_PIECE)
    return min(ends, default=None)


def open_judge(directory: Path, threshold: float) -> RiskJudge:
    """A judge of texts by a trained classifier.

    Raises:
        ArtifactError: The directory holds none, or a damaged one.
        RecipeError: The threshold does not lie between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise RecipeError(
            f"{threshold} does not lie between 0 and 1",
            where="--safety-threshold",
            fix="0.5 takes for risky what is more likely so than not",
        )
    read_manifest(directory, "quality-classifier", verify=True)
    return RiskJudge(load(directory), threshold)
