"""How text is cleaned, as a recipe spells it (`[clean]`); not for doing it.

Nothing is on by default but the canonical spelling of `normalise`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isoflop.core.errors import RecipeError

QualityFamily = Literal["gopher-repetition", "gopher-quality", "c4", "fineweb"]
PIIName = Literal["email", "phone", "ip", "cn-mobile", "cn-id", "card", "key"]


@dataclass(frozen=True)
class SpellingConfig:
    """How text is spelled once it is clean (`[clean.spelling]`)."""

    form: Literal["nfc", "nfkc"] = "nfc"
    """Unicode normal form; nfkc also folds ligatures, circled numbers and the like."""
    mojibake: bool = False
    """Repair text decoded with the wrong encoding (needs the package ftfy)."""
    invisible: bool = False
    """Remove characters without width: soft hyphens, direction marks, stray joiners."""
    width: bool = False
    """Full-width letters and digits become ASCII, half-width kana full."""
    punctuation: bool = False
    """ASCII commas, stops and brackets beside ideographs become Chinese ones."""
    chinese: Literal["keep", "simplified", "traditional"] = "keep"
    """Convert Chinese characters (needs the package opencc)."""
    boilerplate: bool = False
    """Remove lines of menus, cookie notices, share buttons and copyright."""


@dataclass(frozen=True)
class LanguageConfig:
    """Which languages are kept (`[clean.language]`)."""

    identify: bool = False
    """Name the language of every document that its source does not; implied by `keep`."""
    keep: tuple[str, ...] = ()
    """Tags to keep; `zh` stands for `zh-Hans` and `zh-Hant`. Empty: all."""
    min_score: float = 0.0
    """Drop documents whose identified language is less sure than this (0 to 1)."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_score <= 1.0:
            raise RecipeError(f"`min_score` must lie between 0 and 1, not be {self.min_score}")

    @property
    def on(self) -> bool:
        """Whether languages are identified at all."""
        return self.identify or bool(self.keep) or self.min_score > 0.0


@dataclass(frozen=True)
class QualityConfig:
    """Which quality rules documents must pass (`[clean.quality]`)."""

    english: tuple[QualityFamily, ...] = ()
    """Families of rules for documents in English and other spaced scripts."""
    chinese: tuple[QualityFamily, ...] = ()
    """Families of rules for documents in Chinese; FineWeb-2 uses all but c4."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Other thresholds by the rule's name, `"gopher-quality.few-words" = 30`."""

    @property
    def on(self) -> bool:
        """Whether any rule applies."""
        return bool(self.english or self.chinese)


@dataclass(frozen=True)
class PIIConfig:
    """What becomes of personal data and keys (`[clean.pii]`)."""

    action: Literal["keep", "redact", "drop", "tag"] = "keep"
    """redact: replaced by `<KIND>`; drop: the document goes; tag: counted in `meta.pii`."""
    kinds: tuple[PIIName, ...] = ("email", "phone", "ip", "cn-mobile", "cn-id", "card", "key")
    """What to look for."""


@dataclass(frozen=True)
class ToxicityConfig:
    """Word lists of yours (`[clean.toxicity]`); none is shipped."""

    lists: tuple[Path, ...] = ()
    """Text files with a word or phrase a line, in any language; `#` starts a comment."""
    max_matches: int = 0
    """Drop documents with more matches than this."""

    def __post_init__(self) -> None:
        if self.max_matches < 0:
            raise RecipeError(f"`max_matches` must not be negative, not {self.max_matches}")


@dataclass(frozen=True)
class PerplexityConfig:
    """How perplexing a document may be to an n-gram model (`[clean.perplexity]`).

    Judges the languages that the model was trained on.
    """

    model: Path | None = None
    """What `isoflop data ngram` wrote."""
    max: float | None = None
    """Drop documents of a higher perplexity per token."""
    keep: Literal["head", "middle"] | float | None = None
    """Or: drop what is more perplexing than this share of the model's reference documents of the
    same language; head: a third, middle: two thirds."""

    def __post_init__(self) -> None:
        limits = sum(limit is not None for limit in (self.max, self.keep))
        if limits != (self.model is not None):
            raise RecipeError(
                "[clean.perplexity] needs `model` and one of `max` and `keep`, or none of them"
            )
        if self.max is not None and self.max <= 1.0:
            raise RecipeError(f"`max` must be above 1, the least perplexity, not {self.max}")
        if isinstance(self.keep, float) and not 0.0 < self.keep < 1.0:
            raise RecipeError(f"`keep` must lie between 0 and 1, not be {self.keep}")


@dataclass(frozen=True)
class ClassifierConfig:
    """What a quality classifier must say of a document (`[clean.classifier]`)."""

    model: Path | None = None
    """What `isoflop data classifier` wrote."""
    min_score: float = 0.5
    """Drop documents that are less likely (0 to 1) to be like the positive examples."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_score <= 1.0:
            raise RecipeError(f"`min_score` must lie between 0 and 1, not be {self.min_score}")


@dataclass(frozen=True)
class CleanConfig:
    """What is done to the text between reading it and dropping duplicates (`[clean]`)."""

    spelling: SpellingConfig = field(default_factory=SpellingConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    pii: PIIConfig = field(default_factory=PIIConfig)
    toxicity: ToxicityConfig = field(default_factory=ToxicityConfig)
    perplexity: PerplexityConfig = field(default_factory=PerplexityConfig)
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)

    @property
    def measures(self) -> bool:
        """Whether signals are stored beside the text, for `isoflop data why`."""
        return self.quality.on or bool(
            self.toxicity.lists or self.perplexity.model or self.classifier.model
        )
