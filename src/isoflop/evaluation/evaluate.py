"""Running tasks on a model directory: `isoflop.evaluate(...)`, the twin of `isoflop eval`.

Not for any task's own work (`tasks/`) nor for its figures (`results.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.core.artifact import read_json
from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import RecipeError
from isoflop.evaluation.likelihood import BATCH_TOKENS, Subject
from isoflop.evaluation.results import Comparison, TaskResult, compare, summarise, write_results
from isoflop.evaluation.task import Outcome, Settings, Task
from isoflop.evaluation.tasks.registry import find_task
from isoflop.loading import load


@dataclass(frozen=True)
class Evaluation:
    """What a model scored."""

    results: dict[str, TaskResult]
    comparison: Comparison | None

    def document(self) -> dict[str, Any]:
        """Task → its figures, as in `results.json`."""
        return {name: result.document() for name, result in self.results.items()}


def evaluate(
    model: str | Path,
    tasks: Sequence[str],
    out: str | Path | None = None,
    *,
    limit: int | None = None,
    seed: int = 0,
    compare_with: str | Path | None = None,
    batch_tokens: int = BATCH_TOKENS,
    encoder: str | Path | None = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Score a model on tasks.

    Args:
        model: A model directory with its tokenizer.
        tasks: Names of tasks; `name=PATH` where the task takes a file.
        out: Where to write `results.json` and `items.jsonl`; nowhere when None.
        limit: Most items of each group of a task.
        seed: Draws the generated items.
        compare_with: A directory that an evaluation wrote; differences are paired by item.
        batch_tokens: Tokens computed at once at most; it changes no result.
        encoder: An encoder's directory, for BERTScore of the task `texts`.

    Raises:
        RecipeError: A task is unknown, named twice, or lacks its file.
        ArtifactError: The model or an earlier evaluation cannot be read, or `out` is in use.
        DataError: A task's file cannot be read, or the model's window is too short for it.
    """
    if limit is not None and limit < 1:
        raise RecipeError("it must be at least 1", where="--limit")
    if batch_tokens < 1:
        raise RecipeError("it must be at least 1", where="--batch-tokens")
    chosen = choose_tasks(tasks, limit, seed, None if encoder is None else Path(encoder))
    directory = Path(model)
    subject = open_subject(directory, batch_tokens)
    outcomes: dict[str, Outcome] = {}
    progress.start("eval", len(chosen), "tasks")
    for done, (name, (task, settings)) in enumerate(chosen.items()):
        progress.advance(done, name)
        outcomes[name] = task.run(subject, settings)
    results = {name: summarise(outcome) for name, outcome in outcomes.items()}
    comparison = None if compare_with is None else compare(outcomes, Path(compare_with))
    if out is not None:
        paths = [settings.path for _, settings in chosen.values()]
        inputs = [directory, *(path for path in paths if path is not None and path.is_file())]
        config = {"tasks": list(tasks), "limit": limit, "seed": seed}
        write_results(Path(out), outcomes, results, config, inputs, seed)
    progress.finish()
    return Evaluation(results, comparison)


def open_subject(directory: Path, batch_tokens: int = BATCH_TOKENS) -> Subject:
    """A model directory, ready to be asked; texts begin after BOS where it has one, else EOS."""
    model = load(directory)
    bos = read_json(directory / "config.json").get("bos_token_id")
    start = bos if isinstance(bos, int) else model.tokenizer.eos_id
    return Subject(model.decoder, model.tokenizer, start, batch_tokens)


def choose_tasks(
    tasks: Sequence[str], limit: int | None, seed: int, encoder: Path | None = None
) -> dict[str, tuple[Task, Settings]]:
    """The tasks of these names with their settings, by the keys of `results.json`.

    Raises:
        RecipeError: One is unknown, named twice, or lacks its file.
    """
    chosen: dict[str, tuple[Task, Settings]] = {}
    if not tasks:
        raise RecipeError(
            "no task is named", where="--tasks", fix="`isoflop eval --list` lists them"
        )
    for word in tasks:
        name, _, path = word.partition("=")
        task = find_task(name)
        settings = Settings(Path(path) if path else None, limit, seed, encoder)
        task.check(settings)
        if settings.path is not None and not settings.path.exists():
            raise RecipeError("no such file or directory", where=f"--tasks {name}={path}")
        key = name if settings.path is None else f"{name}:{settings.path.stem}"
        if key in chosen:
            raise RecipeError(f"`{key}` is named twice", where="--tasks")
        chosen[key] = (task, settings)
    return chosen
