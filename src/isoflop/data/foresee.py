"""What `isoflop data build` will take: from the size of its files; reads none of them."""

from __future__ import annotations

import glob
from pathlib import Path

from isoflop.core.foresight import Foresight, Span
from isoflop.core.hardware import usable_cores
from isoflop.data.recipe import DataRecipe, SourceConfig

BYTES_PER_SECOND = 8e6
"""A core reads, cleans and compares plain text at about this rate; benchmarks/data_engine.py."""
FASTEST, SLOWEST = 2.0, 4.0
"""Factors: without near duplicates and rules, and with all of them on HTML."""
UNPACKED = {".gz": 4.0, ".bz2": 5.0, ".zst": 4.0, ".parquet": 2.5}
"""Text per stored byte."""
DISK_SHARE = 1.2
"""Of the text: the corpus, compressed, and the finished tasks kept until it is whole."""
_WORKER_BYTES = 400_000_000
_CHARACTERS_PER_PROBLEM = 250


def foresee(recipe: DataRecipe) -> Foresight:
    """Size the sources, and divide by what a core gets through."""
    sizes = {source.label: _text_bytes(source) for source in recipe.sources}
    unknown = [label for label, size in sizes.items() if size is None]
    total = sum(size for size in sizes.values() if size is not None)
    cores = usable_cores()
    seconds = total / BYTES_PER_SECOND / cores
    span = None if unknown else Span(seconds, seconds / FASTEST, seconds * SLOWEST)
    basis = [
        f"about {total / 1e6:,.1f} MB of text in {len(sizes) - len(unknown)} sources, at "
        f"{BYTES_PER_SECOND / 1e6:g} MB a second and core (not measured here), {cores} cores"
    ]
    if unknown:
        basis.append(f"how much there is cannot be told before it is read: {', '.join(unknown)}")
    return Foresight(
        span,
        cores * _WORKER_BYTES,
        None if unknown else round(DISK_SHARE * total),
        tuple(basis),
    )


def _text_bytes(source: SourceConfig) -> int | None:
    """Bytes of text of a source; None where only reading tells."""
    cap = source.max_bytes
    if source.kind == "word-problems" and source.documents is not None:
        return source.documents * _CHARACTERS_PER_PROBLEM
    if source.path is None:
        return cap
    files = _files(source.path)
    size = round(sum(UNPACKED.get(file.suffix, 1.0) * file.stat().st_size for file in files))
    return size if cap is None else min(size, cap)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    if path.is_file():
        return [path]
    return [Path(found) for found in glob.glob(str(path), recursive=True) if Path(found).is_file()]
