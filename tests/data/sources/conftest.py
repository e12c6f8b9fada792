"""Reading a source to its end, and archives that were made by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isoflop.data.documents import Document, Skipped
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources import read_source

Read = Callable[..., tuple[list[Document], list[Skipped]]]


@pytest.fixture(scope="session")
def read() -> Read:
    """`read(source, seed=0)`: documents and what was skipped."""

    def read_all(source: SourceConfig, seed: int = 0) -> tuple[list[Document], list[Skipped]]:
        items = list(read_source(source, seed))
        documents = [item for item in items if isinstance(item, Document)]
        return documents, [item for item in items if isinstance(item, Skipped)]

    return read_all
