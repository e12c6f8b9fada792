"""`isoflop feedback`: opinions of answers as rows to train on, and what training on them brought.

Not for collecting them (`isoflop serve --feedback`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from isoflop.cli.arguments import Arguments, dispatch, parse_arguments
from isoflop.core.console import print_result
from isoflop.serving.feedback import FeedbackForm, export


@dataclass(frozen=True)
class ExportArguments(Arguments):
    """Write the opinions of a feedback store as JSON lines to train on."""

    store: Positional[Path]
    """The file that `isoflop serve --feedback` writes."""
    to: FeedbackForm
    """Rows of messages; of prompt, chosen and rejected; or of prompt, completion and label."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE")]
    """The file to write."""


@dataclass(frozen=True)
class CompareArguments(Arguments):
    """Compare two models on the held-out pairs of a set: how often each thinks the answer that
    people chose likelier than the other."""

    set: Positional[Path]
    """An instruction set with preference pairs (`isoflop data instruct`)."""
    before: Path
    """The model that people gave their opinions on."""
    after: Path
    """The model trained on them."""


def run(args: list[str]) -> int:
    """Run the command; 0, 1 if a comparison shows no gain, 2 (raised) for what cannot be used."""
    choices = {
        "export": (_export, "ratings, choices and edits as rows to train on"),
        "compare": (_compare, "win rates of two models on held-out opinions"),
    }
    return dispatch("feedback", choices, args)


def _export(args: list[str]) -> int:
    arguments = parse_arguments(ExportArguments, args, "feedback export")
    done = export(arguments.store, arguments.to, arguments.out)
    document = {"out": arguments.out, "rows": done.rows, "unused": done.unused}
    text = (
        f"{arguments.out}: {done.rows} rows ({arguments.to}); {done.unused} opinions say nothing "
        "of that kind"
    )
    print_result(document, text, arguments.json)
    return 0


def _compare(args: list[str]) -> int:
    arguments = parse_arguments(CompareArguments, args, "feedback compare")
    from isoflop.alignment.win_rate import wins
    from isoflop.evaluation.statistics import LEVEL, paired_difference, wilson

    won = {name: wins(arguments.set, getattr(arguments, name)) for name in ("before", "after")}
    n = len(won["before"])
    rates = {name: wilson(sum(each), n) for name, each in won.items()}
    before, after = ([float(one) for one in won[name]] for name in ("before", "after"))
    gain = paired_difference(after, before, [1.0] * n)
    low, high = 100 * gain.low, 100 * gain.high
    lines = [
        f"{name:<6}  {100 * rate.value:5.1f} %  ({100 * rate.low:.1f} to {100 * rate.high:.1f})"
        for name, rate in rates.items()
    ]
    lines += [
        f"gain    {100 * gain.value:+5.1f} points ({low:+.1f} to {high:+.1f})",
        f"Win rate: share of {n} held-out pairs whose chosen answer the model thinks likelier, per "
        f"token. Intervals at {LEVEL:.0%}: Wilson's, and the paired bootstrap.",
    ]
    document = {"pairs": n, **{k: vars(r) for k, r in rates.items()}, "gain": vars(gain)}
    print_result(document, "\n".join(lines), arguments.json)
    return 0 if gain.low > 0 else 1
