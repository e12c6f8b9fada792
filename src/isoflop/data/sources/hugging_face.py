"""Reads data sets by their name on the Hugging Face hub, or from a copy here; needs `datasets`.

Not for a folder of Parquet or JSONL alone: those kinds read it without the package.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from isoflop.core.errors import DataError
from isoflop.data.documents import Document, InputSplit, Skipped
from isoflop.data.extras import require
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources.files import in_order
from isoflop.data.sources.rows import document_from_row

_ROWS_PER_SPLIT = 50_000
_SAVED = ("dataset_info.json", "dataset_dict.json", "state.json")


def plan(source: SourceConfig, seed: int) -> list[InputSplit]:
    """Ranges of rows of a saved copy; the shards of a data set that is streamed from the hub.

    Raises:
        DataError: The data set cannot be had: no network, no such name, subset or split.
        RecipeError: `datasets` is not installed.
    """
    rows = _open(source)
    if hasattr(rows, "num_shards") and not hasattr(rows, "num_rows"):
        splits = [
            InputSplit(f"shard {index}", "", 0, index, index + 1, seed=seed)
            for index in range(rows.num_shards)
        ]
    else:
        count, size = rows.num_rows, int(rows.data.nbytes)
        splits = [
            InputSplit(
                f"rows {start}", "", size * (stop - start) // max(1, count), start, stop, seed=seed
            )
            for start in range(0, count, _ROWS_PER_SPLIT)
            for stop in [min(start + _ROWS_PER_SPLIT, count)]
        ]
    return in_order(splits, seed)


def read(source: SourceConfig, split: InputSplit) -> Iterator[Document | Skipped]:
    """The rows of a split; `meta.offset` is the row, counted within its shard when streamed.

    Raises:
        DataError: As for `plan`.
    """
    rows = _open(source)
    first, stop = split.start, split.stop or split.start
    with _explained(source):
        if split.identity.startswith("shard "):
            found = iter(rows.shard(rows.num_shards, first))
            first = 0
        else:
            found = (rows[number] for number in range(first, stop))
        for number, row in enumerate(found, first):
            yield _from_row(source, split.identity, number, dict(row))


def _from_row(
    source: SourceConfig, identity: str, number: int, row: dict[str, Any]
) -> Document | Skipped:
    text = row.pop(source.text_key, None)
    where = f"{identity}:{number}" if identity.startswith("shard ") else f"row {number}"
    if not isinstance(text, str):
        reason, detail = f"no text under `{source.text_key}`", f"columns: {', '.join(row)}"
        return Skipped(where, reason, 0, number + 1, True, detail)
    if len(text) > source.max_document_bytes:
        reason = f"text over {source.max_document_bytes / 1e6:g} MB"
        return Skipped(where, reason, len(text), number + 1, True)
    plain = (str, int, float, bool, type(None))
    row = {key: value for key, value in row.items() if isinstance(value, plain)}
    return document_from_row(source, where, text, row, number)


def _open(source: SourceConfig) -> Any:
    """The rows: a `Dataset` of a saved copy, or else an `IterableDataset`."""
    datasets = require("datasets", 'kind = "huggingface"', "hf")
    with _explained(source):
        if source.path is not None and any((source.path / name).is_file() for name in _SAVED):
            found = datasets.load_from_disk(str(source.path))
            return found[source.split] if isinstance(found, dict) else found
        return datasets.load_dataset(
            str(source.path) if source.path is not None else source.dataset,
            source.subset,
            split=source.split,
            revision=source.revision,
            streaming=True,
        )


@contextmanager
def _explained(source: SourceConfig) -> Iterator[None]:
    """Say what to do about what `datasets` and the hub's client raise: many kinds of OSError,
    ValueError, LookupError and RuntimeError."""
    try:
        yield
    except (OSError, ValueError, LookupError, RuntimeError) as error:
        place = str(source.path) if source.path is not None else source.dataset
        lines = str(error).strip().splitlines() or [type(error).__name__]
        offline = bool(os.environ.get("HF_HUB_OFFLINE") or os.environ.get("HF_DATASETS_OFFLINE"))
        raise DataError(
            f"the data set cannot be read: {lines[0][:300]}",
            where=f"source `{source.label}` ({place}, split {source.split})",
            fix=(
                "Check `dataset`, `subset` and `split`, and the network"
                + (" (HF_HUB_OFFLINE is set)" if offline else "")
                + "; or copy the data set here with `save_to_disk` and set `path` instead"
            ),
        ) from None
