"""The forms by name: what each is, which table and options it takes, how it is fitted.

Not the fits themselves, whose modules are imported when a form is asked for, nor the reading of
tables and the choice among forms (fitting).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.fit import fit as fit_surface
from isoflop.laws.records import RunTable
from isoflop.laws.tables import SCORE, CurveTable, FigureTable, MixtureTable

if TYPE_CHECKING:
    from isoflop.laws.curve import CurveLaw
    from isoflop.laws.experts import ExpertLaw
    from isoflop.laws.frontier import FrontierLaw
    from isoflop.laws.hyperparameters import HyperparameterLaw
    from isoflop.laws.isoflop_law import IsoflopLaw
    from isoflop.laws.mixture import MixtureLaw
    from isoflop.laws.power import PowerLaw
    from isoflop.laws.precision import PrecisionLaw, QuantisationLaw
    from isoflop.laws.predict import Law
    from isoflop.laws.repetition import DataLaw
    from isoflop.laws.tasks import TaskLaw

Options = Mapping[str, Any]
OBJECTIVES = ("huber", "lad", "lsq")
SETTING = ("params", "tokens")
METRIC = "metric:"


@dataclass(frozen=True)
class Entry:
    """What there is to know of a form before fitting it."""

    says: str
    """Formula and purpose."""
    table: str
    """The table it takes, in words."""
    fit: Callable[[Any, Options], Any]
    """The table and the options given → the law."""
    kinds: tuple[type[Any], ...] = (RunTable,)
    """Tables that its fit takes."""
    objectives: tuple[str, ...] = ()
    """Objectives to choose from; none where the form has one only."""
    options: tuple[str, ...] = ()
    """Options besides `objective`, `bootstrap` and `seed`."""
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    """Columns of a table of figures."""


def _surface(form: str) -> Callable[[RunTable, Options], Law]:
    return lambda table, options: fit_surface(table, form=form, **options)


def _power(form: str) -> Callable[[RunTable, Options], PowerLaw]:
    def fit_it(table: RunTable, options: Options) -> PowerLaw:
        from isoflop.laws.power import fit_power

        return fit_power(table, form=form, **options)  # type: ignore[arg-type]

    return fit_it


def _frontier(table: RunTable, options: Options) -> FrontierLaw:
    from isoflop.laws.frontier import fit_frontier

    return fit_frontier(table, **options)


def _isoflop(table: RunTable, options: Options) -> IsoflopLaw:
    from isoflop.laws.isoflop_law import fit_isoflop

    return fit_isoflop(table, **options)


def _data_constrained(table: RunTable, options: Options) -> DataLaw:
    from isoflop.laws.data_limits import fit_data_constrained

    return fit_data_constrained(table, **options)


def _curve(table: CurveTable, options: Options) -> CurveLaw:
    from isoflop.laws.curve import fit_curve

    return fit_curve(table.curves, source=table.source, **options)


def _hyperparameters(table: RunTable | FigureTable, options: Options) -> HyperparameterLaw:
    from isoflop.laws.hyperparameters import fit_optima, fit_sweep

    values = _figures(table, (*SETTING, "learning_rate"), ("loss", "batch_tokens"))
    settings = np.column_stack([values["params"], values["tokens"]])
    tried = np.column_stack([settings, values["learning_rate"]])
    swept = len(np.unique(tried, axis=0)) > len(np.unique(settings, axis=0))
    if not swept:
        values.pop("loss", None)
    elif "loss" not in values:
        raise TableError(
            "a setting has several learning rates, and no loss says which is best",
            fix="Give the column loss, or one row (the optimum) per setting",
        )
    return (fit_sweep if swept else fit_optima)(**values, **options)


def _mixture(table: MixtureTable, options: Options) -> MixtureLaw:
    from isoflop.laws.mixture import fit_mixture

    return fit_mixture(
        *(table.weights, table.losses),
        **{"training": table.training, "validation": table.validation, **options},
    )


def _task(table: RunTable | FigureTable, options: Options) -> TaskLaw:
    from isoflop.laws.tasks import fit_task

    own = {"task": "task", "task_curve": "curve", "bootstrap": "draws"}
    rest = {own.get(name, name): value for name, value in options.items()}
    task = rest.pop("task", None)
    if isinstance(table, FigureTable):
        return fit_task(table.figures["loss"], table.figures[SCORE], **rest)
    known = table.metrics
    name = str(task or "").removeprefix(METRIC) or (next(iter(known)) if len(known) == 1 else "")
    if name not in known:
        listed = ", ".join(METRIC + one for one in known) or "none"
        raise TableError(
            f"the table has no scores {METRIC}{name}" if name else "say which scores to fit",
            where="task",
            fix=f"Its columns of scores: {listed}",
        )
    there = np.isfinite(known[name])
    return fit_task(table.loss[there], known[name][there], **rest)


def _experts(table: FigureTable, options: Options) -> ExpertLaw:
    from isoflop.laws.experts import fit_experts

    return fit_experts(**{**table.figures, **options})


def _precision(table: FigureTable, options: Options) -> PrecisionLaw:
    from isoflop.laws.precision import fit_precision

    return fit_precision(**{**table.figures, **options})


def _quantisation(table: FigureTable, options: Options) -> QuantisationLaw:
    from isoflop.laws.precision import fit_quantisation

    return fit_quantisation(**{**table.figures, **options})


RUNS = "a run table: params, tokens, loss"
ENTRIES: dict[str, Entry] = {
    **{
        form: Entry(
            says, RUNS, _surface(form), objectives=OBJECTIVES, options=("priors",)
        )
        for form, says in (
            ("auto", "the average of the three below by roll-out inside the table"),
            ("gamma", "E + (A*N^-a + B*D^-b)^g with weak priors"),
            ("chinchilla", "E + A/N^alpha + B/D^beta"),
            ("kaplan-nd", "(A*N^-a + B*D^-b)^g, for runs far above any floor"),
        )
    },
    **{
        form: Entry(
            f"E + (X_c/X)^alpha of {of} alone", RUNS, _power(form),
            objectives=OBJECTIVES, options=("floor",),
        )
        for form, of in (("kaplan-n", "N"), ("kaplan-d", "D"), ("kaplan-c", "C"))
    },
    "frontier": Entry(
        "E + A*C^-g, the loss of compute-optimal runs", f"{RUNS}, at fixed budgets", _frontier
    ),
    "isoflop": Entry(
        "N_opt = k*C^a through IsoFLOP parabolas", f"{RUNS}, at fixed budgets", _isoflop
    ),
    "data-constrained": Entry(
        "what repeated epochs are worth: R_D*, R_N*", f"{RUNS}, unique_tokens",
        _data_constrained, objectives=("huber", "lsq"), options=("base",),
    ),
    "curve": Entry(
        "a loss curve from its schedule",
        "a table of curves of one model: run_id, step, learning_rate, loss", _curve,
        kinds=(CurveTable,), options=("warmup_steps",),
    ),
    "hyperparameters": Entry(
        "learning rate and batch as powers of N and D, or of C",
        "a sweep, or the optimum of each setting: params, tokens, learning_rate, and where there "
        "are any batch_tokens and loss", _hyperparameters,
        kinds=(RunTable, FigureTable), options=("of",),
        required=(*SETTING, "learning_rate"), optional=("loss", "batch_tokens"),
    ),
    "mixture": Entry(
        "the loss of each domain from the weights of the mixture",
        "a table of mixtures: weight:NAME and loss:NAME for each domain", _mixture,
        kinds=(MixtureTable,),
    ),
    "loss-to-task": Entry(
        "a task's score from the loss", "a table of loss and of scores (see --task)", _task,
        kinds=(RunTable, FigureTable), options=("task", "chance", "task_curve"),
        required=("loss", SCORE),
    ),
    "experts": Entry(
        "the loss of mixtures of experts",
        "a table of params (active), tokens, experts, loss", _experts,
        kinds=(FigureTable,), required=(*SETTING, "experts", "loss"),
    ),
    "precision": Entry(
        "the loss of training with few bits", "a table of params, tokens, bits, loss", _precision,
        kinds=(FigureTable,), required=(*SETTING, "bits", "loss"),
    ),
    "quantisation": Entry(
        "the loss that quantising adds", "a table of params, tokens, bits, added_loss",
        _quantisation, kinds=(FigureTable,), required=(*SETTING, "bits", "added_loss"),
    ),
}  # fmt: skip
"""Every form that can be fitted."""


def get_entry(form: str) -> Entry:
    """The form of that name.

    Raises:
        TableError: There is no such form.
    """
    if form not in ENTRIES:
        close = get_close_matches(form, ENTRIES, n=1)
        raise TableError(
            f"there is no form {form!r}",
            where="form",
            fix=(f"Did you mean {close[0]}? " if close else "") + f"They are {', '.join(ENTRIES)}",
        )
    return ENTRIES[form]


def check_options(form: str, objective: str | None, given: Mapping[str, Any]) -> None:
    """Refuse what the form does not take.

    Raises:
        TableError: An option belongs to other forms, or the form has no such objective.
    """
    entry = get_entry(form)
    for name in given:
        if name not in entry.options:
            owners = [other for other, one in ENTRIES.items() if name in one.options]
            flag = name.replace("_", "-")
            raise TableError(
                f"the form {form} takes no {flag}",
                where="no-priors" if name == "priors" else flag,
                fix=f"It belongs to {', '.join(owners)}" if owners else "Leave it out",
            )
    if objective is not None and objective not in entry.objectives:
        choice = f"Choose one of {', '.join(entry.objectives)}"
        raise TableError(
            f"the form {form} has no objective {objective!r}",
            where="objective",
            fix=choice if entry.objectives else "Leave it out: this form has one only",
        )


def _figures(
    table: RunTable | FigureTable, required: Sequence[str], optional: Sequence[str]
) -> dict[str, Any]:
    """The columns (R,) that are there; of a run table those without a gap."""
    if isinstance(table, FigureTable):
        return dict(table.figures)
    found = {name: np.asarray(getattr(table, name)) for name in (*required, *optional)}
    return {
        name: values
        for name, values in found.items()
        if name in required or not np.isnan(values).any()
    }
