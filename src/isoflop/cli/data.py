"""`isoflop data build`, `annotate`, `inspect`, `why`; not for the work itself (`isoflop.data`).

pyarrow is imported when there is work to do, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from isoflop.cli.arguments import (
    Arguments,
    KeepWork,
    OutPath,
    PlacementName,
    RecipeArguments,
    dispatch,
    parse_arguments,
    parse_recipe_arguments,
)
from isoflop.cli.data_duplicates import run_duplicates
from isoflop.cli.data_instruct import run_instruct
from isoflop.cli.plan_first import CostlyArguments, begins
from isoflop.core.console import make_progress, print_result
from isoflop.data.documents import Skipped
from isoflop.data.recipe import DataRecipe

if TYPE_CHECKING:
    from isoflop.data.corpus import Corpus
    from isoflop.data.why import Account, Why

_MAX_REJECTS_SHOWN = 10
_MAX_EXAMPLES_SHOWN = 2
_EXCERPT_WIDTH = 90


@dataclass(frozen=True, kw_only=True)
class BuildArguments(CostlyArguments):
    """Read the sources of a recipe, clean them, drop duplicates, split, and write a corpus."""

    out: OutPath
    """The directory to write; an older corpus there is replaced once the new one is whole."""
    annotations: Path | None = None
    """What `isoflop data annotate` wrote with the same sources: decide anew, read nothing again."""
    placement: PlacementName = "auto"
    keep_work: KeepWork = False
    remember: Annotated[Path | None, arg(metavar="DIR")] = None
    """Write an index of what is kept, against which later recipes match (`duplicates.index`); an
    index that stands there grows."""


@dataclass(frozen=True, kw_only=True)
class AnnotateArguments(RecipeArguments):
    """Read, spell and measure the documents of a recipe, so that thresholds apply in seconds."""

    out: OutPath
    """The directory to write, for `isoflop data build --annotations`."""
    placement: PlacementName = "auto"
    keep_work: KeepWork = False


@dataclass(frozen=True, kw_only=True)
class InspectArguments(Arguments):
    """Show what a corpus holds, and the funnel of what was dropped on the way, by reason."""

    corpus: Positional[Path]
    """A corpus directory, as `isoflop data build` writes it."""


@dataclass(frozen=True, kw_only=True)
class WhyArguments(Arguments):
    """Show what a quality rule dropped, and how much another threshold would drop."""

    corpus: Positional[Path]
    """A corpus that was built with quality rules."""
    rule: str
    """The rule's name, as the funnel gives it: `gopher-quality.few-words`."""
    threshold: float | None = None
    """Account for this threshold; for a spread of them when omitted."""
    examples: int = 5
    """How many documents to show on either side of the threshold."""


_ELSEWHERE: dict[str, tuple[str, str]] = {
    "ngram": ("data_models", "train an n-gram model on good text, to filter by perplexity"),
    "classifier": ("data_models", "train a quality classifier on good and bad text"),
    "card": ("data_card", "what a corpus holds and what was dropped, as one HTML page"),
}
"""Word → its module in `isoflop.cli` and one line of help. A module has for each of its words a
class `NgramArguments` and a function `ngram` that takes one and returns the exit status."""


def run(args: list[str]) -> int:
    """Run the command; 0 unless the input is bad."""
    elsewhere = {word: (partial(_call, word), help_) for word, (_, help_) in _ELSEWHERE.items()}
    return dispatch(
        "data",
        {
            "build": (_build, "sources → clean → no duplicates → split, by a recipe"),
            "annotate": (_annotate, "measure once; `build --annotations` then decides in seconds"),
            "inspect": (_inspect, "what a corpus holds, and what was dropped and why"),
            "duplicates": (run_duplicates, "which documents of a corpus are alike, and how"),
            "instruct": (run_instruct, "instruction, preference and verifiable rows, by a recipe"),
            "why": (_why, "what a quality rule dropped, and what other thresholds would"),
            **elsewhere,
        },
        args,
    )


def _call(word: str, args: list[str]) -> int:
    module = importlib.import_module(f"isoflop.cli.{_ELSEWHERE[word][0]}")
    asked = parse_arguments(getattr(module, f"{word.title()}Arguments"), args, f"data {word}")
    status: int = getattr(module, word)(asked)
    return status


def _build(args: list[str]) -> int:
    arguments, recipe = parse_recipe_arguments(BuildArguments, DataRecipe, args, "data build")
    from isoflop.data.corpus import build
    from isoflop.data.foresee import foresee
    from isoflop.reporting.data_card import data_card

    if not begins(arguments, arguments.plan, arguments.out, lambda: foresee(recipe)):
        return 0

    corpus = build(
        recipe,
        arguments.out,
        make_progress(arguments.json),
        arguments.annotations,
        placement=arguments.placement,
        keep_work=arguments.keep_work,
        remember=arguments.remember,
    )
    data_card(corpus.directory)
    _show(corpus, arguments.json)
    return 0


