"""From directories of alignment, compression and serving to values; draws nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from isoflop.core.artifact import read_json
from isoflop.core.errors import ArtifactError
from isoflop.reporting import lines
from isoflop.reporting.inventory.identify import stage_of
from isoflop.reporting.stage_records import (
    Aligned,
    Compressed,
    Exchange,
    Figure,
    Latency,
    Pair,
    Score,
    Served,
)

ALIGNED = ("sft", "reward", "dpo", "ppo", "grpo")
MOST_PAIRS, _CHARACTERS, _MOST_POINTS = 6, 600, 200
_QUANTILES = (0.5, 0.9, 0.99)
Note = Callable[[str], None]


def alignment_stage(run: Path) -> str:
    """`sft`, `reward`, `dpo`, `ppo` or `grpo` where the run is one; empty otherwise."""
    config = run / "config.json"
    raw = read_json(config) if config.is_file() else {}
    recipe = raw.get("recipe") if isinstance(raw, dict) else None
    stage = stage_of(recipe) if isinstance(recipe, dict) else ""
    return stage if stage in ALIGNED else ""


def read_aligned(run: Path, stage: str, note: Note) -> Aligned:
    """What a run of alignment came to.

    Raises:
        ArtifactError: A file of it is damaged.
    """
    result = read_json(run / "result.json") if (run / "result.json").is_file() else {}
    forecast = read_json(run / "forecast.json") if (run / "forecast.json").is_file() else {}
    points = sorted(
        (float(p["kl"]), float(p["reward"])) for p in forecast.get("frontier", ()) if "kl" in p
    )
    if points and isinstance(forecast.get("reward"), int | float):
        points.insert(0, (0.0, float(forecast["reward"])))  # the reference itself
    return Aligned(
        run.resolve().name,
        stage,
        _figures(result),
        _path(run, note),
        tuple(points),
        _pairs(run, note),
    )


_BEFORE_AFTER = (
    ("held-out prompts answered right", "exact_match_start", "exact_match", True),
    ("held-out reward", "reward_start", "reward", False),
    ("bits per byte of text it knew", "bits_per_byte_before", "bits_per_byte", False),
    ("held-out loss", "", "loss", False),
    ("held-out pairs ordered right", "", "accuracy", True),
    ("mean margin of held-out pairs", "", "margin", False),
    ("divergence from the reference, nats per answer", "", "kl", False),
)


def _figures(result: Mapping[str, Any]) -> tuple[Figure, ...]:
    found = []
    for name, before, after, share in _BEFORE_AFTER:
        ended = _number(result.get(after))
        if ended is not None:
            found.append(Figure(name, _number(result.get(before)), ended, share))
    return tuple(found)


def _path(run: Path, note: Note) -> tuple[tuple[float, float], ...]:
    log = run / "metrics.jsonl"
    if not log.is_file():
        return ()
    rows = [row for _, row in lines.json_lines(log, note) if "kl" in row and "reward" in row]
    points = [(_number(row["kl"]), _number(row["reward"])) for row in rows]
    known = [(kl, reward) for kl, reward in points if kl is not None and reward is not None]
    return tuple(known[:: max(1, math.ceil(len(known) / _MOST_POINTS))])


def _pairs(run: Path, note: Note) -> tuple[Pair, ...]:
    """The first and the last answer to each prompt that was asked more than once."""
    log = run / "samples.jsonl"
    if not log.is_file():
        return ()
    answers: dict[str, list[str]] = {}
    for number, row in lines.json_lines(log, note):
        prompt, written = row.get("prompt"), row.get("text")
        if not isinstance(prompt, str) or not isinstance(written, str):
            raise ArtifactError("`prompt` and `text` must be words", where=f"{log}:{number}")
        answers.setdefault(prompt, []).append(written)
    pairs = [
        Pair(prompt[:_CHARACTERS], said[0][:_CHARACTERS], said[-1][:_CHARACTERS])
        for prompt, said in answers.items()
        if len(said) > 1
    ]
    return tuple(pairs[:MOST_PAIRS])


def is_compressed(directory: Path) -> bool:
    """Whether a directory is a model that `isoflop compress` wrote."""
    path = directory / "result.json"
    raw = read_json(path) if path.is_file() else None
    return isinstance(raw, dict) and {"measured", "foretold", "bytes_full"} <= set(raw)


def read_compressed(directory: Path) -> Compressed:
    """What a compressed model lost, from its `result.json`.

    Raises:
        ArtifactError: The file is damaged.
    """
    path = directory / "result.json"
    raw = read_json(path)
    try:
        measured, config = raw["measured"], raw["config"]
        full = float(measured["bits_per_byte_full"])
        promise = next(p for p in raw["promises"] if p["quantity"] == "bits_per_byte_added")
        per = 100 / full
        return Compressed(
            name=directory.resolve().name,
            method=_method(config),
            size_percent=100 * raw["bytes"] / raw["bytes_full"],
            added_percent=per * (float(measured["bits_per_byte"]) - full),
            low=per * promise["low"],
            high=per * promise["high"],
            held=promise["held"],
            flipped=float(measured["flipped"]),
        )
    except (KeyError, TypeError, StopIteration, ZeroDivisionError) as error:
        raise ArtifactError(
            f"this is not what `isoflop compress` writes: {type(error).__name__} {error}",
            where=str(path),
        ) from None


def _method(config: Mapping[str, Any]) -> str:
    name = str(config["method"])
    if name == "gptq":
        return f"gptq, {config['bits']} bits"
    if name in ("magnitude", "wanda"):
        return f"{name}, {100 * config['sparsity']:g} %"
    return name


_HISTOGRAMS = {
    "e2e_request_latency_seconds": "whole answer",
    "request_latency_seconds": "whole answer",
    "time_to_first_token_seconds": "time to the first token",
    "inter_token_latency_seconds": "time between tokens",
    "time_per_output_token_seconds": "time between tokens",
    "request_queue_time_seconds": "waiting",
}
_LINE = re.compile(r"^isoflop:(\w+?)(_bucket|_count|_total)?(?:\{(.*)\})? ([0-9.eE+-]+|\+Inf|NaN)$")


def read_served(path: Path) -> Served | None:
    """A server's metrics as its `/metrics` said them; None where the text is another's."""
    buckets: dict[str, list[tuple[float, float]]] = {}
    counts: dict[str, float] = {}
    counters: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        name, part, labels, value = found[1], found[2], found[3] or "", float(found[4])
        end = re.search(r'le="([^"]+)"', labels)
        if part == "_bucket" and end:
            buckets.setdefault(name, []).append((float(end[1]), value))
        elif part == "_count":
            counts[name] = value
        elif part == "_total":
            counters[name] = counters.get(name, 0.0) + value
    if not (buckets or counters):
        return None
    latencies = tuple(
        Latency(_HISTOGRAMS.get(name, name.replace("_", " ")), int(counts.get(name, 0)),
                _quantiles(found, counts.get(name, 0)))
        for name, found in buckets.items()
        if counts.get(name, 0) > 0
    )  # fmt: skip
    return Served(path.stem, latencies, tuple(sorted(counters.items())))


def _quantiles(buckets: list[tuple[float, float]], count: float) -> tuple[tuple[float, float], ...]:
    """The upper end of the bucket that holds each quantile: never better than the truth."""
    ordered = sorted(buckets)
    return tuple(
        (share, next((end for end, below in ordered if below >= share * count), math.inf))
        for share in _QUANTILES
    )


def read_exchanges(path: Path) -> tuple[Exchange, ...]:
    """What a server was asked and said, as `isoflop demo` notes it.

    Raises:
        ArtifactError: The file is damaged.
    """
    try:
        return tuple(
            Exchange(**{**each, "calls": tuple((name, said) for name, said in each["calls"])})
            for each in read_json(path)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"these are no exchanges: {error}", where=str(path)) from None


def read_scores(path: Path) -> tuple[Score, ...]:
    """What a model scored, from the `results.json` of `isoflop eval`.

    Raises:
        ArtifactError: The file is damaged.
    """
    try:
        return tuple(
            Score(
                name, str(each["metric"]), float(each["score"]), _number(each["low"]),
                _number(each["high"]), _number(each["chance"]), int(each["n"]),
            )
            for name, each in read_json(path).items()
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"these are no scores: {error}", where=str(path)) from None


def _number(value: object) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable and math.isfinite(float(value)) else None  # type: ignore[arg-type]
