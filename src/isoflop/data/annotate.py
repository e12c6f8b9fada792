"""Spells and measures documents once, so that deciding which to keep takes seconds afterwards.

Not for deciding (`decide`) nor for what is kept (`corpus`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from isoflop.core.artifact import (
    build_directory,
    read_json,
    read_manifest,
    sha256_json,
    write_json,
    write_manifest,
)
from isoflop.core.console import SILENT, Progress
from isoflop.core.engine import Engine, Output, Piece, Work, link_file, open_placement, work_folder
from isoflop.core.errors import DataError
from isoflop.core.hardware import machine
from isoflop.core.recipe import from_dict, to_dict
from isoflop.data import pii
from isoflop.data.annotated import Annotated, AnnotatedWriter
from isoflop.data.clean_recipe import CleanConfig, PIIName, SpellingConfig
from isoflop.data.documents import Document, InputSplit, Skipped
from isoflop.data.language import UNKNOWN, identify
from isoflop.data.model_filters import CLASSIFIER_SCORE, PERPLEXITY, ModelScores, fingerprints
from isoflop.data.normalise import Normaliser
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.signals import SIGNALS, Measurer
from isoflop.data.sources import plan_inputs, read_split
from isoflop.data.toxicity import read_word_lists

_INDEX = "index.json"
# Work is cut into about this many pieces, of sizes between these; none depends on the workers.
_PIECES = 64
_MIN_PIECE_BYTES, _MAX_PIECE_BYTES = 1 << 20, 1 << 25


@dataclass(frozen=True)
class Annotations:
    """A finished directory of annotated documents."""

    directory: Path
    documents: int


@dataclass(frozen=True)
class MeasureConfig:
    """What of a recipe decides the annotations: the spelling, and what is measured."""

    spelling: SpellingConfig
    kinds: tuple[PIIName, ...]
    lists: tuple[Path, ...]
    identify: bool
    measure: bool
    count_pii: bool
    perplexity: Path | None
    classifier: Path | None

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that documents may get."""
        parts = {
            "language_score": self.identify,
            "toxic_matches": bool(self.lists),
            "pii": self.count_pii,
            PERPLEXITY: self.perplexity is not None,
            CLASSIFIER_SCORE: self.classifier is not None,
        }
        quality = SIGNALS if self.measure else ()
        return (*quality, *(name for name, on in parts.items() if on))


def measure_config(clean: CleanConfig, everything: bool = False) -> MeasureConfig:
    """What a recipe's rules need to be measured, or all there is."""
    return MeasureConfig(
        spelling=clean.spelling,
        kinds=clean.pii.kinds,
        lists=tuple(path.absolute() for path in clean.toxicity.lists),
        identify=everything or clean.language.on or clean.quality.on,
        measure=everything or clean.quality.on,
        count_pii=everything or clean.pii.action != "keep",
        perplexity=clean.perplexity.model and clean.perplexity.model.absolute(),
        classifier=clean.classifier.model and clean.classifier.model.absolute(),
    )


class Annotator:
    """Spells and measures one document after another.

    Raises:
        RecipeError: A package that the recipe needs is not installed.
        DataError: A word list cannot be read.
    """

    def __init__(self, config: MeasureConfig) -> None:
        self._config = config
        self._normalise = Normaliser(config.spelling)
        self._toxic = read_word_lists(config.lists) if config.lists else None
        self._measurer = Measurer()
        self._models = ModelScores(config.perplexity, config.classifier)

    def __call__(self, document: Document) -> Annotated:
        """The document, spelled and measured."""
        config = self._config
        raw_bytes = len(document.text.encode("utf-8", "replace"))
        text = self._normalise(document.text)
        clean = replace(document, text=text)
        identified, signals = UNKNOWN, dict[str, float]()
        if config.identify and document.language == UNKNOWN and text:
            guess = identify(text)
            identified, signals["language_score"] = guess.tag, guess.score
        language = identified if document.language == UNKNOWN else document.language
        if config.measure and text and language != "code":
            unspaced = language.split("-")[0] in ("zh", "ja")
            measure = self._measurer.chinese if unspaced else self._measurer.english
            # The newline that ends every clean text is no line of the author's.
            signals |= measure(text[:-1])
        if self._toxic is not None:
            signals["toxic_matches"] = float(self._toxic.count(text))
        if text:
            signals |= self._models(text, language)
        if config.count_pii:
            signals["pii"] = float(len(pii.find(text, config.kinds)))
        return Annotated(clean, raw_bytes, identified, signals)


