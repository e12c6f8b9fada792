"""`isoflop laws task` and `observe`: scores of tasks foretold; not for fitting laws (laws_fit)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from isoflop.cli.arguments import Amount, Arguments
from isoflop.cli.laws_open import open_law
from isoflop.core.console import print_result, warn
from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from isoflop.laws.family import Estimate

RESERVED = ("model", "family", "flops")


@dataclass(frozen=True, kw_only=True)
class TaskArguments(Arguments):
    """A task's score from size and horizon in two steps: the task's loss by one law, its score
    from that loss by another."""

    surface: Positional[str]
    """A law.json of the task's loss over params and tokens (`laws fit --columns loss=…`)."""
    task: Positional[str]
    """A law.json of the form loss-to-task, fitted in the same loss."""
    params: Amount
    """Parameters of the run."""
    tokens: Amount
    """Its training tokens."""
    level: float = 0.9
    """Probability that the interval promises."""
    ledger: Path | None = None
    """A ledger to write the promise into, before the run."""


@dataclass(frozen=True, kw_only=True)
class ObserveArguments(Arguments):
    """A task's score for a family at a compute, from a table of many models' benchmarks."""

    table: Positional[Path]
    """CSV, JSONL or Parquet with `family`, `flops` and columns of scores (shares; empty where
    unknown)."""
    target: str
    """The column to foretell; the other scores are the benchmarks."""
    family: str
    """The family asked about."""
    flops: Amount
    """Its training compute."""
    components: int = 3
    """Principal components that the task follows."""
    chance: float = 0.0
    """Score of guessing the task."""
    level: float = 0.9
    """Probability that the interval promises."""
    ledger: Path | None = None
    """A ledger to write the promise into."""


def task(asked: TaskArguments) -> int:
    """Print the score; 1 if either law's table did not support it."""
    from isoflop.laws.tasks import TaskLaw
    from isoflop.laws.two_step import foretell_score

    surface, second = open_law(asked.surface), open_law(asked.task)
    if not isinstance(second, TaskLaw):
        raise RecipeError(
            f"a law of the form {second.form} foretells no score",
            where=asked.task,
            fix="Give one of the form loss-to-task: isoflop laws fit --form loss-to-task",
        )
    if not hasattr(surface, "domain") or not {"params", "tokens"} <= set(surface.domain):
        raise RecipeError(
            f"a law of the form {surface.form} is no surface over params and tokens",
            where=asked.surface,
            fix="Fit one of the task's loss: isoflop laws fit RUNS --columns loss=COLUMN",
        )
    found = foretell_score(surface, second, asked.params, asked.tokens, asked.level)
    if found.verdict != "supported":
        warn(f"the forecast is {found.verdict}")
    basis = f"{asked.surface}, {asked.task}"
    id_ = _promised(asked.ledger, f"score of {Path(asked.task).stem}", found.score, basis)
    loss = found.loss
    text = (
        f"loss {loss.loss:.4f}, between {loss.low:.4f} and {loss.high:.4f}\n{_said(found.score)}"
        + (f"\npromised in {asked.ledger}" if id_ else "")
    )
    print_result({**found.to_dict(), "promise": id_}, text, asked.json)
    return 0 if found.verdict == "supported" else 1


def observe(asked: ObserveArguments) -> int:
    """Print the score; raises where the table cannot say."""
    import math

    from isoflop.core.errors import TableError
    from isoflop.laws.observational import observe as foretell
    from isoflop.laws.reading import read_rows

    rows = [row for _, row in read_rows(asked.table)]
    header = list(dict.fromkeys(name for row in rows for name in row))
    absent = [name for name in ("family", "flops", asked.target) if name not in header]
    if absent:
        raise TableError(f"the table has no {absent[0]}; it has {', '.join(header)}",
                         where=str(asked.table))  # fmt: skip

    def column(name: str) -> list[float]:
        try:
            return [math.nan if row.get(name) in (None, "") else float(row[name]) for row in rows]
        except (TypeError, ValueError):
            raise TableError(f"{name} holds what is no number", where=str(asked.table)) from None

    names = [name for name in header if name not in (*RESERVED, asked.target)]
    found = foretell(
        {name: column(name) for name in names}, column(asked.target),
        [str(row["family"]) for row in rows], column("flops"), ask_family=asked.family,
        ask_flops=asked.flops, count=asked.components, chance=asked.chance, level=asked.level,
    )  # fmt: skip
    basis = f"{asked.table}: {found.models} models, {len(names)} benchmarks"
    id_ = _promised(asked.ledger, f"score of {asked.target}, {asked.family}", found.score, basis)
    shares = " ".join(f"{100 * share:.0f} %" for share in found.explained)
    text = (
        f"{_said(found.score)}\n{basis}; components explain {shares}\n"
        f"{found.beyond:.3g} times the family's largest compute"
        + (f"\npromised in {asked.ledger}" if id_ else "")
    )
    print_result({**found.to_dict(), "promise": id_}, text, asked.json)
    return 0


def _said(score: Estimate) -> str:
    return (
        f"score {score.value:.3f}, between {score.low:.3f} and {score.high:.3f} ({score.level:.0%})"
    )


def _promised(path: Path | None, quantity: str, score: Estimate, basis: str) -> str | None:
    """The id of the promise written, where a ledger was given."""
    if path is None:
        return None
    from isoflop.core.ledger import Ledger

    interval = (score.value, score.low, score.high)
    return Ledger(path).promise(quantity, "share", *interval, score.level, basis)
