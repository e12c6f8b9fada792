"""Fits a form by name to the table it takes; not for what the forms are (families, and their own).

law = fit(read_for("loss-to-task", ["runs.csv"], task="metric:copa"), form="loss-to-task")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from isoflop.core.errors import TableError
from isoflop.laws.families import check_options, get_entry
from isoflop.laws.records import Rejected, RunTable, read_table
from isoflop.laws.tables import (
    SCORE,
    CurveTable,
    FigureTable,
    MixtureTable,
    read_curves,
    read_figures,
    read_mixtures,
)

if TYPE_CHECKING:
    from isoflop.laws.load import AnyLaw
    from isoflop.laws.power import PowerLaw
    from isoflop.laws.predict import Law

AnyTable: TypeAlias = RunTable | CurveTable | FigureTable | MixtureTable
Objective = Literal["huber", "lad", "lsq"]
Floor = Literal["compare", "fit", "none"]
SurfaceForm = Literal["auto", "gamma", "chinchilla", "kaplan-nd"]
PowerForm = Literal["kaplan-n", "kaplan-d", "kaplan-c"]


def read_for(
    form: str,
    paths: Sequence[Path | str],
    columns: Mapping[str, str] | None = None,
    *,
    task: str | None = None,
    warmup_steps: float | None = None,
) -> AnyTable:
    """Read the table that a form takes.

    Args:
        paths: Files or directories, as the form's `Entry.table` says.
        columns: Our column name → the table's.
        task: Of `loss-to-task`: the column of scores, or its name behind `metric:`.
        warmup_steps: Of `curve`: see `tables.read_curves`.

    Raises:
        TableError: There is no such form, or the files do not hold its table.
    """
    entry = get_entry(form)
    if CurveTable in entry.kinds:
        return read_curves(paths, columns, warmup_steps or 0.0)
    if MixtureTable in entry.kinds:
        return read_mixtures(paths, columns)
    if FigureTable not in entry.kinds:
        return read_table(paths, columns)
    renamed = dict(columns or {})
    if form == "loss-to-task":
        if not task:
            raise TableError(
                "say which column holds the scores",
                where="--task",
                fix="Give --task metric:NAME, or the name of any other column",
            )
        renamed = {SCORE: renamed.pop(task, task), **renamed}
    return read_figures(paths, entry.required, entry.optional, renamed)


@overload
def fit(
    table: RunTable, form: SurfaceForm = ..., objective: Objective | None = ...,
    bootstrap: int | None = ..., seed: int = ..., *, priors: bool | None = ...,
) -> Law: ...  # fmt: skip
@overload
def fit(
    table: RunTable, form: PowerForm, objective: Objective | None = ...,
    bootstrap: int | None = ..., seed: int = ..., *, floor: Floor | None = ...,
) -> PowerLaw: ...  # fmt: skip
@overload
def fit(
    table: AnyTable, form: str, objective: Objective | None = ...,
    bootstrap: int | None = ..., seed: int = ..., **options: Any,
) -> AnyLaw: ...  # fmt: skip
def fit(
    table: AnyTable,
    form: str = "chinchilla",
    objective: Objective | None = None,
    bootstrap: int | None = None,
    seed: int = 0,
    **options: Any,
) -> AnyLaw:
    """Fit a form to the table it takes; see `families.ENTRIES`.

    Args:
        table: Of `read_table`, or of `read_for` for forms that take other tables.
        form: One of `families.ENTRIES`.
        objective: On residuals of the log loss: `huber` (width 1e-3, the default of the surfaces
            and power laws), `lad` or `lsq`. Most other forms have one only.
        bootstrap: Refits behind standard errors and intervals; the form's own number when None.
        seed: Of the resampling.
        options: What the form takes besides: `priors` (surfaces; False leaves the literature's
            exponents out), `floor` (kaplan-n, -d, -c), `base`
            (data-constrained), `of` (hyperparameters), `task`, `chance` and `task_curve`
            (loss-to-task).

    Raises:
        TableError: There is no such form, it takes another table or no such option, or the table
            does not determine it. A table that merely supports it badly is fitted, and the law's
            verdict says `unsupported`.
    """
    entry = get_entry(form)
    given = {name: value for name, value in options.items() if value is not None}
    check_options(form, objective, given)
    if not isinstance(table, entry.kinds):
        raise TableError(
            f"the form {form} takes {entry.table}, not a {type(table).__name__}",
            fix=f"Read it with `read_for({form!r}, paths)`",
        )
    given.pop("warmup_steps", None)
    if objective is not None and entry.objectives:
        given["objective"] = objective
    if bootstrap is not None and form != "curve":
        given["bootstrap"] = bootstrap
    law: AnyLaw = entry.fit(table, given | {"seed": seed})
    if isinstance(table, RunTable):
        return law if law.source else replace(law, source=table.source)
    return replace(law, source=table.source, warnings=(*law.warnings, *_left_out(table.rejected)))


def _left_out(rejected: Sequence[Rejected]) -> list[str]:
    if not rejected:
        return []
    shown = "; ".join(f"{row.where}: {row.reason}" for row in rejected[:5])
    more = f"; and {len(rejected) - 5} more" if len(rejected) > 5 else ""
    return [f"{len(rejected)} row{'s' * (len(rejected) > 1)} left out: {shown}{more}"]
