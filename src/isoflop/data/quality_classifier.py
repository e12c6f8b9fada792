"""The quality classifier: a linear model on hashed n-grams, trained on examples of both kinds.

Not for reading the examples (`labelled`) nor for the features (`hashed_ngrams`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from isoflop.core.artifact import build_directory, read_json, read_manifest, write_json
from isoflop.core.artifact import write_manifest as finish
from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import ArtifactError, DataError, RecipeError
from isoflop.core.hardware import machine
from isoflop.data import logistic
from isoflop.data.hashed_ngrams import hashed_ngrams
from isoflop.data.labelled import Example, read_text
from isoflop.data.normalise import normalise

_CONFIG, _WEIGHTS = "config.json", "weights.npy"
_FEATURES = "hashed-ngrams/1"
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
_BINS = 10
_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_REFERENCE_BYTES = 20_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Classifier:
    """A trained classifier."""

    bits: int
    """There are 2^bits features."""
    weights: NDArray[np.float32] = field(repr=False)
    """(2^bits,)."""
    bias: float

    def __call__(self, text: str) -> float:
        """How likely, 0 to 1, the text is to be of the positive kind, among such examples."""
        buckets, values = hashed_ngrams(text, self.bits)
        logit = float(values @ self.weights[buckets].astype(np.float64)) + self.bias
        return float(logistic.sigmoid(np.array([logit]))[0])


@dataclass(frozen=True)
class Bin:
    """Held-out documents whose scores lie in one tenth of the scale."""

    low: float
    high: float
    documents: int
    mean_score: float
    """What the classifier said, on average."""
    positive: float
    """The share that was positive: equal to `mean_score` where it is calibrated."""


@dataclass(frozen=True)
class Threshold:
    """The least score with which a share of the reference documents is kept."""

    kept: float
    """That share."""
    min_score: float
    precision: float | None
    """Of held-out documents at this score or above, the share that is positive."""
    recall: float | None
    """Of positive held-out documents, the share at this score or above."""


@dataclass(frozen=True)
class Quality:
    """How good a classifier is on documents that it was not trained on."""

    documents: int
    positive: int
    accuracy: float
    """Share on the right side of 0.5."""
    auc: float
    """Chance that a positive document scores above a negative one; ties count half."""
    log_loss: float
    """Nats per document."""
    calibration_error: float
    """Mean distance of `mean_score` and `positive` over the documents' bins."""
    reliability: tuple[Bin, ...]


@dataclass(frozen=True)
class Trained:
    """A finished classifier."""

    directory: Path
    positive: int
    """Examples of this kind, held-out ones included."""
    negative: int
    held_out: Quality
    thresholds: tuple[Threshold, ...]


def train(
    examples: Sequence[Example],
    out: Path,
    *,
    bits: int = 20,
    l2: float | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    reference: Path | None = None,
    inputs: Sequence[Path] = (),
    progress: Progress = SILENT,
) -> Trained:
    """Train a classifier, measure it on a held-out part, and write it.

    Args:
        examples: Texts of both kinds.
        bits: There are 2^bits features, 8 to 26.
        l2: Strength of the penalty on squared weights, as `1 / C` elsewhere; when omitted, that of
            0.01, 0.03 … 10 with the least log loss on a fifth of the training part, then
            used for all of it.
        held_out: Share of the examples, chosen by their hash, that it is not trained on.
        reference: Documents whose shares the thresholds keep (a corpus, JSONL, Parquet or text
            files); the held-out examples when omitted.
        inputs: What the examples were read from, for the manifest.

    Raises:
        DataError: A kind has no examples on one side of the split.
        RecipeError: `bits`, `l2` or `held_out` is out of range.
        ArtifactError: `out` holds something else.
    """
    if not 8 <= bits <= 26 or (l2 is not None and l2 <= 0) or not 0 < held_out < 1:
        raise RecipeError(
            f"`bits` must lie between 8 and 26, `l2` above 0 and `held_out` between 0 and 1, "
            f"not be {bits}, {l2} and {held_out:g}"
        )
    texts = [normalise(example.text) for example in examples]
    labels = np.array([example.positive for example in examples], np.bool_)
    aside = np.array([example.held_out(seed, held_out) for example in examples], np.bool_)
    _require_both(labels[~aside], "to train on")
    _require_both(labels[aside], "held out")
    progress.start("data classifier", len(texts), "documents")
    features = _matrix(texts, bits, progress)
    # Only buckets that occur get weights: the others stay 0 under the penalty.
    used = np.unique(features[~aside].indices)
    rows, kinds = features[~aside][:, used], labels[~aside]
    if l2 is None:
        l2 = _best_penalty(rows, kinds)
    found, bias = logistic.fit(rows, kinds, l2)
    weights = np.zeros(1 << bits, np.float32)
    weights[used] = found
    classifier = Classifier(bits, weights, bias)
    scores = logistic.sigmoid(features[aside] @ weights.astype(np.float64) + bias)
    quality = measure(scores, labels[aside])
    compared = scores
    if reference is not None:
        compared = np.array([classifier(normalise(t)) for t in read_text(reference)])
    thresholds = _thresholds(compared, scores, labels[aside])
    config = {"features": _FEATURES, "bits": bits, "bias": bias, "l2": l2, "seed": seed}
    with build_directory(out) as directory:
        np.save(directory / _WEIGHTS, weights)
        write_json(directory / _CONFIG, config)
        write_json(
            directory / "quality.json",
            {"held_out": asdict(quality), "thresholds": [asdict(t) for t in thresholds]},
        )
        finish(
            directory,
            kind="quality-classifier",
            config=config,
            machine=machine(),
            inputs=inputs,
            seed=seed,
        )
    progress.finish(f"accuracy {quality.accuracy:.1%}, AUC {quality.auc:.3f} on held-out documents")
    n_positive = int(labels.sum())
    return Trained(out, n_positive, labels.size - n_positive, quality, thresholds)


