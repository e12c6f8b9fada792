"""`isoflop laws fit`: a law of any form from the table it takes; not for using a law (laws_use)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from isoflop.cli.arguments import Arguments
from isoflop.cli.laws_open import open_law
from isoflop.cli.laws_plot import PlotFile, check_plot, save_plot
from isoflop.core.console import print_result, warn
from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from isoflop.laws.fitting import AnyTable
    from isoflop.laws.load import AnyLaw
    from isoflop.laws.records import Rejected, RunTable

Form = Literal[
    "auto", "gamma", "chinchilla", "kaplan-nd", "kaplan-n", "kaplan-d", "kaplan-c", "frontier",
    "isoflop", "data-constrained", "curve", "hyperparameters", "mixture", "loss-to-task",
    "experts", "precision", "quantisation",
]  # fmt: skip
Objective = Literal["huber", "lad", "lsq"]
Runs = Annotated[tuple[Path, ...], arg(metavar="RUNS...")]
MOST_LINES = 24
OWN_OPTIONS = ("floor", "base", "of", "task", "chance", "task_curve", "warmup_steps")


@dataclass(frozen=True, kw_only=True)
class FitArguments(Arguments):
    """Fit a law to tables and say whether they support it.

    RUNS are CSV, JSONL or Parquet files. Most forms take a run table (columns params, tokens, loss)
    or a ladder directory; --form says which take other tables.
    """

    runs: Positional[Runs]
    """Tables or directories; several are put together."""
    form: Form = "chinchilla"
    """What depends on what. From a run table (params, tokens, loss):
    - chinchilla: E + A/N^alpha + B/D^beta
    - gamma: E + (A*N^-a + B*D^-b)^g with weak priors
    - auto: their average, weighed by how each foretells the larger runs
      of the table; the best forecast on most tables
    - kaplan-nd: gamma without E, for tiny models far above any floor
    - kaplan-n, kaplan-d, kaplan-c: a power of N, D or C alone
    - frontier: E + A*C^-g of compute-optimal runs (at fixed budgets)
    - isoflop: N_opt = k*C^a (at fixed budgets)
    - data-constrained: repeated epochs (also unique_tokens)
    From tables of other columns:
    - curve: a loss curve from its schedule (run_id, step,
      learning_rate, loss; or run directories)
    - hyperparameters: the best rate and batch (params, tokens,
      learning_rate; batch_tokens and loss where there are any)
    - mixture: the loss of each domain (weight:NAME and loss:NAME)
    - loss-to-task: a score from the loss (loss, and --task)
    - experts: params (active), tokens, experts, loss
    - precision: params, tokens, bits, loss
    - quantisation: params, tokens, bits, added_loss"""
    objective: Objective | None = None
    """Surfaces and power laws: what is minimised over residuals of the log loss: huber (width 1e-3;
    the default), lad (absolute) or lsq (squared)."""
    no_priors: bool = False
    """Surfaces: leave the exponents of the literature out; compare to see what they did."""
    floor: Literal["compare", "fit", "none"] | None = None
    """kaplan-n, -d, -c: fit the floor E, have none, or compare both (the default)."""
    base: Annotated[str | None, arg(metavar="LAW.json|NAME")] = None
    """data-constrained: a surface of fresh data to hold fixed; fitted with the rest if omitted."""
    of: Literal["params-tokens", "flops"] | None = None
    """hyperparameters: powers of N and D (the default), or of the compute alone."""
    task: Annotated[str | None, arg(metavar="COLUMN")] = None
    """loss-to-task: the column of scores, shares from 0 to 1: metric:NAME, or any other."""
    chance: float | None = None
    """loss-to-task: the score of guessing; fitted if omitted."""
    task_curve: Literal["sigmoid", "exponential"] | None = None
    """loss-to-task: the shape; sigmoid if omitted."""
    warmup_steps: float | None = None
    """curve: steps of warm-up before the first row, where the table begins after it."""
    columns: str = ""
    """Other names of columns, ours first: params=N,tokens=D,loss=final_loss."""
    bootstrap: int | None = None
    """Refits behind standard errors and intervals; 1000 for surfaces and power laws."""
    seed: int = 0
    """Seed of the resampling."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="LAW.json")] = None
    """The file to write; without it the law is only printed."""
    plot: PlotFile = None
    """Draw the law and its runs into this file."""


def fit(asked: FitArguments) -> int:
    """Fit, write, print; 1 if the table does not support the law."""
    from isoflop.laws.families import check_options
    from isoflop.laws.fitting import fit as fit_any
    from isoflop.laws.fitting import read_for

    check_plot(asked.plot)
    own = {name: getattr(asked, name) for name in OWN_OPTIONS}
    given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    if asked.no_priors:
        given["priors"] = False
    check_options(asked.form, asked.objective, given)
    table = read_for(
        asked.form,
        asked.runs,
        parse_columns(asked.columns),
        task=asked.task,
        warmup_steps=asked.warmup_steps,
    )
    say_rejected(table.rejected)
    if asked.base is not None:
        given["base"] = _base(asked.base)
    law = fit_any(table, asked.form, asked.objective, asked.bootstrap, asked.seed, **given)
    if asked.out is not None:
        law.save(asked.out)
    print_result(law.to_dict(), law_text(law, asked.out), asked.json)
    save_plot(asked.plot, f"{law.form} law", lambda: _drawn(law, table))
    return 0 if law.supported else 1


