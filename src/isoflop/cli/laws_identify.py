"""`isoflop laws profile`: how well a table determines a form; not its forecasts (laws_score)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments
from isoflop.cli.laws_fit import Runs, read_runs
from isoflop.cli.laws_plot import PlotFile, check_plot, save_plot
from isoflop.core.console import print_result

if TYPE_CHECKING:
    from isoflop.laws.design import Correlations, Profile
    from isoflop.laws.identify import Identification

MEANING = {
    "E": "E, the floor",
    "p": "p, exponent of N alone",
    "q": "q, exponent of D alone",
    "g": "g, how they combine",
}
TIED = 0.95
"""Correlation from which two parameters are said to stand for one another."""


@dataclass(frozen=True, kw_only=True)
class ProfileArguments(Arguments):
    """How well the runs determine each parameter of a form.

    Profile likelihoods with their 95 % limits, which parameters stand for one another, whether the
    fit has one optimum, and what the beliefs of the literature did to a forecast.
    """

    runs: Positional[Runs]
    """Run tables (CSV, JSONL, Parquet with columns params, tokens, loss) or ladder directories."""
    form: Literal["gamma", "chinchilla", "kaplan-nd"] = "gamma"
    """As in `laws fit`; an average (auto) has no parameters of its own."""
    columns: str = ""
    """Other names of columns, ours first: params=N,tokens=D,loss=final_loss."""
    seed: int = 0
    """Seed of the resampling."""
    plot: PlotFile = None
    """Draw the profiles into this file."""


def profile(asked: ProfileArguments) -> int:
    """Measure and print; 1 if the table does not support the form."""
    from isoflop.laws.identify import identify

    check_plot(asked.plot)
    found = identify(read_runs(asked.runs, asked.columns), asked.form, seed=asked.seed)

    def drawn() -> str:
        from isoflop.reporting.law_plot import plot_profiles

        return plot_profiles(found.form, found.profiles)

    print_result(found.to_dict(), _text(found), asked.json)
    save_plot(asked.plot, f"profiles of {asked.form}", drawn)
    return 0 if found.verdict == "supported" else 1


def _text(found: Identification) -> str:
    width = max(len(MEANING[p.parameter]) for p in found.profiles)
    lines = [f"{found.form} fitted to {found.n_runs} runs; 95 % limits of the profile likelihoods:"]
    lines += [f"  {MEANING[p.parameter]:<{width}}  {_limits(p)}" for p in found.profiles]
    loose = ", ".join(found.undetermined)
    if loose:
        lines.append(f"the runs do not determine {loose}: take no value of it from this fit")
    lines.append(_tied(found.correlations))
    lines.append(
        f"{found.basins.agreeing} of {found.basins.starts} starts of the fit end in its optimum"
    )
    lines.append(
        f"the weak belief in the literature's exponents changes the forecast of "
        f"{found.params:.3g} parameters on {found.tokens:.3g} tokens by "
        f"{found.beliefs.percent:+.2f} %"
    )
    lines.append(f"verdict: {found.verdict}")
    return "\n".join(lines)


def _limits(found: Profile) -> str:
    low = f"{found.low:.4g}" if found.low > 0.0 else "open below"
    high = f"{found.high:.4g}" if math.isfinite(found.high) else "open above"
    between = f"{low} to {high}" if found.determined else f"{low}, {high}"
    return f"{found.best:<8.4g}  {between}"


def _tied(found: Correlations) -> str:
    names, matrix = found.parameters, found.matrix
    pairs = [
        (names[i], names[j], matrix[i][j])
        for i in range(len(names))
        for j in range(i)
        if abs(matrix[i][j]) >= TIED
    ]
    if not pairs:
        return "no two parameters stand for one another"
    said = ", ".join(f"{b} and {a} ({r:+.2f})" for a, b, r in pairs)
    return f"stand for one another (correlation of their logs): {said}"
