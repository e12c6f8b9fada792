"""`isoflop laws WORD`: which words there are; the work of each is in `laws_fit`, `laws_use`, ….

Not for any word's own options or output. Modules are imported for the word that was typed.
"""

from __future__ import annotations

import importlib
from functools import partial

from isoflop.cli.arguments import dispatch, parse_arguments

WORDS: dict[str, tuple[str, str]] = {
    "fit": ("laws_fit", "fit a law of any form to tables of runs, curves, sweeps or mixtures"),
    "predict": ("laws_use", "the loss of a run, with its interval (or what the law is about)"),
    "optimal": ("laws_use", "the best size and horizon for a budget, or the best mixture"),
    "backtest": ("laws_score", "fit the small runs, score the large ones"),
    "compare": ("laws_score", "the forms side by side on a table's own large runs"),
    "profile": ("laws_identify", "how well the runs determine each parameter of a form"),
    "next": ("laws_score", "the run that would sharpen the forecast most"),
    "what-if": ("laws_explore", "a run with more or less of everything"),
    "serving": ("laws_explore", "the best size for a model that is to be served"),
    "task": ("laws_tasks", "a task's score from size and horizon, by way of its loss"),
    "observe": ("laws_tasks", "a task's score for a family, from many models' benchmarks"),
    "published": ("laws_published", "the literature's laws and models, and where each lies"),
}
"""Word → its module in `isoflop.cli` and one line of help. A module has for each of its words, such
as `what-if`, a class `WhatIfArguments` and a function `what_if` that takes one and returns the
exit status."""


def run(args: list[str]) -> int:
    """Run `isoflop laws ARGS`; 1 if the law's verdict is `unsupported`."""
    choices = {word: (partial(_call, word), help_) for word, (_, help_) in WORDS.items()}
    return dispatch("laws", choices, args)


def _call(word: str, args: list[str]) -> int:
    module = importlib.import_module(f"isoflop.cli.{WORDS[word][0]}")
    arguments = word.title().replace("-", "") + "Arguments"
    asked = parse_arguments(getattr(module, arguments), args, f"laws {word}")
    status: int = getattr(module, word.replace("-", "_"))(asked)
    return status
