"""The perplexity filter: an n-gram model of good text, and how surprised it is by a document.

As in CCNet (Wenzek et al. 2020): trained on text to be trusted, it ranks crawled documents, and a
share of the least surprising ones is kept. Not for the model itself (`models.ngram`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoflop.core.artifact import read_json
from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import ArtifactError, DataError
from isoflop.data.clean_recipe import PerplexityConfig
from isoflop.data.corpus import Corpus
from isoflop.data.tokenizer import Tokenizer
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models import ngram
from isoflop.models.ngram import NGram
from isoflop.models.ngram_smoothing import Smoothing

SHARES = {"head": 1 / 3, "middle": 2 / 3}
"""CCNet cuts its crawl into thirds; `middle` keeps the head as well."""
_FILE = "cutoffs.json"
_ALL = "all"
_MIN_DOCUMENTS = 100
"""Fewer documents of a language than this give it no cutoffs of its own."""
_REFERENCE_BYTES = 20_000_000


@dataclass(frozen=True)
class Trained:
    """A finished filter and what it makes of its reference documents."""

    directory: Path
    order: int
    vocab_size: int
    documents: int
    """It was trained on."""
    tokens: int
    n_grams: tuple[int, ...]
    """Of each length."""
    perplexity: float
    """Per token, of the reference documents taken together."""
    bits_per_byte: float
    reference_documents: int
    cutoffs: dict[str, dict[str, float]]
    """Language (and `all`) → share of its reference documents → their greatest perplexity."""


def train(
    corpus: Corpus,
    tokenizer_dir: Path,
    out: Path,
    *,
    order: int = ngram.HIGHEST_ORDER,
    smoothing: Smoothing = "kneser-ney",
    max_bytes: int = 25_000_000,
    reference: Corpus | None = None,
    progress: Progress = SILENT,
) -> Trained:
    """Train an n-gram model on a corpus and note how perplexing it finds reference documents.

    Args:
        corpus: Text to be trusted; its training split is what the model learns.
        max_bytes: About how much of it to take, documents spread evenly over the split.
        reference: The documents whose quantiles `keep` refers to, such as a sample of the text
            to be filtered; the corpus's own held-out split when omitted.

    Raises:
        ArtifactError: The corpus or the tokenizer is missing or damaged.
        DataError: There is no text to train on or to compare with.
        RecipeError: The order is out of range.
    """
    tokenizer = load_tokenizer(tokenizer_dir)
    sample = min(max_bytes, corpus.split_bytes("train"))
    progress.start("data ngram", 2 * sample / 1e6, "MB")
    pieces: list[NDArray[np.uint32]] = []
    languages: set[str] = set()
    done = 0
    for language, text in _spread(corpus, "train", max_bytes):
        pieces.append(_ids(tokenizer, text))
        languages.add(_subtag(language))
        done += len(text.encode())
        if len(pieces) % 256 == 0:
            progress.advance(done / 1e6, "reading")
    if not pieces:
        raise DataError("there is no text to train on", where=str(corpus.directory))
    starts = np.cumsum([0, *(piece.size for piece in pieces)])
    model = ngram.train(
        np.concatenate(pieces), tokenizer.vocab_size, order, smoothing=smoothing, starts=starts
    )
    progress.advance(2 * sample / 1e6, "trained")
    judged = _judge(model, tokenizer, reference or corpus, "train" if reference else "held_out")
    where = reference.directory if reference else corpus.directory
    files = {
        _FILE: {
            "languages": sorted(languages),
            "reference": where.name,
            "documents": judged.documents,
            "quantiles": judged.quantiles,
        }
    }
    inputs = [corpus.directory, tokenizer_dir, *([reference.directory] if reference else [])]
    ngram.save(model, out, tokenizer_dir, inputs=inputs, files=files)
    progress.finish(f"{model.tokens:,} tokens, {sum(model.n_grams):,} n-grams")
    return Trained(
        directory=out,
        order=model.order,
        vocab_size=model.vocab_size,
        documents=len(pieces),
        tokens=model.tokens,
        n_grams=model.n_grams,
        perplexity=judged.perplexity,
        bits_per_byte=judged.bits_per_byte,
        reference_documents=judged.documents,
        cutoffs={
            language: {name: _at_share(table, share) for name, share in SHARES.items()}
            for language, table in judged.quantiles.items()
        },
    )


class Scorer:
    """Measures the perplexity of documents; the model stays on disk, mapped into memory.

    Raises:
        ArtifactError: The model is missing or damaged, or was not made by `train`.
    """

    def __init__(self, directory: Path) -> None:
        self._model = ngram.load(directory)
        self._tokenizer = load_tokenizer(directory / ngram.TOKENIZER)
        self._languages = frozenset(_read_cutoffs(directory)["languages"])

    def __call__(self, text: str, language: str) -> float | None:
        """Perplexity per token, the end of the text included.

        None for languages that the model was not trained on, whose text would only look strange;
        a model trained on text of unknown language (`und`) judges all.
        """
        if not ({_subtag(language), "und"} & self._languages):
            return None
        return math.exp(-float(self._model.logprobs(_ids(self._tokenizer, text)).mean()))


class Limits:
    """The greatest perplexity that a recipe lets pass, by language.

    Raises:
        ArtifactError: The model is missing or damaged.
    """

    def __init__(self, config: PerplexityConfig) -> None:
        self._max, self._share = config.max, 0.0
        self._tables: Mapping[str, list[float]] = {}
        if config.model is not None and config.keep is not None:
            self._share = SHARES[config.keep] if isinstance(config.keep, str) else config.keep
            self._tables = _read_cutoffs(config.model)["quantiles"]

    def __call__(self, language: str) -> float:
        """The limit for a language; infinite where the recipe sets none."""
        if self._max is not None:
            return self._max
        table = self._tables.get(_subtag(language)) or self._tables.get(_ALL)
        return math.inf if table is None else _at_share(table, self._share)


# --- reference documents -------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    documents: int
    perplexity: float
    bits_per_byte: float
    quantiles: dict[str, list[float]]
    """Language → 101 quantiles, at 0 %, 1 % … 100 %."""


def _judge(model: NGram, tokenizer: Tokenizer, reference: Corpus, split: str) -> _Judged:
    by_language: dict[str, list[float]] = {}
    nats = tokens = size = 0.0
    for language, text in _spread(reference, split, _REFERENCE_BYTES):
        found = model.logprobs(_ids(tokenizer, text))
        nats, tokens, size = nats - found.sum(), tokens + found.size, size + len(text.encode())
        by_language.setdefault(_subtag(language), []).append(math.exp(-found.mean()))
    everything = [value for values in by_language.values() for value in values]
    if not everything:
        raise DataError(
            "there is no document to compare with", where=f"{reference.directory} ({split})"
        )
    tables = {
        language: values
        for language, values in sorted(by_language.items())
        if len(values) >= _MIN_DOCUMENTS
    } | {_ALL: everything}
    return _Judged(
        documents=len(everything),
        perplexity=math.exp(nats / tokens),
        bits_per_byte=nats / math.log(2) / size,
        quantiles={
            language: np.quantile(values, np.linspace(0, 1, 101)).tolist()
            for language, values in tables.items()
        },
    )


def _at_share(table: list[float], share: float) -> float:
    """The perplexity that a share of the reference documents does not exceed."""
    return float(np.interp(share, np.linspace(0, 1, len(table)), table))


def _read_cutoffs(directory: Path) -> Any:
    path = directory / _FILE
    found = read_json(path)
    try:
        tables = found["quantiles"].values()
        sound = isinstance(found["languages"], list) and all(
            len(table) > 1 and table == sorted(map(float, table)) for table in tables
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise ArtifactError(
            "not the cutoffs of a perplexity filter",
            where=str(path),
            fix="Train the filter again with `isoflop data ngram`",
        )
    return found


def _spread(corpus: Corpus, split: str, max_bytes: int) -> Iterator[tuple[str, str]]:
    """(language, text) of documents spread evenly over a split, about `max_bytes` of them."""
    share, credit = max_bytes / max(1, corpus.split_bytes(split)), 0.0
    for rows in corpus.documents(split):
        for row in rows:
            size = len(row["text"].encode())
            credit += share * size
            if credit > 0:
                credit -= size
                yield row["language"], row["text"]


def _ids(tokenizer: Tokenizer, text: str) -> NDArray[np.uint32]:
    """The tokens of a document and the end of text."""
    return np.append(tokenizer.encode_batch([text])[0], np.uint32(tokenizer.eos_id))


def _subtag(language: str) -> str:
    """`zh` of `zh-Hans`."""
    return language.partition("-")[0]
