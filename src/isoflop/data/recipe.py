"""What a corpus is made from, as a recipe file spells it; not for reading any of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isoflop.core.errors import RecipeError
from isoflop.data.clean_recipe import CleanConfig
from isoflop.data.duplicates_recipe import DecontaminateConfig, DuplicatesConfig

SourceKind = Literal[
    "text", "html", "jsonl", "parquet", "warc", "wikipedia", "huggingface", "git", "python",
    "word-problems",
]  # fmt: skip
_READS_FILES = ("text", "html", "jsonl", "parquet", "warc", "wikipedia")


@dataclass(frozen=True)
class SourceConfig:
    """One source of documents (a `[[sources]]` table)."""

    kind: SourceKind
    """text (also Markdown) and html: one document a file; jsonl (.gz, .bz2, .zst) and parquet: one
    a row; warc: pages of a crawl (WARC, WET); wikipedia: articles of an XML dump (.bz2);
    huggingface: rows of a data set; git: the tracked text files of a checkout; python: sources,
    docstrings and manuals of the Python that runs this; word-problems: generated arithmetic."""
    path: Path | None = None
    """File, folder or glob to read, relative to the recipe; the folder of a checkout (git) or of
    a data set (huggingface)."""
    url: str | None = None
    """In place of `path`: a file, folder or glob that fsspec reads (s3://, gs://, https://)."""
    name: str | None = None
    """Name of the source in the corpus; its kind when omitted."""
    max_bytes: int | None = None
    """Stop once this many bytes of text are kept. Files are taken in an order hashed from the
    seed, so that the cap takes an even sample of them."""
    max_document_bytes: int = 32_000_000
    """Longer files, lines and texts are skipped and counted; it bounds the memory of a reader."""
    documents: int | None = None
    """How many word problems to generate."""
    text_key: str = "text"
    """Key (jsonl) or column (parquet, huggingface) that holds the text."""
    dataset: str | None = None
    """Name of a data set of the Hugging Face hub, as `owner/name` (huggingface)."""
    subset: str | None = None
    """Configuration of the data set (huggingface)."""
    split: str = "train"
    """Split of the data set (huggingface)."""
    revision: str | None = None
    """Commit or tag of the data set on the hub (huggingface)."""
    extraction: Literal["fast", "careful"] = "fast"
    """Who takes the main text out of HTML (html, warc): resiliparse, or trafilatura, which leaves
    out more of the page's furniture and is some ten times slower."""
    language: str = "und"
    """Language of documents that do not carry a `language` of their own."""
    license: str | None = None
    """Licence (an SPDX name) of documents that do not carry a `license` of their own."""

    @property
    def label(self) -> str:
        """The name under which documents and the funnel list this source."""
        return self.name or self.kind

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value of the source at once.
        """
        problems = [*self._place_problems()]
        if self.kind == "word-problems" and self.documents is None and self.max_bytes is None:
            problems.append("kind word-problems needs `documents` or `max_bytes`")
        if self.kind != "word-problems" and self.documents is not None:
            problems.append(f"`documents` is for word-problems, not for {self.kind}")
        if self.kind != "huggingface":
            given = {"subset": self.subset, "revision": self.revision}
            problems += [
                f"`{k}` is for huggingface, not for {self.kind}" for k in given if given[k]
            ]
        for key in ("max_bytes", "documents", "max_document_bytes"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                problems.append(f"`{key}` must be positive, not {value}")
        if problems:
            raise RecipeError(f"source `{self.label}`: {'; '.join(problems)}")

    def _place_problems(self) -> Iterator[str]:
        """What is wrong with where the source is to be found."""
        places = {"path": self.path, "url": self.url, "dataset": self.dataset}
        allowed: tuple[str, ...] = ()
        if self.kind in _READS_FILES:
            allowed = ("path", "url")
        elif self.kind == "git":
            allowed = ("path",)
        elif self.kind == "huggingface":
            allowed = ("dataset", "path")
        given = [place for place, value in places.items() if value is not None]
        for place in given:
            if place not in allowed:
                yield f"kind {self.kind} takes no `{place}`"
        if allowed and not given:
            yield f"kind {self.kind} needs a {' or a '.join(f'`{place}`' for place in allowed)}"
        if len([place for place in given if place in allowed]) > 1:
            yield f"give {' or '.join(f'`{place}`' for place in allowed)}, not both"
        if self.url is not None and "://" not in self.url:
            yield f"`url` must name a store, as in s3://bucket/folder, not `{self.url}`"


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
    decontaminate: DecontaminateConfig = field(default_factory=DecontaminateConfig)
    """Evaluation sets to keep out."""
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    """Which duplicates are dropped."""

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