def _best_penalty(features: Any, labels: NDArray[np.bool_]) -> float:
    """The penalty of `_PENALTIES` that foretells every fifth example best, seeing the others."""
    asked = np.arange(labels.size) % 5 == 4
    if labels[~asked].all() or not labels[~asked].any():
        return 1.0
    losses = []
    for l2 in _PENALTIES:
        weights, bias = logistic.fit(features[~asked], labels[~asked], l2)
        logits = features[asked] @ weights + bias
        losses.append(float((np.logaddexp(0, logits) - labels[asked] * logits).sum()))
    return _PENALTIES[int(np.argmin(losses))]


def load(directory: Path) -> Classifier:
    """Open a classifier.

    Raises:
        ArtifactError: It is missing, unfinished, damaged, or of another version.
    """
    read_manifest(directory, "quality-classifier")
    config = read_json(directory / _CONFIG)
    try:
        bits, bias, version = int(config["bits"]), float(config["bias"]), config["features"]
        weights = np.load(directory / _WEIGHTS, mmap_mode="r", allow_pickle=False)
        sound = version == _FEATURES and weights.shape == (1 << bits,)
        sound = sound and weights.dtype == np.float32
    except (KeyError, TypeError, ValueError, OSError, EOFError):
        sound = False
    if not sound:
        raise ArtifactError(
            f"not a classifier on {_FEATURES} with its weights",
            where=str(directory),
            fix="Train it again with `isoflop data classifier`",
        )
    return Classifier(bits, weights, bias)


def measure(scores: Floats, labels: NDArray[np.bool_]) -> Quality:
    """Accuracy, AUC, log loss and calibration of scores.

    Args:
        scores: (n,) between 0 and 1.
        labels: (n,) which documents are positive; both kinds must occur.
    """
    clipped = np.clip(scores, 1e-12, 1 - 1e-12)
    which = np.minimum((scores * _BINS).astype(np.int64), _BINS - 1)
    bins = []
    for number in range(_BINS):
        inside = which == number
        if inside.any():
            edges = number / _BINS, (number + 1) / _BINS
            shares = float(scores[inside].mean()), float(labels[inside].mean())
            bins.append(Bin(*edges, int(inside.sum()), *shares))
    distance = sum(b.documents * abs(b.mean_score - b.positive) for b in bins) / labels.size
    return Quality(
        documents=labels.size,
        positive=int(labels.sum()),
        accuracy=float(((scores >= 0.5) == labels).mean()),
        auc=_auc(scores, labels),
        log_loss=float(-np.log(np.where(labels, clipped, 1 - clipped)).mean()),
        calibration_error=distance,
        reliability=tuple(bins),
    )


def _auc(scores: Floats, labels: NDArray[np.bool_]) -> float:
    """The Mann–Whitney statistic of the positive documents' mean ranks."""
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]
    n_positive = int(labels.sum())
    above = ranks[labels].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * (labels.size - n_positive)))


def _thresholds(
    compared: Floats, scores: Floats, labels: NDArray[np.bool_]
) -> tuple[Threshold, ...]:
    if compared.size == 0:
        raise DataError("there is no document to set thresholds on", where="--reference")
    rows = []
    for share in _SHARES:
        # The higher of two neighbours, so that no more than the share is kept.
        least = float(np.quantile(compared, 1 - share, method="higher"))
        kept = scores >= least
        right = float(labels[kept].mean()) if kept.any() else None
        rows.append(Threshold(share, least, right, float(kept[labels].mean())))
    return tuple(rows)


def _matrix(texts: Sequence[str], bits: int, progress: Progress) -> Any:
    """(n, 2^bits) the features of the texts, in sparse rows."""
    buckets: list[NDArray[np.int64]] = []
    values: list[Floats] = []
    for number, text in enumerate(texts):
        row = hashed_ngrams(text, bits)
        buckets.append(row[0])
        values.append(row[1])
        if number % 256 == 0:
            progress.advance(number)
    edges = np.cumsum([0, *(row.size for row in buckets)])
    parts = (np.concatenate(values), np.concatenate(buckets), edges)
    return sparse.csr_matrix(parts, shape=(len(texts), 1 << bits))


def _require_both(labels: NDArray[np.bool_], where: str) -> None:
    positive, negative = int(labels.sum()), int((~labels).sum())
    if not positive or not negative:
        raise DataError(
            f"{positive} positive and {negative} negative documents are {where}",
            fix="Give more examples of the missing kind, or change --held-out",
        )
