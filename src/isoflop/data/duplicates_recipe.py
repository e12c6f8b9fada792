"""How duplicates and evaluation items are kept out, as a recipe spells it; not for doing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from isoflop.core.errors import RecipeError


@dataclass(frozen=True)
class DuplicatesConfig:
    """Which duplicates are dropped, and which document of several stays (`[duplicates]`)."""

    exact: bool = True
    """Drop documents with the same text."""
    url: bool = False
    """Drop documents with the same address (fragment, port and tracking parameters aside)."""
    near: bool = False
    """Drop documents whose runs of five words (or ideographs) are mostly the same (MinHash)."""
    similarity: float = 0.7
    """Jaccard similarity of those runs from which documents are near duplicates, 0.7 to 1."""
    lines: bool = True
    """Drop documents of which more than half of the lines stand in documents that are kept."""
    substrings: Literal["keep", "cut", "drop"] = "keep"
    """Long passages that stand elsewhere too: cut them out, but once; or drop documents that
    are such passages for more than half."""
    substring_characters: int = 200
    """How long a repeated passage must be."""
    prefer: Literal["longest", "first"] = "longest"
    """Which document of several stays: the longest (white space aside), then the one of the
    earliest source; or the one of the earliest source in the recipe, then the longest."""
    index: Path | None = None
    """Documents kept earlier (`isoflop data duplicates CORPUS --remember DIR`): what duplicates one
    of them by text, address or MinHash is dropped too."""

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value at once.
        """
        problems: list[str] = []
        if not 0.7 <= self.similarity <= 1.0:
            # Twenty-two bands of five numbers find fewer and fewer pairs below.
            problems.append(f"`similarity` must lie between 0.7 and 1, not be {self.similarity}")
        if self.substring_characters < 50:
            problems.append(
                f"`substring_characters` must be 50 or more, not {self.substring_characters}"
            )
        if problems:
            raise RecipeError("; ".join(problems), where="[duplicates]")


@dataclass(frozen=True)
class EvaluationSet:
    """One evaluation set to keep out of the corpus (a `[[decontaminate.tasks]]` table)."""

    path: Path
    """JSONL (.gz, .zst), Parquet, or text with an item a line; relative to the recipe."""
    name: str | None = None
    """Name of the task in the report; the file's name when omitted."""
    keys: tuple[str, ...] = ()
    """Keys of a row that make up the item, in this order; all its texts when empty."""

    @property
    def label(self) -> str:
        """The name under which the report lists this task."""
        return self.name or self.path.name.split(".")[0]


@dataclass(frozen=True)
class DecontaminateConfig:
    """What becomes of documents that hold evaluation items (`[decontaminate]`)."""

    tasks: tuple[EvaluationSet, ...] = ()
    """The evaluation sets; nothing is looked for when empty."""
    ngram: int = 13
    """Tokens (words, or ideographs) in a row that must be the same; shorter items are looked for
    whole, down to eight tokens."""
    overlap: float = 0.5
    """Share of an item's n-grams that one document must hold for the item to be contaminated."""
    action: Literal["drop", "cut", "report"] = "drop"
    """drop: the document goes; cut: the item and 200 characters on either side go; report: only
    counted."""

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value at once.
        """
        problems: list[str] = []
        if not 8 <= self.ngram <= 50:
            problems.append(f"`ngram` must lie between 8 and 50, not be {self.ngram}")
        if not 0.0 < self.overlap <= 1.0:
            problems.append(f"`overlap` must lie between 0 and 1, not be {self.overlap}")
        labels = [task.label for task in self.tasks]
        for label in sorted({x for x in labels if labels.count(x) > 1}):
            problems.append(f"two tasks are called `{label}`: give them different `name`s")
        if problems:
            raise RecipeError("; ".join(problems), where="[decontaminate]")
