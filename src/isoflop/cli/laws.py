"""`isoflop laws`: fit, predict, optimal, backtest; parses, calls one function, prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from isoflop.cli.arguments import Arguments, dispatch, parse_arguments
from isoflop.core.console import print_result, warn
from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from isoflop.laws import Backtest, Law, Optimal, Prediction, RunTable

Form = Literal["chinchilla", "gamma", "kaplan-nd"]
Objective = Literal["huber", "lad", "lsq"]
Runs = Annotated[tuple[Path, ...], arg(metavar="RUNS...")]


@dataclass(frozen=True, kw_only=True)
class FitArguments(Arguments):
    """Fit a law to tables of runs and say whether they support it."""

    runs: Positional[Runs]
    """CSV, JSONL or Parquet files with columns params, tokens, loss; or ladder directories."""
    form: Form = "chinchilla"
    """chinchilla: E + A/N^alpha + B/D^beta. gamma: E + (A*N^-a + B*D^-b)^g with weak priors, which
    foretells larger runs better on most tables. kaplan-nd: (A*N^-a + B*D^-b)^g, for ladders of tiny
    models, whose losses are so far above E that it cannot be told."""
    objective: Objective = "huber"
    """What is minimised over residuals of the log loss: huber (width 1e-3), lad (absolute) or lsq
    (squared)."""
    columns: str = ""
    """Other names of columns, ours first: params=N,tokens=D,loss=final_loss."""
    bootstrap: int = 1000
    """Refits behind standard errors and intervals."""
    seed: int = 0
    """Seed of the resampling."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="LAW.json")] = None
    """The file to write; without it the law is only printed."""


@dataclass(frozen=True, kw_only=True)
class PredictArguments(Arguments):
    """Foretell the loss of a run."""

    law: Positional[Annotated[Path, arg(metavar="LAW.json")]]
    """The law.json that `isoflop laws fit` wrote."""
    params: float
    """Parameters, counted as in the table of the law (ours: without input embeddings)."""
    tokens: float
    """Training tokens."""
    level: float = 0.9
    """Probability that the interval promises."""


@dataclass(frozen=True, kw_only=True)
class OptimalArguments(Arguments):
    """Divide a compute budget between size and data."""

    law: Positional[Annotated[Path, arg(metavar="LAW.json")]]
    """The law.json that `isoflop laws fit` wrote."""
    flops: float
    """Training FLOPs, 6 x params x tokens."""
    level: float = 0.9
    """Probability that the loss's interval promises."""


@dataclass(frozen=True, kw_only=True)
class BacktestArguments(Arguments):
    """Fit the runs of least compute and score the forecasts of the rest."""

    runs: Positional[Runs]
    """CSV, JSONL or Parquet files with columns params, tokens, loss; or ladder directories."""
    holdout: float = 0.2
    """Share of the runs, those of most compute, to foretell."""
    form: Form = "chinchilla"
    """chinchilla or gamma, as in `laws fit`."""
    objective: Objective = "huber"
    """huber, lad or lsq, as in `laws fit`."""
    columns: str = ""
    """Other names of columns, ours first: params=N,tokens=D,loss=final_loss."""
    level: float = 0.9
    """Probability that the intervals promise."""


def run(args: list[str]) -> int:
    """Run `isoflop laws ARGS`; 1 if the law's verdict is `unsupported`."""
    return dispatch(
        "laws",
        {
            "fit": (_fit, "fit a law to tables of runs"),
            "predict": (_predict, "the loss of a run, with its interval"),
            "optimal": (_optimal, "the best size and horizon for a budget"),
            "backtest": (_backtest, "fit the small runs, score the large ones"),
        },
        args,
    )


def _fit(args: list[str]) -> int:
    asked = parse_arguments(FitArguments, args, "laws fit")
    from isoflop.laws import fit

    table = _table(asked.runs, asked.columns)
    law = fit(table, asked.form, asked.objective, bootstrap=asked.bootstrap, seed=asked.seed)
    if asked.out is not None:
        law.save(asked.out)
    print_result(law.to_dict(), _law_text(law, asked.out), asked.json)
    return 0 if law.supported else 1


