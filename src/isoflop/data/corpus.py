"""From a recipe to a clean, split corpus on disk, with an account of all that was dropped.

Not for reading the sources (`sources`) nor for tokens (`shards`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isoflop.core.artifact import (
    build_directory,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import ArtifactError, DataError
from isoflop.core.hardware import machine
from isoflop.core.recipe import to_dict
from isoflop.data.dedup import Deduplicator
from isoflop.data.documents import Document, Skipped
from isoflop.data.funnel import Funnel
from isoflop.data.normalise import normalise
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.sources import expected_bytes, read_source

SPLITS = ("train", "held_out")
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "text", "source", "url", "language", "meta")]
)
# One row group holds about this much text, which bounds the memory of writer and readers.
_ROW_GROUP_BYTES = 8_000_000


@dataclass(frozen=True)
class Corpus:
    """A finished corpus directory."""

    directory: Path
    funnel: dict[str, Any]
    """What came in, what was dropped and why, what was kept; as in `funnel.json`."""

    def documents(self, split: str) -> Iterator[list[dict[str, str]]]:
        """Rows `{text, language}` of a split, one row group at a time, in the stored order."""
        for table in self.row_groups(split, ["text", "language"]):
            yield table.to_pylist()

    def row_groups(self, split: str, columns: list[str]) -> Iterator[pa.Table]:
        """Chosen columns of a split, one row group (about 8 MB of text) at a time."""
        path = split_path(self.directory, split)
        try:
            with pq.ParquetFile(path) as file:
                for index in range(file.num_row_groups):
                    yield file.read_row_group(index, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(
                f"the documents cannot be read: {error}",
                where=str(path),
                fix="Build the corpus again with `isoflop data build`",
            ) from None

    def split_bytes(self, split: str) -> int:
        """Bytes of UTF-8 text in a split."""
        return int(self.funnel["splits"][split]["bytes"])


def split_path(directory: Path, split: str) -> Path:
    """The Parquet file of a split."""
    return directory / split / "documents.parquet"


def build(recipe: DataRecipe, out: Path, progress: Progress = SILENT) -> Corpus:
    """Read the sources, normalise, drop duplicates, split by document hash, write `out`.

    The files are a pure function of the recipe and of what the sources hold. Text is streamed:
    memory holds one row group and the hashes of `dedup`.

    Raises:
        DataError: A source or a split ends up without any document.
        ArtifactError: `out` exists and is not an artifact.
    """
    seen, funnel = Deduplicator(), Funnel()
    with build_directory(out) as aside:
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(_SplitWriter(split_path(aside, split)))
                for split in SPLITS
            }
            progress.start("data build", sum(map(expected_bytes, recipe.sources)) / 1e6, "MB")
            for source in recipe.sources:
                _add_source(recipe, source, seen, funnel, writers, progress)
        account = funnel.as_json()
        _require_documents(recipe, account)
        write_json(aside / "funnel.json", account)
        write_json(aside / "config.json", _recipe_json(recipe))
        with open(aside / "rejects.jsonl", "w", encoding="utf-8") as file:
            for reject in funnel.rejects:
                file.write(json.dumps(reject, ensure_ascii=False) + "\n")
        write_manifest(
            aside,
            kind="corpus",
            config=_recipe_json(recipe),
            machine=machine(),
            inputs=sorted({s.path for s in recipe.sources if s.path and s.path.is_file()}),
            seed=recipe.seed,
        )
    progress.finish(
        f"{account['kept']['documents']:,} documents, {account['kept']['bytes'] / 1e6:.1f} MB kept"
    )
    return Corpus(out, account)


def inspect(path: Path) -> Corpus:
    """Open a finished corpus.

    Raises:
        ArtifactError: It is missing, unfinished, damaged, or not a corpus.
    """
    read_manifest(path, "corpus")
    funnel = read_json(path / "funnel.json")
    if not isinstance(funnel, dict) or not {"dropped", "kept", "splits"} <= funnel.keys():
        raise ArtifactError(
            "the funnel lacks its parts", where=str(path / "funnel.json"), fix="Build it again"
        )
    return Corpus(path, funnel)


def held_out(text: str, seed: int, fraction: float) -> bool:
    """Whether a document belongs to the held-out split: a function of its text, never of order."""
    digest = hashlib.sha256(f"held-out\0{seed}\0{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2.0**64


def _add_source(
    recipe: DataRecipe,
    source: SourceConfig,
    seen: Deduplicator,
    funnel: Funnel,
    writers: dict[str, _SplitWriter],
    progress: Progress,
) -> None:
    label, kept_bytes = source.label, 0
    before = funnel.bytes_kept
    for item in read_source(source, recipe.seed):
        if isinstance(item, Skipped):
            funnel.drop(label, item)
            continue
        text = normalise(item.text)
        raw_bytes = len(item.text.encode("utf-8", "replace"))
        reason = seen.reason_to_drop(text) if text else "empty"
        if reason:
            funnel.drop(label, Skipped(item.id, reason, raw_bytes))
            continue
        split = "held_out" if held_out(text, recipe.seed, recipe.held_out_fraction) else "train"
        text_bytes = writers[split].add(item, text)
        funnel.keep(label, split, item.language, raw_bytes, text_bytes)
        kept_bytes += text_bytes
        if funnel.documents_kept % 64 == 0:
            progress.advance((before + kept_bytes) / 1e6, label)
        if source.max_bytes is not None and kept_bytes >= source.max_bytes:
            break


def _require_documents(recipe: DataRecipe, account: dict[str, Any]) -> None:
    for source in recipe.sources:
        part = account["sources"].get(source.label)
        if part is None or part["kept"]["documents"] == 0:
            reasons = ", ".join(
                f"{reason} ({drop['documents']})" for reason, drop in account["dropped"].items()
            )
            raise DataError(
                "not one usable document" + (f"; dropped: {reasons}" if reasons else ""),
                where=f"source `{source.label}`" + (f" ({source.path})" if source.path else ""),
                fix="Check `path`, `kind` and `text_key` of this source in the recipe",
            )
    for split in SPLITS:
        if account["splits"].get(split, {"documents": 0})["documents"] == 0:
            raise DataError(
                f"the {split.replace('_', '-')} split is empty: "
                f"{account['kept']['documents']} documents in all, "
                f"held_out_fraction = {recipe.held_out_fraction}",
                where="corpus",
                fix="Add documents (a file is one document), or change held_out_fraction",
            )


def _recipe_json(recipe: DataRecipe) -> dict[str, Any]:
    """The recipe as JSON; paths by name only, so that the corpus does not depend on the machine."""
    value = to_dict(recipe)
    for source in value["sources"]:
        source["path"] = Path(source["path"]).name if source["path"] else None
    return value


class _SplitWriter:
    """Appends documents to one Parquet file, a row group at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True)
        self._file = pq.ParquetWriter(path, _SCHEMA, compression="zstd", compression_level=3)
        self._rows: list[dict[str, str]] = []
        self._bytes = 0

    def __enter__(self) -> _SplitWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def add(self, document: Document, text: str) -> int:
        """Append a document with its normalised text; returns the bytes of that text."""
        self._rows.append(
            {
                "id": document.id,
                "text": text,
                "source": document.source,
                "url": document.url,
                "language": document.language,
                "meta": json.dumps(document.meta, ensure_ascii=False, sort_keys=True, default=str),
            }
        )
        text_bytes = len(text.encode())
        self._bytes += text_bytes
        if self._bytes >= _ROW_GROUP_BYTES:
            self._flush()
        return text_bytes

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=_SCHEMA))
            self._rows, self._bytes = [], 0
