"""The registry of source kinds: how each is planned and read; the work is in their modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from isoflop.data import word_problems
from isoflop.data.documents import Document, InputSplit, Skipped
from isoflop.data.recipe import SourceConfig, SourceKind
from isoflop.data.sources import (
    git_checkouts,
    hugging_face,
    jsonl,
    parquet,
    python_installation,
    text,
    warc,
    web_pages,
    wikipedia,
)


@dataclass(frozen=True)
class _Kind:
    plan: Callable[[SourceConfig, int], list[InputSplit]]
    read: Callable[[SourceConfig, InputSplit], Iterator[Document | Skipped]]


_KINDS: dict[SourceKind, _Kind] = {
    "text": _Kind(text.plan, text.read),
    "html": _Kind(web_pages.plan, web_pages.read),
    "jsonl": _Kind(jsonl.plan, jsonl.read),
    "parquet": _Kind(parquet.plan, parquet.read),
    "warc": _Kind(warc.plan, warc.read),
    "wikipedia": _Kind(wikipedia.plan, wikipedia.read),
    "huggingface": _Kind(hugging_face.plan, hugging_face.read),
    "git": _Kind(git_checkouts.plan, git_checkouts.read),
    "python": _Kind(python_installation.plan, python_installation.read),
    "word-problems": _Kind(word_problems.plan, word_problems.read),
}


def plan_inputs(source: SourceConfig, seed: int) -> list[InputSplit]:
    """The parts of a source in an order hashed from the seed and their names.

    It depends on the recipe, the names and the sizes of the files alone, never on the number of
    workers or the folder, and takes an even sample when somebody stops early. Parts of a large
    file are cut by bytes where its format allows it; the many parts of small files are for the
    caller to gather by `InputSplit.bytes`.

    Raises:
        DataError: The path or address holds no file of this kind, or cannot be reached.
        RecipeError: A package that this kind needs is not installed.
    """
    return _KINDS[source.kind].plan(source, seed)


def read_split(source: SourceConfig, split: InputSplit) -> Iterator[Document | Skipped]:
    """The documents of one part, in the order of the file, in bounded memory.

    Every record is either a document or a `Skipped`: damage never raises, it is named.
    """
    return _KINDS[source.kind].read(source, split)


def read_source(source: SourceConfig, seed: int) -> Iterator[Document | Skipped]:
    """The documents of all parts of a source, one part after the other.

    Raises:
        DataError, RecipeError: As for `plan_inputs`.
    """
    for split in plan_inputs(source, seed):
        yield from read_split(source, split)


def expected_bytes(source: SourceConfig) -> int:
    """About how much text the source will give, for the progress line."""
    if source.max_bytes is not None:
        return source.max_bytes
    return sum(split.bytes for split in plan_inputs(source, 0))
