"""The models that a recipe filters with, as signals beside the others; not for the models.

What they need is loaded only for recipes that name one.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from isoflop.core.artifact import MANIFEST, read_manifest, sha256_file

if TYPE_CHECKING:
    from isoflop.data.perplexity import Scorer
    from isoflop.data.quality_classifier import Classifier

PERPLEXITY, CLASSIFIER_SCORE = "perplexity", "classifier_score"
MODEL_SIGNALS = (PERPLEXITY, CLASSIFIER_SCORE)


class ModelScores:
    """Measures a text with the models of a recipe.

    Args:
        perplexity: The directory of an n-gram model, or None.
        classifier: The directory of a quality classifier, or None.

    Raises:
        ArtifactError: A model is missing or damaged.
    """

    def __init__(self, perplexity: Path | None, classifier: Path | None) -> None:
        prints = fingerprints(perplexity, classifier)
        self._perplexity: Scorer | None = None
        self._classifier: Classifier | None = None
        if perplexity is not None:
            self._perplexity = _scorer(perplexity, prints[0])
        if classifier is not None:
            self._classifier = _classifier(classifier, prints[1])

    def __call__(self, text: str, language: str) -> dict[str, float]:
        """The signals of a text that is not empty; without those that do not judge its language."""
        signals: dict[str, float] = {}
        if self._perplexity is not None:
            found = self._perplexity(text, language)
            if found is not None:
                signals[PERPLEXITY] = found
        if self._classifier is not None:
            signals[CLASSIFIER_SCORE] = self._classifier(text)
        return signals


def fingerprints(*models: Path | None) -> list[str | None]:
    """What tells model directories from others under the same name; None for None.

    Raises:
        ArtifactError: A model is missing.
    """
    for path in models:
        if path is not None:
            read_manifest(path)
    return [None if path is None else sha256_file(path / MANIFEST) for path in models]


# A worker measures one piece of the text after another; the model stays open between them.
@lru_cache(maxsize=2)
def _scorer(directory: Path, _: str | None) -> Scorer:
    from isoflop.data.perplexity import Scorer

    return Scorer(directory)


@lru_cache(maxsize=2)
def _classifier(directory: Path, _: str | None) -> Classifier:
    from isoflop.data.quality_classifier import load

    return load(directory)
