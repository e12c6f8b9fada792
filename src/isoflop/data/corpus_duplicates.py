"""Duplicates in a finished corpus: what there is, as `duplicates.json`; not for building one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoflop.core.console import SILENT, Progress
from isoflop.data.choose import SPLITS
from isoflop.data.corpus import Corpus
from isoflop.data.documents import Document
from isoflop.data.duplicate_index import DuplicateIndex, open_index, write_index
from isoflop.data.duplicates import (
    DuplicateKeys,
    Duplicates,
    duplicate_keys,
    find_duplicates,
    joined_keys,
)
from isoflop.data.duplicates_recipe import DuplicatesConfig

_COLUMNS = ["id", "text", "source", "url", "language"]


@dataclass(frozen=True)
class CorpusDuplicates:
    """The duplicates in a corpus."""

    duplicates: Duplicates
    """Documents are numbered through all splits, in the stored order."""
    report: dict[str, Any]
    """The content of `duplicates.json`."""


def corpus_duplicates(
    corpus: Corpus,
    config: DuplicatesConfig,
    progress: Progress = SILENT,
    remember: Path | None = None,
) -> CorpusDuplicates:
    """Look for duplicates among the documents of all splits of a corpus.

    Memory: one row group, the ids, and what `find_duplicates` needs.

    Args:
        remember: Write an index of the documents that would be kept here, or add them to the one
            that stands there.

    Raises:
        ArtifactError: The corpus or an index cannot be read.
    """
    order: dict[str, int] = {}
    ids: list[str] = []
    parts: list[DuplicateKeys] = []
    older = open_index(config.index) if config.index is not None else None
    total = sum(corpus.split_bytes(split) for split in SPLITS) / 1e6
    progress.start("data duplicates", total, "MB")
    done = 0.0
    for documents in _row_groups(corpus):
        for document in documents:
            order.setdefault(document.source, len(order))
            ids.append(f"{document.source} {document.id}")
            done += len(document.text.encode()) / 1e6
        parts.append(duplicate_keys(documents, order, config))
        progress.advance(done, f"{len(ids):,} documents")
    keys = joined_keys(parts)
    known = None if older is None else older.known(keys, config.similarity)
    found = find_duplicates(keys, config, lambda numbers: _texts(corpus, numbers), known)
    if remember is not None:
        write_index(remember, keys, np.flatnonzero(found.kinds < 0), _standing(remember))
    report = found.report(ids.__getitem__)
    progress.finish(f"{report['removed']:,} of {report['documents']:,} documents are duplicates")
    return CorpusDuplicates(found, report)


def _standing(directory: Path) -> DuplicateIndex | None:
    return open_index(directory) if directory.exists() and any(directory.iterdir()) else None


def _row_groups(corpus: Corpus) -> Iterator[list[Document]]:
    for split in SPLITS:
        for table in corpus.row_groups(split, _COLUMNS):
            yield [
                Document(row["id"], row["text"], row["source"], row["language"], row["url"])
                for row in table.to_pylist()
            ]


def _texts(corpus: Corpus, numbers: NDArray[np.int64]) -> Iterator[str]:
    """The texts of documents by their ascending numbers."""
    first = 0
    for split in SPLITS:
        for table in corpus.row_groups(split, ["text"]):
            low, high = np.searchsorted(numbers, [first, first + table.num_rows])
            yield from table.column("text").take(numbers[low:high] - first).to_pylist()
            first += table.num_rows
