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
from isoflop.data.annotate import (
    Annotated,
    Annotator,
    annotate_source,
    check_annotations,
    read_annotated,
)
from isoflop.data.decide import Decider
from isoflop.data.dedup import Deduplicator
from isoflop.data.documents import Skipped
from isoflop.data.funnel import Funnel
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.sources import expected_bytes
from isoflop.data.why import SignalsWriter, signals_path

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


def build(
    recipe: DataRecipe, out: Path, progress: Progress = SILENT, annotations: Path | None = None
) -> Corpus:
    """Read the sources, clean, drop duplicates, split by document hash, write `out`.

    The files are a pure function of the recipe and of what the sources hold. Text is streamed:
    memory holds one row group and the hashes of `dedup`.

    Args:
        annotations: What `annotate` wrote with the same sources and spelling: the sources are not
            read again, and only the recipe's decisions are taken.

    Raises:
        DataError: A source or a split ends up without any document, or the annotations are of
            another recipe.
        RecipeError: A package that the recipe needs is not installed.
        ArtifactError: `out` exists and is not an artifact.
    """
    if annotations is not None:
        check_annotations(annotations, recipe)
    config = _recipe_json(recipe)
    with build_directory(out) as aside:
        with ExitStack() as stack:
            writers = {
                split: stack.enter_context(_SplitWriter(split_path(aside, split)))
                for split in SPLITS
            }
            signals = None
            if recipe.clean.measures:
                signals = stack.enter_context(SignalsWriter(signals_path(aside)))
            work = _Build(recipe, writers, signals, progress)
            progress.start("data build", sum(map(expected_bytes, recipe.sources)) / 1e6, "MB")
            annotator = Annotator(recipe.clean) if annotations is None else None
            for index, source in enumerate(recipe.sources):
                if annotator is not None:
                    items = annotate_source(source, recipe.seed, annotator)
                elif annotations is not None:
                    items = read_annotated(annotations, index)
                work.add_source(source, items)
        account = work.funnel.as_json()
        _require_documents(recipe, account)
        write_json(aside / "funnel.json", account)
        write_json(aside / "config.json", config)
        with open(aside / "rejects.jsonl", "w", encoding="utf-8") as file:
            for reject in work.funnel.rejects:
                file.write(json.dumps(reject, ensure_ascii=False) + "\n")
        write_manifest(
            aside,
            kind="corpus",
            config=config,
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


class _Build:
    """The state of one build: what was seen, what was counted, where it is written."""

    def __init__(
        self,
        recipe: DataRecipe,
        writers: dict[str, _SplitWriter],
        signals: SignalsWriter | None,
        progress: Progress,
    ) -> None:
        self.funnel = Funnel()
        self._recipe, self._writers, self._signals = recipe, writers, signals
        self._progress, self._done = progress, 0
        self._decide, self._seen = Decider(recipe.clean), Deduplicator()

    def add_source(self, source: SourceConfig, items: Iterator[Annotated | Skipped]) -> None:
        """Decide on every document of a source, up to its cap."""
        funnel, label, before, read = self.funnel, source.label, self._done, 0
        kept_before = funnel.bytes_kept
        for number, item in enumerate(items, 1):
            read += item.bytes if isinstance(item, Skipped) else item.raw_bytes
            if isinstance(item, Skipped):
                funnel.drop(label, item)
                continue
            self._add(label, item)
            kept = funnel.bytes_kept - kept_before
            # A cap counts what is kept; without one the work is what there is to read.
            self._done = before + (read if source.max_bytes is None else kept)
            if number % 64 == 0:
                self._progress.advance(self._done / 1e6, label)
            if source.max_bytes is not None and kept >= source.max_bytes:
                break

    def _add(self, label: str, item: Annotated) -> None:
        decision = self._decide(item)
        text = decision.text
        reason = decision.reason or self._seen.reason_to_drop(text)
        self.funnel.count_pii(decision.pii)
        if self._signals is not None:
            self._signals.add(item, reason or "")
        if reason:
            self.funnel.drop(label, Skipped(item.document.id, reason, item.raw_bytes))
            return
        recipe = self._recipe
        split = "held_out" if held_out(text, recipe.seed, recipe.held_out_fraction) else "train"
        size = self._writers[split].add(item, text, decision.meta)
        self.funnel.keep(label, split, item.language, item.raw_bytes, size)


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
    toxicity = value["clean"]["toxicity"]
    toxicity["lists"] = [Path(path).name for path in toxicity["lists"]]
    for model in (value["clean"]["perplexity"], value["clean"]["classifier"]):
        model["model"] = Path(model["model"]).name if model["model"] else None
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

    def add(self, item: Annotated, text: str, meta: dict[str, Any]) -> int:
        """Append a document with its final text; returns the bytes of that text."""
        document, meta = item.document, item.document.meta | meta
        self._rows.append(
            {
                "id": document.id,
                "text": text,
                "source": document.source,
                "url": document.url,
                "language": item.language,
                "meta": json.dumps(meta, ensure_ascii=False, sort_keys=True, default=str),
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
