"""`isoflop emergence`: whether abilities in a table of scores emerge; not for making the scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, parse_arguments
from isoflop.cli.laws_fit import parse_pairs, say_rejected
from isoflop.core.console import print_result
from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from isoflop.laws.emergence import Emergence
    from isoflop.laws.score_trends import Gain
    from isoflop.laws.scores import ScoreTable


@dataclass(frozen=True, kw_only=True)
class EmergenceArguments(Arguments):
    """Tell thresholds from effects of the metric, lotteries of seeds and smooth progress.

    The table has a row per item (score 0 or 1) or per evaluation (score = share right, n = items),
    with columns `score`, one of `flops`, `params`, `tokens` or `step`, and where they are known
    `task`, `seed`, `n` and `logprob` (of the right answer, nats).
    """

    results: Positional[Path]
    """CSV, JSONL or Parquet file of scores."""
    columns: str = ""
    """Other names of columns, ours first: score=accuracy,flops=C."""
    chance: str = ""
    """Share right by guessing, by task: hellaswag=0.25,boolq=0.5."""
    gain: str = ""
    """Pairs of tasks, one way of asking = another: `stepped=direct` shows what steps gain at each
    scale."""
    alpha: float = 0.05
    """Probability of calling a step where there is none, over all tasks together."""
    draws: int = 400
    """Simulated worlds behind each probability."""
    seed: int = 0
    """Of the simulations."""


def run(args: list[str]) -> int:
    """Run the command; 0, or 1 if no task has enough data for a verdict."""
    asked = parse_arguments(EmergenceArguments, args, "emergence")
    from isoflop.laws.emergence import emergence
    from isoflop.laws.scores import read_scores

    table = read_scores(
        asked.results,
        parse_pairs(asked.columns, "--columns", "score=accuracy,flops=C"),
        _chances(asked.chance),
    )
    say_rejected(table.rejected)
    found = emergence(table.tasks, alpha=asked.alpha, draws=asked.draws, seed=asked.seed)
    gains = _gains(table, asked.gain)
    document = {
        "scale": table.scale,
        "tasks": {each.task: each.to_dict() for each in found},
        "gains": {name: gain.to_dict() for name, gain in gains.items()},
        "rejected": len(table.rejected),
    }
    text = "\n".join([_text(table, found), *(_gain_text(n, g) for n, g in gains.items())])
    print_result(document, text, asked.json)
    return 1 if all(each.verdict == "not enough data" for each in found) else 0


def _chances(text: str) -> dict[str, float]:
    example = "hellaswag=0.25,boolq=0.5"
    found = {}
    for task, share in parse_pairs(text, "--chance", example).items():
        try:
            found[task] = float(share)
        except ValueError:
            raise RecipeError(
                f"{share!r} is no share", where="--chance", fix=f"Write it as in {example}"
            ) from None
    return found


def _gains(table: ScoreTable, text: str) -> dict[str, Gain]:
    from isoflop.laws.score_trends import gain_over_scale

    tasks = {task.name: task for task in table.tasks}
    found = {}
    for one, other in parse_pairs(text, "--gain", "stepped=direct").items():
        absent = [name for name in (one, other) if name not in tasks]
        if absent:
            raise RecipeError(
                f"the table has no task {absent[0]}",
                where="--gain",
                fix=f"It has {', '.join(tasks)}",
            )
        found[f"{one} less {other}"] = gain_over_scale(tasks[one], tasks[other])
    return found


def _gain_text(name: str, gain: Gain) -> str:
    points = " ".join(f"{100 * each:+.0f}" for each in gain.gain)
    pays = f"pays from {gain.pays_from:.3g} on" if gain.pays_from else "is nowhere seen to pay"
    return (
        f"{name}: {points} points from {gain.scale[0]:.3g} to {gain.scale[-1]:.3g}\n"
        f"  the gain {'is steady' if gain.trend == 'steady' else gain.trend} "
        f"(p = {gain.p:.2g}) and {pays}"
    )


def _text(table: ScoreTable, found: tuple[Emergence, ...]) -> str:
    lines = []
    for each in found:
        shares = " ".join(f"{100 * share:.0f}" for share in each.shares)
        lines += [
            f"{each.task}: {each.verdict}",
            f"  {each.reason}",
            f"  % right from {each.scale[0]:.3g} to {each.scale[-1]:.3g} {table.scale}: {shares}",
        ]
        if each.trend is not None and each.trend.name != "rising":
            lines.append(f"  over scale: {each.trend.name} (p = {each.trend.p:.2g})")
        if each.big_bench is not None:
            broken = each.big_bench.breakthroughness
            said = "none" if broken is None else f"{broken:.1f}"
            lines.append(
                f"  BIG-bench's linearity {each.big_bench.linearity:.1f}, breakthroughness {said} "
                "(to compare with theirs alone)"
            )
        if each.foretold is not None:
            told = " ".join(f"{100 * share:.0f}" for share in each.foretold)
            lines.append(f"  foretold from the log-probabilities: {told}")
        if each.curves:
            best = max(each.curves, key=lambda name: each.curves[name]["left_out"])
            lines.append(f"  each rung is best foretold from the others by the {best} curve")
    return "\n".join(lines)