def _annotate(args: list[str]) -> int:
    arguments, recipe = parse_recipe_arguments(AnnotateArguments, DataRecipe, args, "data annotate")
    from isoflop.data.annotate import annotate

    made = annotate(
        recipe,
        arguments.out,
        make_progress(arguments.json),
        placement=arguments.placement,
        keep_work=arguments.keep_work,
    )
    text = f"{made.documents:,} documents measured into {made.directory}"
    print_result({"annotations": made.directory, "documents": made.documents}, text, arguments.json)
    return 0


def _why(args: list[str]) -> int:
    arguments = parse_arguments(WhyArguments, args, "data why")
    from isoflop.data.why import why

    found = why(arguments.corpus, arguments.rule, arguments.threshold, arguments.examples)
    print_result(asdict(found), "" if arguments.json else why_text(found), arguments.json)
    return 0


def _inspect(args: list[str]) -> int:
    arguments = parse_arguments(InspectArguments, args, "data inspect")
    from isoflop.data.corpus import inspect

    _show(inspect(arguments.corpus), arguments.json)
    return 0


def _show(corpus: Corpus, json_mode: bool) -> None:
    document = {"corpus": corpus.directory, **corpus.funnel}
    print_result(document, "" if json_mode else funnel_text(corpus), json_mode)


def funnel_text(corpus: Corpus) -> str:
    """The funnel as a table: what was read, what was dropped by reason, what was kept where."""
    funnel = corpus.funnel
    rows: list[tuple[str, str, str, str]] = [("", "documents", "text", "")]

    def add(label: str, count: dict[str, Any], note: str = "") -> None:
        size = f"{count['bytes'] / 1e6:,.2f} MB"
        rows.append((label, f"{count['documents']:,}", size, note))

    add("read", funnel["in"])
    for reason, drop in funnel["dropped"].items():
        shown = ", ".join(drop["examples"][:_MAX_EXAMPLES_SHOWN])
        more = ", …" if drop["documents"] > _MAX_EXAMPLES_SHOWN else ""
        add(f"  - {reason}", drop, shown + more)
    add("kept", funnel["kept"])
    for split, part in sorted(funnel["splits"].items(), reverse=True):
        add(f"  {split.replace('_', '-')}", part)
        for language, count in part["languages"].items():
            add(f"    {language}", count)
    for name, part in funnel["sources"].items():
        add(f"  from {name}", part["kept"])
    for kind, found in funnel.get("pii", {}).items():
        rows.append((f"  {kind} found", f"{found['documents']:,}", "", f"{found['found']:,} times"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{label:<{widths[0]}}  {documents:>{widths[1]}}  {size:>{widths[2]}}  {note}".rstrip()
        for label, documents, size, note in rows
    ]
    return "\n".join([*lines, *_rejects_text(corpus)])


def _rejects_text(corpus: Corpus) -> list[str]:
    """The first broken files and lines, and where the others are listed."""
    total = corpus.funnel.get("rejects", 0)
    if not total:
        return []
    path = corpus.directory / "rejects.jsonl"
    what = "1 broken file or line" if total == 1 else f"{total:,} broken files or lines"
    lines = ["", f"{what}, listed in {path}:"]
    with open(path, encoding="utf-8") as file:
        for line in islice(file, _MAX_REJECTS_SHOWN):
            reject = json.loads(line)
            place = {name: reject.get(name) for name in ("line", "offset")}
            skipped = Skipped(reject["file"], reject["reason"], **place)
            detail = f" ({reject['detail']})" if reject["detail"] else ""
            lines.append(f"  {reject['source']} {skipped.place}: {skipped.reason}{detail}")
    return lines + (["  …"] if total > _MAX_REJECTS_SHOWN else [])


def why_text(found: Why) -> str:
    """A rule's account: counts, other thresholds, and documents on either side."""
    bound = "at least" if found.side == "min" else "at most"
    lines = [f"{found.rule}: `{found.signal}` must be {bound} the threshold"]
    for account in found.accounts:
        lines += ["", *_account_text(found, account)]
    if not found.accounts:
        lines.append("no document was measured by it")
    return "\n".join(lines)


def _account_text(found: Why, account: Account) -> list[str]:
    state = "" if account.in_force else ", not in force in this corpus"
    lines = [
        f"{account.group}: threshold {account.threshold:.4g}{state}; {account.judged:,} documents "
        f"measured; fail it: {account.failing:,}, dropped by it first: {account.dropped:,}",
        f"  {'threshold':>10}  {'would fail':>10}  {'kept, lost':>10}  {'dropped, back':>13}",
    ]
    lines += [
        f"  {other.threshold:>10.4g}  {other.failing:>10,}  {other.lost:>10,}  {other.gained:>13,}"
        for other in account.alternatives
    ]
    for title, examples in (("fail", account.dropped_examples), ("pass", account.kept_examples)):
        for example in examples:
            excerpt = " ".join(example.excerpt.split())[:_EXCERPT_WIDTH]
            place = f"{example.source} {example.id}"
            lines.append(f"  {title} {example.value:.4g}  {place}: {excerpt}")
    return lines
