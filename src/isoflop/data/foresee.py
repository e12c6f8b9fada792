"""What `data build`, `tokenizer train` and `tokenize` will take, from the size of their input.

Reads none of it: rates are those that benchmarks measured, not this machine's.
"""

from __future__ import annotations

import glob
from pathlib import Path

from isoflop.core.foresight import Foresight, Span
from isoflop.core.hardware import usable_cores
from isoflop.data.choose import SPLITS
from isoflop.data.corpus import Corpus
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.tokenizer import SAMPLE_BYTES, UNIGRAM_SAMPLE_BYTES, ModelName

BYTES_PER_SECOND = 8e6
"""A core reads, cleans and compares plain text at about this rate; benchmarks/data_engine.py."""
FASTEST, SLOWEST = 2.0, 4.0
"""Factors: without near duplicates and rules, and with all of them on HTML."""
UNPACKED = {".gz": 4.0, ".bz2": 5.0, ".zst": 4.0, ".parquet": 2.5}
"""Text per stored byte."""
LEARN_BYTES_PER_SECOND: dict[ModelName, float] = {"bpe": 4.6e6, "unigram": 0.15e6}
"""Text that a tokenizer is trained on in a second; benchmarks/data_tokenizer.py."""
ENCODE_BYTES_PER_SECOND = 8e6
"""Of a core; benchmarks/data_tokenizer.py."""
BYTES_PER_TOKEN = 2.5
"""Of text, by a vocabulary of a thousand; larger ones save more."""
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


def foresee_tokenizer(corpus: Corpus, model: ModelName) -> Foresight:
    """Divide the sample that it is trained on by the rate at which it is learnt."""
    most = SAMPLE_BYTES if model == "bpe" else UNIGRAM_SAMPLE_BYTES
    size = min(most, corpus.split_bytes("train"))
    seconds = size / LEARN_BYTES_PER_SECOND[model]
    return Foresight(
        Span(seconds, seconds / FASTEST, seconds * SLOWEST),
        _WORKER_BYTES + 30 * size,
        5_000_000,
        (
            f"{size / 1e6:,.1f} MB of text at {LEARN_BYTES_PER_SECOND[model] / 1e6:g} MB a second "
            "(not measured here)",
        ),
    )


def foresee_tokenize(corpus: Corpus, vocab_size: int) -> Foresight:
    """Divide the corpus by what a core encodes."""
    total, cores = sum(corpus.split_bytes(split) for split in SPLITS), usable_cores()
    seconds = total / ENCODE_BYTES_PER_SECOND / cores
    width = 2 if vocab_size <= 1 << 16 else 4
    return Foresight(
        Span(seconds, seconds / FASTEST, seconds * SLOWEST),
        cores * _WORKER_BYTES,
        2 * round(total / BYTES_PER_TOKEN) * width,  # the finished tasks, and the shards
        (
            f"{total / 1e6:,.1f} MB of text at {ENCODE_BYTES_PER_SECOND / 1e6:g} MB a second and "
            f"core (not measured here), {cores} cores; {width} bytes a token",
        ),
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
