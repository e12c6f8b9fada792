"""What a corpus is made from, as a recipe file spells it; not for reading any of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isoflop.core.errors import RecipeError
from isoflop.data.clean_recipe import CleanConfig

SourceKind = Literal["text", "jsonl", "parquet", "python", "word-problems"]


@dataclass(frozen=True)
class SourceConfig:
    """One source of documents (a `[[sources]]` table)."""

    kind: SourceKind
    """text: one document a file; jsonl (.gz, .zst) and parquet: one a row; python: sources,
    docstrings and manuals of the Python that runs this; word-problems: generated arithmetic."""
    path: Path | None = None
    """File, folder or glob to read (text, jsonl, parquet), relative to the recipe."""
    name: str | None = None
    """Name of the source in the corpus; its kind when omitted."""
    max_bytes: int | None = None
    """Stop once this many bytes of text are kept. Files are taken in an order hashed from the
    seed, so that the cap takes an even sample of them."""
    documents: int | None = None
    """How many word problems to generate."""
    text_key: str = "text"
    """Key (jsonl) or column (parquet) that holds the text."""
    language: str = "und"
    """Language of documents that do not carry a `language` of their own."""

    @property
    def label(self) -> str:
        """The name under which documents and the funnel list this source."""
        return self.name or self.kind

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value of the source at once.
        """
        problems: list[str] = []
        reads_files = self.kind in ("text", "jsonl", "parquet")
        if reads_files and self.path is None:
            problems.append(f"kind {self.kind} needs a `path`")
        if not reads_files and self.path is not None:
            problems.append(f"kind {self.kind} takes no `path`")
        if self.kind == "word-problems" and self.documents is None and self.max_bytes is None:
            problems.append("kind word-problems needs `documents` or `max_bytes`")
        if self.kind != "word-problems" and self.documents is not None:
            problems.append(f"`documents` is for word-problems, not for {self.kind}")
        for key, value in (("max_bytes", self.max_bytes), ("documents", self.documents)):
            if value is not None and value <= 0:
                problems.append(f"`{key}` must be positive, not {value}")
        if problems:
            raise RecipeError(f"source `{self.label}`: {'; '.join(problems)}")


@dataclass(frozen=True)
class DataRecipe:
    """The sources of a corpus and how it is split."""

    sources: tuple[SourceConfig, ...]
    """Where the text comes from."""
    held_out_fraction: float = 0.02
    """Share of documents, chosen by their hash, kept aside for evaluation."""
    seed: int = 0
    """Seeds the choice of files under a cap, the generated problems and the split."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """Spelling, languages, quality rules, personal data, word lists."""

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value at once.
        """
        problems: list[str] = []
        if not self.sources:
            problems.append("`sources` is empty: add a [[sources]] table")
        if not 0.0 < self.held_out_fraction < 1.0:
            problems.append(
                f"`held_out_fraction` must lie between 0 and 1, not be {self.held_out_fraction}"
            )
        labels = [source.label for source in self.sources]
        for label in sorted({x for x in labels if labels.count(x) > 1}):
            problems.append(f"two sources are called `{label}`: give them different `name`s")
        if problems:
            raise RecipeError("; ".join(problems), where="data recipe")
