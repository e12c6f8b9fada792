"""Spells and measures documents once, so that deciding which to keep takes seconds afterwards.

Not for deciding (`decide`) nor for what is kept (`corpus`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isoflop.core.artifact import build_directory, read_manifest, sha256_json, write_manifest
from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import ArtifactError, DataError
from isoflop.core.hardware import machine
from isoflop.core.recipe import to_dict
from isoflop.data import pii
from isoflop.data.clean_recipe import CleanConfig
from isoflop.data.documents import Document, Skipped
from isoflop.data.language import UNKNOWN, identify
from isoflop.data.model_filters import MODEL_SIGNALS, ModelScores, fingerprints
from isoflop.data.normalise import Normaliser
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.signals import SIGNALS, Measurer
from isoflop.data.sources import expected_bytes, read_source
from isoflop.data.toxicity import read_word_lists

ALL_SIGNALS = (*SIGNALS, "language_score", "toxic_matches", "pii", *MODEL_SIGNALS)
_TEXTS = ("id", "text", "source", "url", "language", "identified", "meta")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        ("raw_bytes", pa.int64()),
        *((name, pa.float64()) for name in ALL_SIGNALS),
    ]
)
_ROW_GROUP_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class Annotated:
    """A document in the recipe's spelling, with what was measured on it."""

    document: Document
    """As it was read, but for `text`, in the recipe's spelling ("" if nothing is left)."""
    raw_bytes: int
    """UTF-8 bytes as read."""
    identified: str = UNKNOWN
    """The language found in the text; `und` where nobody looked."""
    signals: dict[str, float] = field(default_factory=dict)
    """Name → value; without the quality signals for code and where no rule asks."""

    @property
    def language(self) -> str:
        """What the source said or, if it did not, what was found."""
        said = self.document.language
        return self.identified if said == UNKNOWN else said


@dataclass(frozen=True)
class Annotations:
    """A finished directory of annotated documents."""

    directory: Path
    documents: int


class Annotator:
    """Spells and measures one document after another.

    Args:
        config: What the recipe asks for.
        everything: Measure all there is, whatever the recipe's rules need today.

    Raises:
        RecipeError: A package that the recipe needs is not installed.
        DataError: A word list cannot be read.
    """

    def __init__(self, config: CleanConfig, everything: bool = False) -> None:
        self._config = config
        self._normalise = Normaliser(config.spelling)
        self._identify = everything or config.language.on or config.quality.on
        self._measure = everything or config.quality.on
        self._count_pii = everything or config.pii.action != "keep"
        self._toxic = read_word_lists(config.toxicity.lists) if config.toxicity.lists else None
        self._measurer = Measurer()
        self._models = ModelScores(config.perplexity.model, config.classifier.model)

    def __call__(self, document: Document) -> Annotated:
        """The document, spelled and measured."""
        raw_bytes = len(document.text.encode("utf-8", "replace"))
        text = self._normalise(document.text)
        clean = Document(
            document.id, text, document.source, document.language, document.url, document.meta
        )
        identified, signals = UNKNOWN, dict[str, float]()
        if self._identify and document.language == UNKNOWN and text:
            guess = identify(text)
            identified, signals["language_score"] = guess.tag, guess.score
        language = identified if document.language == UNKNOWN else document.language
        if self._measure and text and language != "code":
            unspaced = language.split("-")[0] in ("zh", "ja")
            measure = self._measurer.chinese if unspaced else self._measurer.english
            # The newline that ends every clean text is no line of the author's.
            signals |= measure(text[:-1])
        if self._toxic is not None:
            signals["toxic_matches"] = float(self._toxic.count(text))
        if text:
            signals |= self._models(text, language)
        if self._count_pii:
            signals["pii"] = float(len(pii.find(text, self._config.pii.kinds)))
        return Annotated(clean, raw_bytes, identified, signals)


def annotate_source(
    source: SourceConfig, seed: int, annotator: Annotator
) -> Iterator[Annotated | Skipped]:
    """The documents of one source, annotated, and what could not be read."""
    for item in read_source(source, seed):
        yield item if isinstance(item, Skipped) else annotator(item)


