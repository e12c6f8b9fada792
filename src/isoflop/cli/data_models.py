"""`isoflop data ngram` and `classifier`: the models that filter text; not for filtering it.

Nothing heavy is imported before there is work to do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, OutPath
from isoflop.core.console import make_progress, print_result
from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from isoflop.data import perplexity, quality_classifier


@dataclass(frozen=True, kw_only=True)
class NgramArguments(Arguments):
    """Train an n-gram model on good text, for `[clean.perplexity]` of a data recipe."""

    corpus: Positional[Path]
    """A corpus of text to be trusted, as `isoflop data build` writes it."""
    tokenizer: Path
    """The tokenizer directory; a copy travels with the model."""
    out: OutPath
    """The directory to write."""
    order: int = 5
    """Length of the longest n-grams, 1 to 5."""
    smoothing: Literal["kneser-ney", "katz", "add-k"] = "kneser-ney"
    """Modified Kneser-Ney; katz (Good-Turing back-off) and add-k are there to compare."""
    max_bytes: int = 25_000_000
    """About how much text to train on. Training takes some 40 bytes of memory
    for each byte of it."""
    reference: Path | None = None
    """A corpus like the text to be filtered: `keep` in the recipe means shares of its documents.
    The held-out part of CORPUS when omitted."""


@dataclass(frozen=True, kw_only=True)
class ClassifierArguments(Arguments):
    """Train a classifier on good and bad text, for `[clean.classifier]` of a data recipe."""

    examples: Positional[tuple[Path, ...]]
    """POSITIVE NEGATIVE: two corpora, or JSONL, Parquet or text files (a file, folder or glob);
    or, with --label, one of them that holds both kinds."""
    out: OutPath
    """The directory to write."""
    label: str | None = None
    """Column (Parquet) or key (JSONL, `meta` of a corpus) that tells the kind."""
    positive: str = "1"
    """The label of positive texts; numbers count from this one up, `true` is 1."""
    text_key: str = "text"
    """Key or column that holds the text."""
    reference: Path | None = None
    """Documents like those to be filtered: the thresholds shown keep shares of them. The
    held-out examples when omitted."""
    held_out: float = 0.1
    """Share of the examples kept aside to measure the classifier on."""
    bits: int = 20
    """There are 2^bits features."""
    l2: float | None = None
    """Strength of the penalty on squared weights; chosen by what it foretells when omitted."""
    seed: int = 0
    """Seeds the choice of the held-out examples."""


def ngram(asked: NgramArguments) -> int:
    """Run `isoflop data ngram`."""
    from isoflop.data.corpus import inspect
    from isoflop.data.perplexity import train

    made = train(
        inspect(asked.corpus),
        asked.tokenizer,
        asked.out,
        order=asked.order,
        smoothing=asked.smoothing,
        max_bytes=asked.max_bytes,
        reference=inspect(asked.reference) if asked.reference else None,
        progress=make_progress(asked.json),
    )
    print_result(asdict(made), "" if asked.json else ngram_text(made), asked.json)
    return 0


def classifier(asked: ClassifierArguments) -> int:
    """Run `isoflop data classifier`."""
    wanted = 2 if asked.label is None else 1
    if len(asked.examples) != wanted:
        raise RecipeError(
            f"{len(asked.examples)} paths of examples were given, not {wanted}",
            where="data classifier",
            fix="Give POSITIVE and NEGATIVE, or one path and --label COLUMN",
        )
    from isoflop.data.labelled import read_both, read_labels
    from isoflop.data.quality_classifier import train

    if asked.label is None:
        examples = read_both(asked.examples[0], asked.examples[1], asked.text_key)
    else:
        examples = read_labels(asked.examples[0], asked.label, asked.positive, asked.text_key)
    made = train(
        examples,
        asked.out,
        bits=asked.bits,
        l2=asked.l2,
        held_out=asked.held_out,
        seed=asked.seed,
        reference=asked.reference,
        inputs=[path for path in asked.examples if path.is_file()],
        progress=make_progress(asked.json),
    )
    print_result(asdict(made), "" if asked.json else classifier_text(made), asked.json)
    return 0


def ngram_text(made: perplexity.Trained) -> str:
    """What was trained, and the perplexities that `keep` stands for."""
    lines = [
        f"{made.directory}: n-grams up to {made.order} of {made.tokens:,} tokens "
        f"({made.documents:,} documents): {', '.join(f'{n:,}' for n in made.n_grams)}",
        f"{made.reference_documents:,} reference documents: perplexity {made.perplexity:.4g} per "
        f"token, {made.bits_per_byte:.3f} bits per byte",
        "  language      keep = head  keep = middle",
    ]
    for language, shares in made.cutoffs.items():
        lines.append(f"  {language:<10}  {shares['head']:>13.4g}  {shares['middle']:>13.4g}")
    return "\n".join(lines)


def classifier_text(made: quality_classifier.Trained) -> str:
    """How good the classifier is, whether its scores are to be believed, and thresholds."""
    good = made.held_out
    lines = [
        f"{made.directory}: {made.positive:,} positive and {made.negative:,} negative examples",
        f"{good.documents:,} held-out documents ({good.positive:,} positive): accuracy "
        f"{good.accuracy:.1%}, AUC {good.auc:.4f}, log loss {good.log_loss:.4f}",
        f"calibration error {good.calibration_error:.3f}:",
        f"  {'score':>9}  {'documents':>9}  {'mean score':>10}  {'positive':>8}",
    ]
    lines += [
        f"  {b.low:.1f} – {b.high:.1f}  {b.documents:>9,}  {b.mean_score:>10.3f}  "
        f"{b.positive:>8.3f}"
        for b in good.reliability
    ]
    lines.append(f"  {'kept':>9}  {'min_score':>9}  {'precision':>10}  {'recall':>8}")
    for row in made.thresholds:
        precision, recall = (
            "–" if share is None else f"{share:.3f}" for share in (row.precision, row.recall)
        )
        lines.append(f"  {row.kept:>9.0%}  {row.min_score:>9.4f}  {precision:>10}  {recall:>8}")
    return "\n".join(lines)
