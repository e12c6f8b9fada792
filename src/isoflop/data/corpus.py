"""From a recipe to a clean, split corpus on disk, with an account of all that was dropped.

Not for the work of the single stages: reading and measuring (`annotate`), deciding (`judge`),
evaluation items (`leaks`), duplicates (`duplicate_stages`), caps and splits (`choose`), writing
(`parts`), the account (`funnel`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from isoflop.core.engine import Engine, Output, open_placement, work_folder
from isoflop.core.errors import ArtifactError, DataError
from isoflop.core.hardware import machine
from isoflop.core.recipe import to_dict
from isoflop.data.annotate import (
    Annotator,
    MeasureConfig,
    SourcePlan,
    annotate_pieces,
    check_annotations,
    measure_config,
    pieces_for,
    plan_source,
)
from isoflop.data.choose import SPLITS, choose
from isoflop.data.decide import Decider
from isoflop.data.decontaminate import EvaluationIndex, read_evaluation_index
from isoflop.data.duplicate_index import open_index
from isoflop.data.duplicate_stages import Settled, drop_duplicates, remember_kept
from isoflop.data.funnel import account
from isoflop.data.judge import Shard, judge
from isoflop.data.leaks import contamination, keep_out
from isoflop.data.parts import part_paths, write_parts
from isoflop.data.recipe import DataRecipe
from isoflop.data.why import write_signals

# What the stages take, for the progress; reading and measuring is most of it.
_STAGES = {
    "read": 0.6, "judge": 0.06, "leaks": 0.03, "keys": 0.04, "signatures": 0.06, "known": 0.01,
    "texts": 0.005, "urls": 0.005, "lines": 0.01, "exact": 0.005, "bands": 0.01, "pairs": 0.01,
    "edges": 0.005, "shingles": 0.01, "near": 0.01, "copies": 0.01, "fingerprints": 0.02,
    "passages": 0.005, "windows": 0.01, "repeats": 0.005, "cut": 0.01, "choose": 0.01,
    "write": 0.04, "signals": 0.01, "account": 0.01,
}  # fmt: skip


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
        for path in part_paths(split_path(self.directory, split)):
            yield from read_row_groups(path, columns)

    def split_bytes(self, split: str) -> int:
        """Bytes of UTF-8 text in a split."""
        return int(self.funnel["splits"][split]["bytes"])


def split_path(directory: Path, split: str) -> Path:
    """The Parquet file of a split, or the first of several (`parts.part_paths`)."""
    return directory / split / "documents.parquet"


def read_row_groups(
    path: Path, columns: list[str], numbers: Sequence[int] | None = None
) -> Iterator[pa.Table]:
    """Chosen columns of some row groups of a file of documents, or of all.

    Raises:
        ArtifactError: The file is missing or damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for index in range(file.num_row_groups) if numbers is None else numbers:
                yield file.read_row_group(index, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise ArtifactError(
            f"the documents cannot be read: {error}",
            where=str(path),
            fix="Build the corpus again with `isoflop data build`",
        ) from None


def build(
    recipe: DataRecipe,
    out: Path,
    progress: Progress = SILENT,
    annotations: Path | None = None,
    *,
    placement: str = "inline",
    keep_work: bool = False,
    remember: Path | None = None,
) -> Corpus:
    """Read the sources, clean, keep evaluation items and duplicates out, split, write `out`.

    The files are a pure function of the recipe and of what the sources hold, whatever the
    placement. An interrupted build continues from the tasks it finished.

    Args:
        annotations: What `annotate` wrote with the same sources and spelling: the sources are not
            read again, and only the recipe's decisions are taken.
        placement: Where the work is done: `inline`, `processes:2`, `ray`, `slurm`, `auto`; see
            `core.engine.open_placement`.
        keep_work: Keep the working folder beside `out`, so that a build with other thresholds
            repeats only what they change.
        remember: Once the corpus stands, write an index of its documents here, or add them to the
            one that stands there, for `duplicates.index` of later recipes.

    Raises:
        DataError: A source or a split ends up without any document, the annotations are of
            another recipe, or an evaluation set cannot be read.
        RecipeError: A package that the recipe needs is not installed.
        ArtifactError: `out` or `remember` exists and is not an artifact; an index cannot be read.
        RunError: A worker failed or was killed again and again.
    """
    index = _refuse_early(recipe, remember)
    measured = None if annotations is None else check_annotations(annotations, recipe)
    if measured is None:
        measure = measure_config(recipe.clean)
        Annotator(measure)  # and so is what is not installed
        plans = [plan_source(n, source, recipe.seed) for n, source in enumerate(recipe.sources)]
        reader: _Reader = _FromSources(plans, measure)
        size = sum(min(plan.bytes, plan.source.max_bytes or plan.bytes) for plan in plans)
    else:
        reader = _FromAnnotations(measured)
        size = sum(int(piece.statistics["bytes"]) for pieces in measured for piece in pieces)
    meter = _Meter(progress, size)
    with work_folder(out, keep_work) as work, open_placement(placement, work, size) as place:
        with build_directory(out) as aside:
            engine = Engine(work, place, meter.report)
            settled, choices, leaks = _settle(engine, recipe, reader)
            shards = settled.shards
            write_parts(engine, shards, choices, aside)
            if recipe.clean.measures:
                write_signals(engine, recipe, shards, choices, aside)
            funnel = account(engine, recipe, shards, choices, aside)
            write_json(aside / "duplicates.json", settled.report())
            if index is not None:
                write_json(aside / "contamination.json", contamination(index, leaks))
            _finish(recipe, funnel, aside)
            if keep_work:
                engine.prune()
        if remember is not None:  # not before: the same command would find its own documents
            remember_kept(settled, choices, recipe.duplicates, remember)
    kept = funnel["kept"]
    progress.finish(f"{kept['documents']:,} documents, {kept['bytes'] / 1e6:.1f} MB kept")
    return Corpus(out, funnel)


def _refuse_early(recipe: DataRecipe, remember: Path | None) -> EvaluationIndex | None:
    """Say what is wrong before there is work; returns the evaluation sets of the recipe."""
    Decider(recipe.clean)
    if recipe.duplicates.index is not None:
        open_index(recipe.duplicates.index)
    if remember is not None and remember.exists():
        open_index(remember)
    return read_evaluation_index(recipe.decontaminate) if recipe.decontaminate.tasks else None


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


class _FromSources:
    """Annotated pieces of the sources, read as far as they are asked for."""

    def __init__(self, plans: list[SourcePlan], measure: MeasureConfig) -> None:
        self._plans, self._measure = plans, measure
        self._read = [0] * len(plans)

    def more(self, source: int, kept: int, wanted: int | None) -> bool:
        """Ask for more of a source, which gave `kept` bytes so far; whether there is more."""
        plan, read = self._plans[source], self._read[source]
        if read == len(plan.pieces):
            return False
        everything = len(plan.pieces)
        self._read[source] = everything if wanted is None else pieces_for(plan, read, kept, wanted)
        return True

    def pieces(self, engine: Engine, source: int) -> list[Output]:
        """What was asked for."""
        last = self._read[source]
        return annotate_pieces(engine, self._plans[source], 0, last, self._measure)


class _FromAnnotations:
    """Annotated pieces that are there already."""

    def __init__(self, pieces: list[list[Output]]) -> None:
        self._pieces = pieces
        self._asked = [False] * len(pieces)

    def more(self, source: int, kept: int, wanted: int | None) -> bool:
        asked, self._asked[source] = self._asked[source], True
        return not asked

    def pieces(self, engine: Engine, source: int) -> list[Output]:
        return self._pieces[source]


_Reader = _FromSources | _FromAnnotations


def _settle(
    engine: Engine, recipe: DataRecipe, reader: _Reader
) -> tuple[Settled, Output, list[dict[str, Any]]]:
    """Read as much of each source as its cap needs, and settle where every document goes.

    How much is read depends on the bytes that were kept, never on the workers.

    Returns:
        The duplicates, the choices, and what each shard held of evaluation sets.
    """
    sources = range(len(recipe.sources))
    caps = [source.max_bytes for source in recipe.sources]
    for source in sources:
        reader.more(source, 0, caps[source])
    while True:
        shards = [shard for source in sources for shard in _judged(engine, recipe, reader, source)]
        settled = drop_duplicates(engine, recipe, shards)
        choices = choose(engine, recipe, settled.shards, settled.fates)
        available = choices.statistics["available"]
        short = [
            (source, cap, available[source])
            for source, cap in enumerate(caps)
            if cap is not None and available[source] < cap
        ]
        more = [reader.more(source, kept, cap) for source, cap, kept in short]
        if not any(more):
            leaks = [s.judged.statistics["leaks"] for s in shards if "leaks" in s.judged.statistics]
            return settled, choices, leaks


def _judged(engine: Engine, recipe: DataRecipe, reader: _Reader, source: int) -> list[Shard]:
    """A source's documents, decided on; enough of them to reach its cap if none is a copy."""
    cap = recipe.sources[source].max_bytes
    while True:
        pieces = reader.pieces(engine, source)
        shards = judge(engine, source, pieces, recipe.clean, recipe.seed)
        shards = keep_out(engine, shards, recipe.decontaminate, recipe.seed)
        kept = sum(int(shard.judged.statistics["bytes"]) for shard in shards)
        if cap is None or kept >= cap or not reader.more(source, kept, cap):
            return shards


def _finish(recipe: DataRecipe, funnel: dict[str, Any], aside: Path) -> None:
    """Write what a corpus holds beside its documents, the manifest last."""
    _require_documents(recipe, funnel)
    config = _recipe_json(recipe)
    write_json(aside / "funnel.json", funnel)
    write_json(aside / "config.json", config)
    write_manifest(
        aside,
        kind="corpus",
        config=config,
        machine=machine(),
        inputs=sorted({s.path for s in recipe.sources if s.path and s.path.is_file()}),
        seed=recipe.seed,
    )


class _Meter:
    """One progress over all stages, in megabytes of input."""

    def __init__(self, progress: Progress, n_bytes: int) -> None:
        self._progress, self._size, self._reached = progress, n_bytes / 1e6, 0.0
        progress.start("data build", self._size, "MB")

    def report(self, stage: str, done: int, total: int) -> None:
        names = list(_STAGES)
        before = sum(_STAGES[name] for name in names[: names.index(stage)])
        share = before + _STAGES[stage] * (done / total if total else 1.0)
        # Sources come one after the other, and some again: the progress never goes back.
        self._reached = max(self._reached, share)
        self._progress.advance(self._reached * self._size, stage)


def _require_documents(recipe: DataRecipe, account: dict[str, Any]) -> None:
    for source in recipe.sources:
        part = account["sources"].get(source.label)
        if part is None or part["kept"]["documents"] == 0:
            found = 0 if part is None else part["in"]["documents"]
            reasons = ", ".join(
                f"{reason} ({drop['documents']:,})" for reason, drop in account["dropped"].items()
            )
            raise DataError(
                f"not one usable document among {found:,} found"
                + (f"; dropped, from all sources: {reasons}" if reasons else ""),
                where=f"source `{source.label}`" + (f" ({source.path})" if source.path else ""),
                fix="Check `path`, `kind` and `text_key` of this source, and the rules under "
                "[clean] that drop most",
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
    for task in value["decontaminate"]["tasks"]:
        task["path"] = Path(task["path"]).name
    index = value["duplicates"]["index"]
    value["duplicates"]["index"] = Path(index).name if index else None
    return value
