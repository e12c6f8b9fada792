"""From directories and files on disk to a `Report`: finds what is there and reads it.

Not for judging or drawing. A missing part is an absent section; a damaged one is an error.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from isoflop.core.artifact import MANIFEST, read_json, read_manifest, sha256_file
from isoflop.core.errors import ArtifactError
from isoflop.core.ledger import Promise
from isoflop.reporting import lines
from isoflop.reporting.abilities import read_abilities
from isoflop.reporting.flight import flights
from isoflop.reporting.foretell import foretell
from isoflop.reporting.inventory.commands import made_by
from isoflop.reporting.inventory.identify import identify
from isoflop.reporting.ledgers import read_ledgers
from isoflop.reporting.locate import Found, locate
from isoflop.reporting.mishaps import read_marks
from isoflop.reporting.records import (
    Artifact,
    Cost,
    Curve,
    Funnel,
    FunnelRow,
    Lineage,
    Report,
    Rung,
    Sample,
    Stage,
    Target,
    Verdict,
)
from isoflop.reporting.stage_read import (
    read_aligned,
    read_compressed,
    read_exchanges,
    read_scores,
    read_served,
)

Note = Callable[[str], None]
# One page stays under 500 kB whatever the run logged.
_SAMPLE_CHARACTERS = 2_000
_SAMPLES_PER_STEP = 12


def collect(paths: Sequence[Path]) -> Report:
    """Read everything a report can show from demo, ladder and run directories, laws and ledgers.

    Args:
        paths: Directories, or `law.json`, `ledger.jsonl` and `runs.csv` files, in any order.

    Raises:
        ArtifactError: A path holds nothing to report on, or a file is damaged (with its line).
    """
    found = locate(paths)
    notes: list[str] = []
    summary = _summary(found.summary)
    promises, tallies, head = read_ledgers(found.ledgers, notes.append)
    verdict, target = _verdict(summary, found.summary, promises)
    rungs = tuple(r for table in found.tables for r in _rungs(table, notes.append))
    curves, target_cost, losses = _curves(found, rungs, target, notes.append)
    level = verdict.level if verdict else 0.9
    law = None
    if found.law is not None:
        told = foretell(found.law, rungs, curves, target, level)
        law, rungs, curves = told.law, told.rungs, told.curves
    lineage, created = _lineage(found, summary)
    return Report(
        title=f"Report on {', '.join(p.resolve().name for p in paths)}",
        created=created,
        verdict=verdict,
        target=target,
        rungs=rungs,
        curves=curves,
        fans=flights(found.runs, losses, verdict, level),
        law=law,
        promises=promises,
        tallies=tallies,
        ledger_head=head,
        abilities=None if found.abilities is None else read_abilities(found.abilities),
        samples=_samples(found, notes.append),
        cost=_cost(summary, rungs, target_cost),
        funnel=_funnel(found.funnel),
        lineage=lineage,
        aligned=tuple(read_aligned(run, stage, notes.append) for run, stage in found.aligned),
        compressed=tuple(map(read_compressed, found.compressed)),
        exchanges=() if found.exchanges is None else read_exchanges(found.exchanges),
        scores=() if found.scores is None else read_scores(found.scores),
        served=tuple(s for path in found.served if (s := read_served(path)) is not None),
        seconds=_number(summary, "seconds"),
        promised_seconds=_number(summary, "promised_seconds"),
        notes=tuple(notes),
    )


# --- promise and outcome -------------------------------------------------------------------


def _summary(path: Path | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    raw = read_json(path)
    if not isinstance(raw, dict):
        raise ArtifactError("the file holds no JSON object", where=str(path))
    return raw


def _number(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(float(value)) else None  # type: ignore[arg-type]


def _verdict(
    summary: Mapping[str, Any], path: Path | None, promises: Sequence[Promise]
) -> tuple[Verdict | None, Target | None]:
    """The promise of the loss from the summary, else from the ledger."""
    target = None
    if isinstance(summary.get("target"), dict):
        sizes = {key: _number(summary["target"], key) for key in ("params", "tokens", "flops")}
        absent = [key for key, value in sizes.items() if value is None or value <= 0]
        if absent:
            raise ArtifactError(
                f"`target` needs a positive {' and '.join(absent)}", where=str(path)
            )
        target = Target(**{key: value or 0.0 for key, value in sizes.items()})
    if isinstance(summary.get("promise"), dict):
        said = {k: _number(summary["promise"], k) for k in ("value", "low", "high", "level")}
        absent = [key for key, value in said.items() if value is None]
        if absent:
            raise ArtifactError(f"`promise` has no number {', '.join(absent)}", where=str(path))
        value, low, high, level = (number or 0.0 for number in said.values())
        return Verdict(value, low, high, level, outcome=_number(summary, "outcome")), target
    for promise in promises:
        if promise.quantity == "loss":
            interval = (promise.value, promise.low, promise.high, promise.level)
            return Verdict(*interval, outcome=promise.outcome, unit=promise.unit), target
    return None, target


# --- runs ----------------------------------------------------------------------------------


def _rungs(path: Path, note: Note) -> list[Rung]:
    rungs = []
    left_out = []
    for line, row in lines.table_rows(path):
        where = f"{path}:{line}"
        for name in ("params", "tokens", "loss"):
            if name not in row:
                raise ArtifactError(f"the table has no column {name!r}", where=str(path))
        value = {name: _cell(row, name, where) for name in row if name in _NUMERIC}
        params, tokens, loss = (value[name] for name in ("params", "tokens", "loss"))
        if not (params and tokens and loss and min(params, tokens, loss) > 0):
            left_out.append(row.get("run_id") or f"line {line}")
            continue
        rungs.append(
            Rung(
                run_id=row.get("run_id") or f"line {line}",
                params=params,
                tokens=tokens,
                loss=loss,
                flops=value.get("flops") or 6 * params * tokens,
                bits_per_byte=value.get("bits_per_byte"),
                learning_rate=value.get("learning_rate"),
                batch_tokens=value.get("batch_tokens"),
                seconds=value.get("seconds"),
                schedule=row.get("schedule", ""),
            )
        )
    if left_out:
        note(f"{path.name}: without a usable loss and left out: {', '.join(left_out)}")
    return rungs


_NUMERIC = {
    "params",
    "tokens",
    "loss",
    "flops",
    "bits_per_byte",
    "learning_rate",
    "batch_tokens",
    "seconds",
}


def _cell(row: Mapping[str, str], name: str, where: str) -> float | None:
    """The number in a cell; None for an empty one or one that is not finite."""
    written = row[name].strip()
    if not written:
        return None
    try:
        value = float(written)
    except ValueError:
        raise ArtifactError(f"{name} is {written!r}, not a number", where=where) from None
    return value if math.isfinite(value) else None


def _curves(
    found: Found, rungs: Sequence[Rung], target: Target | None, note: Note
) -> tuple[tuple[Curve, ...], Stage | None, dict[Path, Mapping[float, float]]]:
    """The loss curve of every run, what the target's training cost, and losses by run and step."""
    losses: dict[Path, Mapping[float, float]] = {}
    params = {r.run_id: r.params for r in rungs}
    curves = []
    target_cost = None
    alone = len(found.runs) == 1
    # More runs share the same page: fewer points each.
    each = max(16, min(80, 4000 // max(1, len(found.runs))))
    for directory, is_target in found.runs:
        metrics = lines.Metrics((), 0, 0, math.nan, math.nan, math.nan, {})
        if (directory / "metrics.jsonl").is_file():
            most = lines.MAX_POINTS if is_target or alone else each
            metrics = lines.read_metrics(directory / "metrics.jsonl", note, most)
        losses[directory] = metrics.losses
        if metrics.not_finite:
            note(f"{directory.name}: {metrics.not_finite:,} logged losses are not finite")
        held_out = _evaluations(directory / "evals.jsonl", note)
        size = target.params if is_target and target else params.get(directory.name)
        marks = read_marks(directory, partial(operator.mul, metrics.tokens_per_step), note)
        curves.append(
            Curve(
                directory.name,
                size,
                is_target,
                metrics.points,
                held_out,
                metrics.lines,
                marks=marks,
            )
        )
        if is_target and math.isfinite(metrics.seconds):
            flops = metrics.flops if math.isfinite(metrics.flops) else None
            target_cost = Stage("target", metrics.seconds, flops=flops)
    return tuple(curves), target_cost, losses


def _evaluations(path: Path, note: Note) -> tuple[tuple[float, float], ...]:
    if not path.is_file():
        return ()
    points = []
    for line, row in lines.json_lines(path, note):
        where = f"{path}:{line}"
        tokens = lines.number_at(row, "tokens", where)
        loss = lines.number_at(row, "loss", where)
        if tokens > 0 and math.isfinite(loss):
            points.append((tokens, loss))
    return tuple(points)


def _samples(found: Found, note: Note) -> tuple[Sample, ...]:
    samples = []
    files = [directory / "samples.jsonl" for directory, _ in found.runs]
    for path in (f for f in files if f.is_file()):
        for line, row in lines.json_lines(path, note):
            where = f"{path}:{line}"
            prompt, written = row.get("prompt"), row.get("text")
            if not isinstance(prompt, str) or not isinstance(written, str):
                raise ArtifactError("`prompt` and `text` must be words", where=where)
            step = int(lines.number_at(row, "step", where))
            tokens = lines.number_at(row, "tokens", where)
            samples.append(Sample(step, tokens, _clip(prompt), _clip(written)))
    return _chosen(samples)


def _clip(written: str) -> str:
    rest = len(written) - _SAMPLE_CHARACTERS
    return written if rest <= 0 else f"{written[:_SAMPLE_CHARACTERS]} … ({rest:,} characters more)"


def _chosen(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    """The samples of the first, a middle and the last step, a dozen of each at most."""
    steps = sorted({s.step for s in samples})
    picked = {steps[0], steps[len(steps) // 2], steps[-1]} if steps else set()
    return tuple(
        sample
        for step in sorted(picked)
        for sample in [s for s in samples if s.step == step][:_SAMPLES_PER_STEP]
    )


# --- cost, data, lineage -------------------------------------------------------------------


def _cost(summary: Mapping[str, Any], rungs: Sequence[Rung], target: Stage | None) -> Cost | None:
    """Stages as the summary lists them, else ladder and target from their own records."""
    listed = summary.get("stages")
    if isinstance(listed, list):
        stages = [
            Stage(
                str(s.get("name", "stage")),
                _number(s, "seconds") or 0.0,
                _number(s, "promised_seconds"),
                _number(s, "flops"),
            )
            for s in listed
            if isinstance(s, dict)
        ]
    else:
        stages = [target] if target else []
        if rungs and all(r.seconds is not None for r in rungs):
            spent = sum(r.seconds or 0.0 for r in rungs)
            stages.insert(0, Stage("ladder", spent, flops=sum(r.flops for r in rungs)))
    return Cost(tuple(stages), _number(summary, "peak_gflops")) if stages else None


def _funnel(path: Path | None) -> Funnel | None:
    if path is None:
        return None
    raw = read_json(path)
    try:
        return Funnel(
            documents_in=int(raw["in"]["documents"]),
            bytes_in=int(raw["in"]["bytes"]),
            dropped=tuple(_fate(name, row) for name, row in raw["dropped"].items()),
            kept=tuple(_fate(name, row["kept"]) for name, row in raw["sources"].items()),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"this is not the account of a corpus: {type(error).__name__} {error}",
            where=str(path),
            fix="Build the corpus again with this version",
        ) from None


def _fate(name: str, row: Mapping[str, Any]) -> FunnelRow:
    examples = tuple(str(e) for e in row.get("examples", ()))
    return FunnelRow(name, int(row["documents"]), int(row["bytes"]), examples)


def _lineage(found: Found, summary: Mapping[str, Any]) -> tuple[Lineage | None, str]:
    """Where it came from, and when its newest artifact was finished."""
    manifests = [(name, d, read_manifest(d)) for name, d in found.artifacts]
    artifacts = tuple(
        Artifact(
            name,
            manifest.kind,
            manifest.created,
            sha256_file(directory / MANIFEST),
            tuple(Path(i["path"]).name for i in manifest.inputs),
            tuple(command.line for command in made_by(identify(directory))),
        )
        for name, directory, manifest in manifests
    )
    given = summary.get("machine")
    machine = given if isinstance(given, dict) else {}
    for _, _, manifest in manifests:
        machine = machine or manifest.machine
    command = summary.get("command")
    if not isinstance(command, str):
        seed = summary.get("seed")
        command = f"isoflop demo --seed {seed}" if seed is not None else ""
    created = max((a.created for a in artifacts), default=str(summary.get("created", "")))
    if not (artifacts or machine or command):
        return None, created
    words = {str(key): _words(value) for key, value in machine.items()}
    return Lineage(command, artifacts, words, summary.get("seed")), created


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(v)}" for key, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return str(value)
