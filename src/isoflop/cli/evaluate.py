"""`isoflop eval`: what a model can do, with intervals and chance; not for how runs trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, OutPath, parse_arguments
from isoflop.cli.plan_first import PlanFirst, begins
from isoflop.core.console import make_progress, print_result
from isoflop.core.errors import RecipeError
from isoflop.core.foresight import Foresight

if TYPE_CHECKING:
    from isoflop.evaluation.evaluate import Evaluation
    from isoflop.evaluation.task import Scored

GREY, PLAIN = "\x1b[90m", "\x1b[0m"


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(Arguments):
    """Score a model on tasks: every score with its interval, chance and number of items."""

    model: Positional[Path]
    """A model directory: `model/` in that of a demo or a run."""
    tasks: str
    """Names of tasks with commas between them, `name=PATH` where one takes a file:
    minimal_pairs,perplexity=wiki.test.txt. `isoflop eval --list` lists them."""
    out: OutPath
    """The directory to write: results.json, items.jsonl."""
    limit: int | None = None
    """Most items of each group of a task; all when not given."""
    seed: int = 0
    """Draws the generated items."""
    compare: Path | None = None
    """An earlier evaluation of another model on the same tasks: differences paired by item."""
    encoder: Path | None = None
    """An encoder's directory (architecture bert, trained here or imported), for BERTScore of the
    task `texts`."""
    batch_tokens: int = 4096
    """Tokens computed at once at most: less takes less memory. It changes no result."""
    plan: PlanFirst = False


def run(args: list[str]) -> int:
    """Run the command; 0, or 2 (raised) if the model, a task or a file cannot be used."""
    if "--list" in args:
        return _list(json_mode="--json" in args)
    arguments = parse_arguments(EvaluateArguments, args, "eval")
    from isoflop.evaluation.evaluate import evaluate

    words = [word.strip() for word in arguments.tasks.split(",")]
    if not all(words):
        raise RecipeError("a task has no name", where="--tasks", fix="Write `--tasks a,b`")

    def foretell() -> Foresight:
        from isoflop.evaluation.foresee import foresee

        return foresee(
            arguments.model, words, arguments.limit, arguments.seed,
            batch_tokens=arguments.batch_tokens, encoder=arguments.encoder,
        )  # fmt: skip

    if not begins(arguments, arguments.plan, arguments.out, foretell):
        return 0
    found = evaluate(
        arguments.model,
        words,
        arguments.out,
        limit=arguments.limit,
        seed=arguments.seed,
        compare_with=arguments.compare,
        batch_tokens=arguments.batch_tokens,
        encoder=arguments.encoder,
        progress=make_progress(arguments.json),
    )
    document: dict[str, Any] = {"model": arguments.model, "tasks": found.document()}
    if found.comparison is not None:
        document["comparison"] = asdict(found.comparison)
    print_result(document, "\n".join(page(found, sys.stdout.isatty())), arguments.json)
    return 0


def _list(json_mode: bool) -> int:
    from isoflop.evaluation.tasks.registry import TASKS

    width = max(map(len, TASKS))
    lines = [f"{task.name:<{width}}  {task.about} ({task.takes})" for task in TASKS.values()]
    listed = [{"name": t.name, "about": t.about, "takes": t.takes} for t in TASKS.values()]
    print_result({"tasks": listed}, "\n".join(lines), json_mode)
    return 0


def page(found: Evaluation, colour: bool) -> Iterator[str]:
    """The table of scores, then groups, then differences; scores at chance are grey on a terminal
    and say so everywhere."""
    table = []
    for name, result in found.results.items():
        table.append((name, result.scored))
        table += [(f"  {group}", scored) for group, scored in result.groups.items()]
    width = max(len(name) for name, _ in table)
    yield f"{'task':<{width}}  {'score':>8}  {'95 % interval':>18}  {'chance':>7}  {'items':>6}"
    for name, scored in table:
        line = f"{name:<{width}}  {_figures(scored)}"
        yield f"{GREY}{line}{PLAIN}" if colour and scored.standing == "at" else line
    for name, result in found.results.items():
        if beside := _beside(result.extra):
            yield f"{name}, beside it: {beside}"
    needed = [r.scored.items_for_3_points for r in found.results.values()]
    most = max((each for each in needed if each is not None), default=None)
    if most is not None:
        yield f"to see 3 points between two models, a task needs up to {most:,} items"
    if found.comparison is not None:
        yield from _differences(found)


def _beside(extra: Mapping[str, Any]) -> str:
    """A task's further figures in one line: `bleu 29.0, pass_at_k 1: 0.1, 8: 0.4`."""
    said = []
    for name, value in extra.items():
        if isinstance(value, int | float):
            said.append(f"{name} {value:.4g}")
        elif isinstance(value, dict) and all(isinstance(v, int | float) for v in value.values()):
            said.append(f"{name} " + ", ".join(f"{k}: {v:.4g}" for k, v in value.items()))
    return "; ".join(said)


def _figures(scored: Scored) -> str:
    interval = "unknown"
    if scored.low is not None and scored.high is not None:
        interval = f"{scored.low:.4f} to {scored.high:.4f}"
    chance = "" if scored.chance is None else f"{scored.chance:.4f}"
    standing = {"at": "  at chance", "below": "  below chance"}.get(scored.standing or "", "")
    figures = f"{scored.score:>8.4f}  {interval:>18}  {chance:>7}  {scored.n:>6,}"
    return f"{figures}  {scored.metric}{standing}"


def _differences(found: Evaluation) -> Iterator[str]:
    comparison = found.comparison
    if comparison is None:
        return
    yield "\nless the other model's, on the same items:"
    for name, each in comparison.differences.items():
        verdict = "" if each.seen else "  not to be told from none"
        yield (
            f"  {name}: {each.value:+.4f} [{each.low:+.4f}, {each.high:+.4f}], "
            f"p = {each.p:.3g}, {each.n:,} items{verdict}"
        )
    for name, why in comparison.left_out.items():
        yield f"  {name}: {why}"