# --- the stage -----------------------------------------------------------------------------


@dataclass(frozen=True)
class SourcePlan:
    """A source and the pieces it is read in, in an order hashed from the seed."""

    number: int
    """Its place in the recipe."""
    source: SourceConfig
    pieces: tuple[tuple[InputSplit, ...], ...]
    """Each some megabytes."""

    def bytes_of(self, first: int, last: int) -> int:
        """Stored bytes of the pieces [first, last)."""
        return sum(split.bytes for piece in self.pieces[first:last] for split in piece)

    @property
    def bytes(self) -> int:
        """Stored bytes of all pieces."""
        return self.bytes_of(0, len(self.pieces))


def plan_source(number: int, source: SourceConfig, seed: int) -> SourcePlan:
    """Cut a source into pieces by bytes, whatever the number of workers.

    Raises:
        DataError, RecipeError: As `plan_inputs`.
    """
    splits = plan_inputs(source, seed)
    total = sum(split.bytes for split in splits)
    share = min(total, source.max_bytes or total) // _PIECES
    # A power of two, so that one more file does not shift every piece.
    target = min(max(1 << max(share, 1).bit_length(), _MIN_PIECE_BYTES), _MAX_PIECE_BYTES)
    pieces: list[tuple[InputSplit, ...]] = []
    gathered, size = list[InputSplit](), 0
    for split in splits:
        gathered.append(split)
        size += split.bytes
        if size >= target:
            pieces.append(tuple(gathered))
            gathered, size = [], 0
    if gathered:
        pieces.append(tuple(gathered))
    return SourcePlan(number, source, tuple(pieces))


def annotate_pieces(
    engine: Engine, plan: SourcePlan, first: int, last: int, config: MeasureConfig
) -> list[Output]:
    """Read, spell and measure the pieces [first, last) of a source."""
    source = plan.source
    if source.path is not None:
        source = replace(source, path=source.path.absolute())
    if source.documents is not None or source.kind != "word-problems":
        source = replace(source, max_bytes=None)  # it decides what is kept, not what is read
    parameters = {
        "source": to_dict(source),
        "measure": to_dict(config),
        "lists": [path.read_text("utf-8-sig") for path in config.lists],
        "models": fingerprints(config.perplexity, config.classifier),
    }
    pieces = [
        Piece(
            f"{plan.number:03d}-{number:06d}",
            [asdict(split) for split in plan.pieces[number]],
            bytes=plan.bytes_of(number, number + 1),
        )
        for number in range(first, last)
    ]
    return engine.map("read", annotate_piece, pieces, parameters)


def annotate_piece(work: Work) -> dict[str, Any]:
    """The task: the documents of some splits, annotated, and what was skipped."""
    source = from_dict(SourceConfig, work.parameters["source"], "source")
    config = from_dict(MeasureConfig, work.parameters["measure"], "measure")
    annotator = Annotator(config)
    with AnnotatedWriter(work.out, config.signals) as writer:
        for value in work.value:
            split = InputSplit(**value)
            work.place = f"source `{source.label}`, {split.identity}"
            for item in read_split(source, split):
                if isinstance(item, Skipped):
                    writer.skip(item)
                    continue
                work.place = f"source `{source.label}`, {split.identity}, document {item.id}"
                writer.add(annotator(item))
    return {"documents": writer.documents, "bytes": writer.bytes, "skipped": writer.skipped}


# --- the command ---------------------------------------------------------------------------


