"""What there is to read, cut into parts for workers; not for the formats themselves (`sources`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from isoflop.data import python_installation, sources
from isoflop.data.documents import Document, Skipped, order_key
from isoflop.data.recipe import SourceConfig
from isoflop.data.word_problems import word_problem

_MIN_PROBLEM_BYTES = 50
_PROBLEMS_PER_SPLIT = 5_000
_PROBLEM_BYTES = 125


@dataclass(frozen=True, slots=True)
class InputSplit:
    """A part of a source that is read from start to end by one worker."""

    identity: str
    location: str
    bytes: int
    start: int = 0
    stop: int | None = None
    stamp: str = ""
    seed: int = 0


def plan_inputs(source: SourceConfig, seed: int) -> list[InputSplit]:
    """The parts of a source in an order hashed from the seed and their names.

    Raises:
        DataError: The path holds no file of this kind.
    """
    if source.kind == "word-problems":
        count = source.documents
        if count is None:
            count = 2 * (source.max_bytes or 0) // _MIN_PROBLEM_BYTES + 1
        bounds = [*range(0, count, _PROBLEMS_PER_SPLIT), count]
        return [
            InputSplit(f"{a}", "", _PROBLEM_BYTES * (b - a), a, b, seed=seed)
            for a, b in pairwise(bounds)
        ]
    if source.kind == "python":
        found = sorted(
            python_installation._files(),
            key=lambda f: (not python_installation._is_prose(f[0]), order_key(seed, f[0])),
        )
    else:
        found = sources._files(source, seed)
    return [_split(identity, path, seed) for identity, path in found]


def read_split(source: SourceConfig, split: InputSplit) -> Iterator[Document | Skipped]:
    """The documents of one part, in the order of the file."""
    path = Path(split.location)
    if source.kind == "word-problems":
        for index in range(split.start, split.stop or 0):
            text, language = word_problem(split.seed, index)
            yield Document(f"{split.seed}/{index}", text, source.label, language)
    elif source.kind == "python":
        if split.identity.endswith("pydoc_data/topics.py"):
            yield from python_installation._topics(source.label, split.identity, path)
        elif python_installation._is_prose(split.identity):
            yield python_installation._description(source.label, split.identity, path)
        else:
            yield python_installation._module(source.label, split.seed, split.identity, path)
    else:
        read = {
            "text": sources._read_text,
            "jsonl": sources._read_jsonl,
            "parquet": sources._read_parquet,
        }[source.kind]
        yield from read(source, split.identity, path)


def _split(identity: str, path: Path, seed: int) -> InputSplit:
    try:
        status = path.stat()
    except OSError:
        return InputSplit(identity, str(path), 0, seed=seed)
    stamp = f"{status.st_size}:{status.st_mtime_ns}"
    return InputSplit(identity, str(path), status.st_size, stamp=stamp, seed=seed)