def annotate(recipe: DataRecipe, out: Path, progress: Progress = SILENT) -> Annotations:
    """Write every document of the recipe's sources with all its signals, for `decide` to judge.

    A source's `max_bytes` counts the text before anything is dropped.

    Raises:
        DataError, RecipeError: A source, a word list or a package is missing.
        ArtifactError: `out` exists and is not an artifact.
    """
    annotator, documents = Annotator(recipe.clean, everything=True), 0
    progress.start("data annotate", sum(map(expected_bytes, recipe.sources)) / 1e6, "MB")
    done = 0
    with build_directory(out) as aside:
        for index, source in enumerate(recipe.sources):
            taken = 0
            with (
                _AnnotatedWriter(_documents_path(aside, index)) as writer,
                open(_skipped_path(aside, index), "w", encoding="utf-8") as skipped,
            ):
                for item in annotate_source(source, recipe.seed, annotator):
                    if isinstance(item, Skipped):
                        skipped.write(json.dumps(asdict(item), ensure_ascii=False) + "\n")
                        continue
                    size = writer.add(item)
                    documents, taken, done = documents + 1, taken + size, done + size
                    if documents % 64 == 0:
                        progress.advance(done / 1e6, source.label)
                    if source.max_bytes is not None and taken >= source.max_bytes:
                        break
        write_manifest(
            aside,
            kind="annotations",
            config=_annotated_part(recipe),
            machine=machine(),
            inputs=sorted({s.path for s in recipe.sources if s.path and s.path.is_file()}),
            seed=recipe.seed,
        )
    progress.finish(f"{documents:,} documents, {done / 1e6:.1f} MB annotated")
    return Annotations(out, documents)


def check_annotations(directory: Path, recipe: DataRecipe) -> None:
    """Make sure that annotations were made from a recipe's sources in its spelling.

    Raises:
        ArtifactError: They are missing, unfinished or damaged.
        DataError: They were made for other sources, another spelling or other word lists.
    """
    manifest = read_manifest(directory, "annotations")
    if manifest.config_sha256 != sha256_json(_annotated_part(recipe)):
        raise DataError(
            "these annotations were made with other `sources`, `seed`, `clean.spelling`, "
            "`clean.pii.kinds`, `clean.toxicity.lists` or models of [clean.perplexity] or "
            "[clean.classifier]",
            where=str(directory),
            fix="Run `isoflop data annotate` with this recipe again",
        )


def read_annotated(directory: Path, index: int) -> Iterator[Annotated | Skipped]:
    """What `annotate` wrote of the recipe's source number `index`.

    Raises:
        ArtifactError: The files are damaged.
    """
    try:
        with open(_skipped_path(directory, index), encoding="utf-8") as file:
            for line in file:
                yield Skipped(**json.loads(line))
        with pq.ParquetFile(_documents_path(directory, index)) as documents:
            for number in range(documents.num_row_groups):
                for row in documents.read_row_group(number).to_pylist():
                    yield _from_row(row)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ArtifactError(
            f"the annotations cannot be read: {error}",
            where=str(directory),
            fix="Run `isoflop data annotate` again",
        ) from None


def _from_row(row: dict[str, Any]) -> Annotated:
    document = Document(
        row["id"], row["text"], row["source"], row["language"], row["url"], json.loads(row["meta"])
    )
    values = {name: row[name] for name in ALL_SIGNALS}
    signals = {name: value for name, value in values.items() if not math.isnan(value)}
    return Annotated(document, row["raw_bytes"], row["identified"], signals)


def _annotated_part(recipe: DataRecipe) -> dict[str, Any]:
    """What of a recipe decides the annotations; word lists by their content."""
    clean = to_dict(recipe.clean)
    return {
        "sources": [
            {**to_dict(s), "path": s.path.name if s.path else None} for s in recipe.sources
        ],
        "seed": recipe.seed,
        "spelling": clean["spelling"],
        "pii": clean["pii"]["kinds"],
        "toxicity": [path.read_text("utf-8-sig") for path in recipe.clean.toxicity.lists],
        "models": fingerprints(recipe.clean.perplexity.model, recipe.clean.classifier.model),
    }


def _documents_path(directory: Path, index: int) -> Path:
    return directory / f"source_{index}.parquet"


def _skipped_path(directory: Path, index: int) -> Path:
    return directory / f"skipped_{index}.jsonl"


class _AnnotatedWriter:
    """Appends annotated documents to one Parquet file, a row group at a time."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetWriter(path, _SCHEMA, compression="zstd", compression_level=1)
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def __enter__(self) -> _AnnotatedWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def add(self, item: Annotated) -> int:
        """Append a document; returns the bytes of its text."""
        row: dict[str, Any] = {name: item.signals.get(name, math.nan) for name in ALL_SIGNALS}
        row |= {name: getattr(item.document, name) for name in _TEXTS if name != "identified"}
        row["meta"] = json.dumps(item.document.meta, ensure_ascii=False, default=str)
        row |= {"identified": item.identified, "raw_bytes": item.raw_bytes}
        self._rows.append(row)
        size = len(item.document.text.encode())
        self._bytes += size
        if self._bytes >= _ROW_GROUP_BYTES:
            self._flush()
        return size

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(pa.Table.from_pylist(self._rows, schema=_SCHEMA))
            self._rows, self._bytes = [], 0