def annotate(
    recipe: DataRecipe,
    out: Path,
    progress: Progress = SILENT,
    *,
    placement: str = "inline",
    keep_work: bool = False,
) -> Annotations:
    """Write every document of the recipe's sources with all its signals, for `decide` to judge.

    A source's `max_bytes` counts the text before anything is dropped.

    Args:
        placement: Where the work is done; see `core.engine.open_placement`.
        keep_work: Keep the working folder beside `out`.

    Raises:
        DataError, RecipeError: A source, a word list or a package is missing.
        ArtifactError: `out` exists and is not an artifact.
        RunError: A worker failed or was killed again and again.
    """
    config = measure_config(recipe.clean, everything=True)
    Annotator(config)  # what it lacks is said before there is work
    plans = [plan_source(n, source, recipe.seed) for n, source in enumerate(recipe.sources)]
    total = sum(min(plan.bytes, plan.source.max_bytes or plan.bytes) for plan in plans)
    progress.start("data annotate", total / 1e6, "MB")
    before, documents, size = 0, 0, 0

    def report(stage: str, done: int, of: int) -> None:
        progress.advance((before + done) / 1e6)

    index: list[list[dict[str, Any]]] = []
    with (
        work_folder(out, keep_work) as work,
        build_directory(out) as aside,
        open_placement(placement, work, total) as place,
    ):
        engine = Engine(work, place, report)
        for plan in plans:
            outputs = _annotate_source(engine, plan, config)
            entries = [_place(aside, plan.number, n, o) for n, o in enumerate(outputs)]
            index.append(entries)
            documents += sum(output.statistics["documents"] for output in outputs)
            size += sum(output.statistics["bytes"] for output in outputs)
            before += min(plan.bytes, plan.source.max_bytes or plan.bytes)
        write_json(aside / _INDEX, index)
        write_manifest(
            aside,
            kind="annotations",
            config=_annotated_part(recipe),
            machine=machine(),
            inputs=sorted({s.path for s in recipe.sources if s.path and s.path.is_file()}),
            seed=recipe.seed,
        )
        if keep_work:
            engine.prune()
    progress.finish(f"{documents:,} documents, {size / 1e6:.1f} MB annotated")
    return Annotations(out, documents)


def _annotate_source(engine: Engine, plan: SourcePlan, config: MeasureConfig) -> list[Output]:
    """All pieces of a source, or as many as hold the text that its cap asks for."""
    cap, outputs = plan.source.max_bytes, list[Output]()
    if cap is None:
        return annotate_pieces(engine, plan, 0, len(plan.pieces), config)
    while len(outputs) < len(plan.pieces) and _text_bytes(outputs) < cap:
        last = pieces_for(plan, len(outputs), _text_bytes(outputs), cap)
        outputs += annotate_pieces(engine, plan, len(outputs), last, config)
    return outputs


def pieces_for(plan: SourcePlan, read: int, kept: int, wanted: int) -> int:
    """How many pieces of a source to read so that `wanted` bytes are kept of them.

    At least one more than the `read` ones; some more than their yield of `kept` bytes foretells,
    so that few sources need a third attempt.
    """
    stored = plan.bytes_of(0, read)
    goal = wanted if not read else 1.03 * stored * min(8.0, wanted / max(kept, 1))
    last = read + 1
    while last < len(plan.pieces) and plan.bytes_of(0, last) < goal:
        last += 1
    return min(last, len(plan.pieces))


def _text_bytes(outputs: Sequence[Output]) -> int:
    return sum(int(output.statistics["bytes"]) for output in outputs)


def _place(aside: Path, source: int, number: int, output: Output) -> dict[str, Any]:
    """Put the output of a piece into the directory of annotations; returns its entry there."""
    name = f"source_{source}/{number:06d}"
    for file in output.files:
        link_file(output.directory / file, aside / name / file)
    return {"directory": name, "statistics": output.statistics, "files": output.files}


def check_annotations(directory: Path, recipe: DataRecipe) -> list[list[Output]]:
    """The annotated pieces of each source, once it is sure that they fit a recipe.

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
    root = directory.absolute()
    return [
        [Output(root / e["directory"], e["statistics"], e["files"]) for e in entries]
        for entries in read_json(directory / _INDEX)
    ]


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