def _drawn(law: AnyLaw, table: AnyTable) -> str:
    from isoflop.reporting.law_plot import plot_law

    return plot_law(law, table)


def _base(given: str) -> Any:
    """A law to hold fixed; of a published one its parameters."""
    from isoflop.laws.overtraining import SURFACES
    from isoflop.laws.predict import AUTO
    from isoflop.laws.published import PublishedLaw

    law = open_law(given)
    if law.form == AUTO or law.form not in SURFACES:
        raise RecipeError(
            f"a law of the form {law.form} is no surface of fresh data",
            where="--base",
            fix="Give one of the form chinchilla or gamma, or a published surface",
        )
    return law.parameters if isinstance(law, PublishedLaw) else law


def parse_columns(text: str) -> dict[str, str]:
    """`params=N,tokens=D` as a mapping.

    Raises:
        RecipeError: A part is not of the form name=name.
    """
    return parse_pairs(text, "--columns", "params=N,tokens=D,loss=final_loss")


def parse_pairs(text: str, flag: str, example: str) -> dict[str, str]:
    """`a=b,c=d` as a mapping; RecipeError where a part is not of that form."""
    mapping = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        left, equals, right = (side.strip() for side in part.partition("="))
        if not (left and equals and right):
            what = "which column is which" if flag == "--columns" else "what is how much"
            raise RecipeError(
                f"{part!r} does not say {what}", where=flag, fix=f"Write it as in {example}"
            )
        mapping[left] = right
    return mapping


def read_runs(runs: Sequence[Path], columns: str) -> RunTable:
    """The run table, with a word on every row that was left out."""
    from isoflop.laws.records import read_table

    table = read_table(runs, parse_columns(columns))
    say_rejected(table.rejected)
    return table


def say_rejected(rejected: Sequence[Rejected]) -> None:
    """Each row that was left out, on stderr."""
    for row in rejected:
        warn(f"{row.where}: left out, {row.reason}")


# --- words ---------------------------------------------------------------------------------


def law_text(law: AnyLaw, output: Path | None = None) -> str:
    """A law for people: formula, parameters, range, noise, warnings, verdict."""
    what = f"{law.n_runs} {'curves' if law.form == 'curve' else 'runs'}, {law.objective}"
    lines = [f"{law.form}: {law.formula}   ({what})"]
    if members := getattr(law, "members", ()):
        lines.append(f"averaged: {_shares(members)}; the heaviest has")
    if len(law.parameters) > MOST_LINES:
        lines.append(f"  {len(law.parameters)} parameters (in law.json, or with --json)")
    else:
        width = max(6, *map(len, law.parameters))
        lines += [
            f"  {name:<{width}} {value:<12.6g} ± {law.stderr[name]:.2g}"
            for name, value in law.parameters.items()
        ]
    lines += [*_range(law), *_noise(law)]
    lines += [f"warning: {warning}" for warning in law.warnings]
    lines.append(f"verdict: {law.verdict}")
    if output is not None:
        lines.append(f"written to {output}")
    return "\n".join(lines)


def _shares(members: Sequence[Mapping[str, Any]]) -> str:
    """`gamma 62 %, chinchilla 30 %`: what each form weighs in an average."""
    total: dict[str, float] = {}
    for member in members:
        total[member["form"]] = total.get(member["form"], 0.0) + member["share"]
    ranked = sorted(total.items(), key=lambda item: -item[1])
    return ", ".join(f"{form} {100 * share:.0f} %" for form, share in ranked)


def _range(law: AnyLaw) -> list[str]:
    if "flops" in law.domain:
        low, high = law.domain["flops"]
        return [f"runs from {low:.2g} to {high:.2g} FLOPs"]
    return [f"{name} from {low:.3g} to {high:.3g}" for name, (low, high) in law.domain.items()]


def _noise(law: AnyLaw) -> list[str]:
    noise: Any = law.noise
    if not isinstance(noise, dict):
        return [f"a single run is uncertain by ± {100 * noise.run_to_run:.2g} % by chance"]
    if "bias" in noise:
        (first, error), bias = noise["envelope"], noise["bias"]
        known = "unknown" if bias is None else f"{bias:+.3f}"
        return [
            f"bias of the method on this design: {known} of a; "
            f"approach 1 (envelope): a = {first:.3f} ± {error:.2g}"
        ]
    if law.form == "curve":
        return [f"the curves lie {100 * noise['run_to_run']:.2g} % from the law"]
    if "run_to_run" in noise:
        return [f"a single run is uncertain by ± {100 * noise['run_to_run']:.2g} % by chance"]
    if law.form == "loss-to-task":
        return [f"scores lie ± {100 * noise['scatter']:.2g} points from the curve"]
    if law.form == "hyperparameters":
        spread = ", ".join(f"{100 * value:.2g} %" for value in noise["scatter"])
        return [f"the settings' optima lie ± {spread} from the law"]
    if law.form == "mixture":
        spread = f"{100 * max(noise['scatter']):.2g} %"
        return [f"losses lie at most ± {spread} (standard deviation) from the law"]
    return [f"a single run lies ± {100 * noise['scatter']:.2g} % from the law"]
