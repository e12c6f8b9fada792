"""Decides from its annotations whether a document is kept, and what becomes of personal data.

Not for measuring (`annotate`) nor for duplicates (`duplicate_stages`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from isoflop.data import pii
from isoflop.data.annotated import Annotated
from isoflop.data.clean_recipe import ClassifierConfig, CleanConfig
from isoflop.data.quality import (
    CHINESE_RULES,
    ENGLISH_RULES,
    Rule,
    chosen_rules,
    first_failed,
)

if TYPE_CHECKING:
    from isoflop.data.perplexity import Limits

NOT_KEPT, UNSURE, PERSONAL = "language not kept", "language unsure", "personal data"
PERPLEXING, LOW_SCORE = "perplexity.high", "classifier.low"
MODEL_RULES = (
    Rule(PERPLEXING, "perplexity", "max", math.inf),
    Rule(LOW_SCORE, "classifier_score", "min", ClassifierConfig.min_score),
)
"""The rules of models, which judge all languages that their model was trained on."""


@dataclass(frozen=True)
class Decision:
    """What becomes of one document."""

    reason: str | None
    """Why it is dropped; None if it may stay."""
    text: str = ""
    """Its text, redacted where the recipe asks."""
    pii: dict[str, int] = field(default_factory=dict)
    """How many pieces of personal data of each kind were found."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What is to be added to the document's `meta`."""


class Decider:
    """Applies a recipe's thresholds.

    Raises:
        RecipeError: A threshold names no rule.
    """

    def __init__(self, config: CleanConfig) -> None:
        self._config = config
        self._rules = {group: group_rules(config, group) for group in GROUPS}
        self._perplexity_limit = _perplexity_limit(config)
        keep = config.language.keep
        self._keep = frozenset({*keep, *(("zh-Hans", "zh-Hant") if "zh" in keep else ())})

    def __call__(self, item: Annotated) -> Decision:
        """Keep or drop one document, for the first reason in the order of the recipe's tables."""
        text = item.document.text
        reason = "empty" if not text else self._language(item)
        if reason is None:
            reason = first_failed(self._rules[rule_group(item.language)], item.signals)
        if reason is None and item.signals.get("toxic_matches", 0) > (
            self._config.toxicity.max_matches
        ):
            reason = "toxicity.words"
        if reason is None:
            reason = self._models(item)
        action = self._config.pii.action
        if reason is not None or action == "keep" or not item.signals.get("pii"):
            return Decision(reason, text)
        findings = pii.find(text, self._config.pii.kinds)
        found = pii.counts(findings)
        if action == "drop":
            return Decision(PERSONAL, text, found)
        if action == "tag":
            return Decision(None, text, found, {"pii": found})
        return Decision(None, pii.redact(text, findings), found)

    def _models(self, item: Annotated) -> str | None:
        limit = self._perplexity_limit
        if limit is not None and item.signals.get("perplexity", 0.0) > limit(item.language):
            return PERPLEXING
        classifier = self._config.classifier
        if classifier.model and item.signals.get("classifier_score", 1.0) < classifier.min_score:
            return LOW_SCORE
        return None

    def _language(self, item: Annotated) -> str | None:
        config = self._config.language
        if self._keep and item.language not in self._keep:
            return NOT_KEPT
        if item.signals.get("language_score", 1.0) < config.min_score:
            return UNSURE
        return None


def _perplexity_limit(config: CleanConfig) -> Limits | None:
    if config.perplexity.model is None:
        return None
    from isoflop.data.perplexity import Limits  # numpy and tokenizers, only for recipes that ask

    return Limits(config.perplexity)


GROUPS = ("english", "chinese", "spaced", "unspaced", "code")
"""Groups of languages that share their rules. Other languages than English and Chinese have no
stop words and word lengths here, so only repetition is judged there; code is not judged."""


def rule_group(language: str) -> str:
    """The group of languages whose rules judge a document."""
    first = language.split("-")[0]
    return {"en": "english", "zh": "chinese", "ja": "unspaced", "code": "code"}.get(first, "spaced")


def group_rules(config: CleanConfig, group: str) -> tuple[Rule, ...]:
    """The rules that judge the documents of a group of languages.

    Raises:
        RecipeError: A threshold names no rule.
    """
    quality = config.quality
    if group == "code":
        return ()
    chinese = group in ("chinese", "unspaced")
    families: tuple[str, ...] = quality.chinese if chinese else quality.english
    if group in ("spaced", "unspaced"):
        families = tuple(family for family in families if family == "gopher-repetition")
    return chosen_rules(CHINESE_RULES if chinese else ENGLISH_RULES, families, quality.thresholds)


def model_rules(config: CleanConfig) -> tuple[Rule, ...]:
    """The rules of the models in a recipe; infinite where a model sets a limit by language."""
    perplexing, low = MODEL_RULES
    rules = []
    if config.perplexity.model is not None:
        limit = math.inf if config.perplexity.max is None else config.perplexity.max
        rules.append(replace(perplexing, threshold=limit))
    if config.classifier.model is not None:
        rules.append(replace(low, threshold=config.classifier.min_score))
    return tuple(rules)
