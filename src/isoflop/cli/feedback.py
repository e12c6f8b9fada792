"""`isoflop feedback`: opinions of answers as rows to train on; not for collecting them."""

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


def run(args: list[str]) -> int:
    """Run the command; 0, or 2 (raised) if the store cannot be used."""
    choices = {"export": (_export, "ratings, choices and edits as rows to train on")}
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
