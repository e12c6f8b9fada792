"""`isoflop laws backtest`, `compare`, `next`: what a table's own runs say of its forecasts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, MaybeAmount
from isoflop.cli.laws_fit import Objective, Runs, read_runs
from isoflop.cli.laws_plot import PlotFile, check_plot, save_plot
from isoflop.core.console import print_result
from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from isoflop.laws.advice import Advice
    from isoflop.laws.backtest import Backtest

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Of the intervals whose calibration is drawn."""
SurfaceForm = Literal["auto", "gamma", "chinchilla", "kaplan-nd"]


@dataclass(frozen=True, kw_only=True)
class BacktestArguments(Arguments):
    """Fit the runs of least compute and score the forecasts of the rest."""

    runs: Positional[Runs]
    """Run tables (CSV, JSONL, Parquet with columns params, tokens, loss) or ladder directories."""
    holdout: float = 0.2
    """Share of the runs, those of most compute, to foretell."""
    cut: float | None = None
    """Foretell instead every run of more than the largest compute divided by this: 10 asks for a
    forecast ten times beyond what was fitted."""
    form: SurfaceForm = "chinchilla"
    """As in `laws fit`."""
    objective: Objective = "huber"
    """huber, lad or lsq, as in `laws fit`."""
    columns: str = ""
    """Other names of columns, ours first: params=N,tokens=D,loss=final_loss."""
    level: float = 0.9
    """Probability that the intervals promise."""
    plot: PlotFile = None
    """Draw each forecast, and how often intervals of four levels held, into this file."""


@dataclass(frozen=True, kw_only=True)
class CompareArguments(Arguments):
    """The forms side by side: each is fitted to the small runs and foretells the large ones."""

    runs: Positional[Runs]
    """Run tables (CSV, JSONL, Parquet with columns params, tokens, loss) or ladder directories."""
    cuts: tuple[float, ...] = (3.0, 10.0)
    """Fit up to the largest compute divided by each."""
    columns: str = ""
    """Other names of columns, ours first: params=N,tokens=D,loss=final_loss."""
    level: float = 0.9
    """Probability that the intervals promise."""


@dataclass(frozen=True, kw_only=True)
class NextArguments(Arguments):
    """Choose the runs that would sharpen a forecast most."""

    runs: Positional[Runs]
    """Run tables (CSV, JSONL, Parquet with columns params, tokens, loss) or ladder directories."""
    params: MaybeAmount = None
    """Parameters of the run to foretell; ten times the largest run's compute if omitted."""
    tokens: MaybeAmount = None
    """Its tokens."""
    flops: MaybeAmount = None
    """The most that a new run may cost; the largest run's compute if omitted."""
    count: int = 1
    """How many new runs."""
    thrift: float = 0.0
    """0 looks at what a run tells, 1 at what it tells per FLOP."""
    form: SurfaceForm = "auto"
    """Of the law of the runs so far."""
    columns: str = ""
    """Other names of columns, ours first: params=N,tokens=D,loss=final_loss."""


def backtest(asked: BacktestArguments) -> int:
    """Score; 1 if the small runs do not support the form."""
    from isoflop.laws import backtest as backtest_form

    check_plot(asked.plot)
    table = read_runs(asked.runs, asked.columns)

    def scored_at(level: float) -> Backtest:
        return backtest_form(
            table, *(asked.holdout, asked.form, asked.objective), cut=asked.cut, level=level
        )

    def drawn() -> str:
        from isoflop.reporting.law_plot import plot_backtest

        return plot_backtest(scored, *map(scored_at, sorted({*LEVELS} - {asked.level})))

    scored = scored_at(asked.level)
    print_result(scored.to_dict(), _backtest_text(scored), asked.json)
    save_plot(asked.plot, f"backtest of {scored.form}", drawn)
    return 0 if scored.verdict == "supported" else 1


def compare(asked: CompareArguments) -> int:
    """Score the forms."""
    from isoflop.laws.backtest import compare as compare_forms

    table = read_runs(asked.runs, asked.columns)
    scored = compare_forms(table, cuts=asked.cuts, level=asked.level)
    print_result({"backtests": [one.to_dict() for one in scored]}, _compared(scored), asked.json)
    return 0


def next(asked: NextArguments) -> int:
    """Advise; 1 if the runs so far do not support their law."""
    from isoflop.laws.advice import advise

    if (asked.params is None) != (asked.tokens is None):
        raise RecipeError(
            "the run to foretell has --params and --tokens, and one is missing",
            where="isoflop laws next",
            fix="Give both, or neither for ten times the largest run's compute",
        )
    goal = None
    if asked.params is not None and asked.tokens is not None:
        goal = asked.params, asked.tokens
    advice = advise(
        read_runs(asked.runs, asked.columns),
        goal=goal,
        flops=asked.flops,
        count=asked.count,
        thrift=asked.thrift,
        form=asked.form,
    )
    print_result(advice.to_dict(), _advice_text(advice), asked.json)
    return 0 if advice.verdict == "supported" else 1


# --- words ---------------------------------------------------------------------------------


def _backtest_text(scored: Backtest) -> str:
    lines = [
        f"{scored.form} ({scored.objective}) fitted to the {scored.n_fit} runs of least compute, "
        f"scored on {scored.n_held_out} of up to {scored.reach:.3g} × more:",
        f"  error     median {scored.median_error_percent:.2f} %, mean "
        f"{scored.mean_error_percent:.2f} %, bias {scored.bias_percent:+.2f} %",
        f"  interval  {100 * scored.coverage:.0f} % of the losses inside the "
        f"{100 * scored.level:g} % interval, half-width {scored.median_half_width_percent:.2f} %",
    ]
    lines += [f"warning: {warning}" for warning in scored.warnings]
    lines.append(f"verdict on the small runs: {scored.verdict}")
    return "\n".join(lines)


def _compared(scored: tuple[Backtest, ...]) -> str:
    lines = []
    for fitted in dict.fromkeys((one.n_fit, one.n_held_out) for one in scored):
        group = [one for one in scored if (one.n_fit, one.n_held_out) == fitted]
        first = group[0]
        lines += [
            f"{first.n_fit} runs fitted, {first.n_held_out} foretold, up to {first.reach:.3g} × "
            "the compute; percent of the loss:",
            f"  {'form':<12}{'median':>8}{'mean':>8}{'bias':>8}{'half-width':>12}{'inside':>8}",
        ]
        for one in sorted(group, key=lambda one: one.median_error_percent):
            unsure = "" if one.verdict == "supported" else "  unsupported"
            lines.append(
                f"  {one.form:<12}{one.median_error_percent:>8.2f}{one.mean_error_percent:>8.2f}"
                f"{one.bias_percent:>+8.2f}{one.median_half_width_percent:>12.2f}"
                f"{100 * one.coverage:>7.0f}%{unsure}"
            )
    lines.append(f"inside: of the {100 * scored[0].level:g} % interval")
    return "\n".join(lines)


def _advice_text(advice: Advice) -> str:
    goal = advice.goal
    lines = [
        f"to foretell {goal['params']:.3g} parameters on {goal['tokens']:.3g} tokens, run",
        *(
            f"  {run.params:.3g} parameters on {run.tokens:.3g} tokens ({run.flops:.2g} FLOPs): "
            f"takes {100 * run.gain:.2g} % of the forecast's variance away"
            for run in advice.runs
        ),
        f"verdict on the runs so far: {advice.verdict}",
    ]
    return "\n".join(lines)