def _predict(args: list[str]) -> int:
    asked = parse_arguments(PredictArguments, args, "laws predict")
    from isoflop.laws import load_law

    law = load_law(asked.law)
    promise = law.predict(asked.params, asked.tokens, asked.level)
    _caution(law)
    print_result(promise.to_dict(), _promise_text(promise), asked.json)
    return 0 if law.supported else 1


def _optimal(args: list[str]) -> int:
    asked = parse_arguments(OptimalArguments, args, "laws optimal")
    from isoflop.laws import load_law

    law = load_law(asked.law)
    best = law.optimal(asked.flops, asked.level)
    _caution(law)
    print_result(best.to_dict(), _optimal_text(best), asked.json)
    return 0 if law.supported else 1


def _backtest(args: list[str]) -> int:
    asked = parse_arguments(BacktestArguments, args, "laws backtest")
    from isoflop.laws import backtest

    table = _table(asked.runs, asked.columns)
    scored = backtest(table, asked.holdout, asked.form, asked.objective, level=asked.level)
    print_result(scored.to_dict(), _backtest_text(scored), asked.json)
    return 0 if scored.verdict == "supported" else 1


def parse_columns(text: str) -> dict[str, str]:
    """`params=N,tokens=D` as a mapping.

    Raises:
        RecipeError: A part is not of the form name=name.
    """
    mapping = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        ours, equals, theirs = (side.strip() for side in part.partition("="))
        if not (ours and equals and theirs):
            raise RecipeError(
                f"{part!r} does not say which column is which",
                where="--columns",
                fix="Write ours=theirs, such as params=N,tokens=D,loss=final_loss",
            )
        mapping[ours] = theirs
    return mapping


def _table(runs: Sequence[Path], columns: str) -> RunTable:
    from isoflop.laws import read_table

    table = read_table(runs, parse_columns(columns))
    for row in table.rejected:
        warn(f"{row.where}: left out, {row.reason}")
    return table


def _caution(law: Law) -> None:
    if not law.supported:
        warn(f"the law is {law.verdict}")


# --- words ---------------------------------------------------------------------------------


def _law_text(law: Law, output: Path | None) -> str:
    lines = [f"L(N, D) = {law.formula}   ({law.n_runs} runs, {law.objective})"]
    for name, value in law.parameters.items():
        lines.append(f"  {name:<6} {value:<12.6g} ± {law.stderr[name]:.2g}")
    low, high = law.domain["flops"]
    lines.append(f"runs from {low:.2g} to {high:.2g} FLOPs")
    lines.append(f"a single run is uncertain by ± {100 * law.noise.run_to_run:.2g} % by chance")
    lines += [f"warning: {warning}" for warning in law.warnings]
    lines.append(f"verdict: {law.verdict}")
    if output is not None:
        lines.append(f"written to {output}")
    return "\n".join(lines)


def _promise_text(promise: Prediction) -> str:
    beyond = promise.extrapolation
    far = ", ".join(f"{x:.3g} × in {name}" for name, x in beyond.items() if x > 1.0)
    return (
        f"loss {promise.loss:.4f}, with {100 * promise.level:g} % probability between "
        f"{promise.low:.4f} and {promise.high:.4f}\n"
        + (f"beyond the runs of the table: {far}" if far else "inside the table's range")
    )


def _optimal_text(best: Optimal) -> str:
    return (
        f"{best.params:.4g} parameters on {best.tokens:.4g} tokens "
        f"({best.tokens / best.params:.3g} tokens per parameter) for {best.flops:.4g} FLOPs\n"
        f"params grow as flops^{best.exponents['a']:.3f}, "
        f"tokens as flops^{best.exponents['b']:.3f}\n{_promise_text(best.loss)}"
    )


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
