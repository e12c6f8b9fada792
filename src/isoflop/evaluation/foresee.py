"""What `isoflop eval` will take: every task is timed on a few of its items; not their scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from isoflop.core.foresight import Foresight, Span
from isoflop.core.process import peak_memory_bytes
from isoflop.evaluation.evaluate import choose_tasks, open_subject
from isoflop.evaluation.likelihood import BATCH_TOKENS, Subject
from isoflop.evaluation.task import Settings, Task
from isoflop.evaluation.tasks import (
    arithmetic,
    cloze,
    code,
    in_context,
    instructions,
    minimal_pairs,
    reasoning,
    sequences,
)

FEW, MORE = 1, 3
"""Limits that a task is timed at; what lies between them is the time of an item."""
SPREAD = 2.0
"""The first items are shorter or longer than the mean by such a factor."""
ITEM_BYTES = 700
"""Of a line of items.jsonl."""
USUAL = {
    "minimal_pairs": minimal_pairs.PAIRS,
    "cloze": cloze.ITEMS,
    **dict.fromkeys(in_context.RULES, in_context.ITEMS),
    "icl_score": sequences.TEXTS,
    "induction": sequences.SEQUENCES,
    "arithmetic": arithmetic.ITEMS,
    "word_problems": reasoning.PROBLEMS,
    "code": len(code.problems()),
    "instructions": instructions.PROMPTS,
}
"""Items of each group of a task that brings its own."""


def foresee(
    model: Path,
    tasks: Sequence[str],
    limit: int | None,
    seed: int,
    *,
    batch_tokens: int = BATCH_TOKENS,
    encoder: Path | None = None,
) -> Foresight:
    """Ask the model a few items of every task, and count up to all of them.

    Raises:
        RecipeError, ArtifactError, DataError: As `evaluate` does.
    """
    chosen = choose_tasks(tasks, limit, seed, encoder)
    subject = open_subject(model, batch_tokens)
    seconds, n_bytes, basis, untold = 0.0, 0, [], []
    for name, (task, settings) in chosen.items():
        items = limit or (USUAL.get(name) if settings.path is None else None)
        each, first, groups = _timed(task, subject, settings)
        if items is None:
            untold.append(name)
            continue
        seconds += first + each * max(0, items - FEW)
        n_bytes += groups * items * ITEM_BYTES
        basis.append(f"{name}: {items:,} items a group, {1000 * each:.3g} ms each, measured now")
    if untold:
        basis.append(f"how many items a file has is not counted: {', '.join(untold)}; see --limit")
    return Foresight(
        None if untold else Span(seconds, seconds / SPREAD, seconds * SPREAD),
        peak_memory_bytes(),
        None if untold else n_bytes,
        tuple(basis),
    )


def _timed(task: Task, subject: Subject, settings: Settings) -> tuple[float, float, int]:
    """(seconds of one more item of each group, seconds of the first, items of one a group)."""
    began = time.perf_counter()
    first = task.run(subject, replace(settings, limit=FEW))
    between = time.perf_counter()
    task.run(subject, replace(settings, limit=MORE))
    ended = time.perf_counter()
    alone, more = between - began, ended - between
    return max(0.0, more - alone) / (MORE - FEW), alone, max(1, len(first.records))
