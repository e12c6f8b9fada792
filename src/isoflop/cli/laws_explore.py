"""`isoflop laws what-if` and `serving`: a law turned over; not its single forecasts (laws_use)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from isoflop.cli.arguments import Amount, Arguments, MaybeAmount
from isoflop.cli.laws_open import open_law
from isoflop.cli.laws_use import Law
from isoflop.core.console import print_result, warn
from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from isoflop.laws.overtraining import ServingOptimum
    from isoflop.laws.what_if import Variant

LOSS_FORMS = ("auto", "gamma", "chinchilla", "kaplan-nd", "surface", "data-constrained")


@dataclass(frozen=True, kw_only=True)
class WhatIfArguments(Arguments):
    """A run, or the best run of a budget, with more or less of everything."""

    law: Positional[Law]
    """A law.json with a loss over params and tokens, or the name of a published one."""
    params: MaybeAmount = None
    """Parameters of the run."""
    tokens: MaybeAmount = None
    """Its training tokens."""
    flops: MaybeAmount = None
    """A budget, instead of --params and --tokens."""
    factors: tuple[float, ...] = (0.5, 2.0, 4.0, 10.0)
    """How much more or less."""
    level: float = 0.9
    """Probability that the intervals promise."""


@dataclass(frozen=True, kw_only=True)
class ServingArguments(Arguments):
    """The model of least total compute that reaches a loss and serves so many tokens."""

    law: Positional[Law]
    """A law.json of a loss surface, or the name of a published one."""
    loss: float
    """The loss to reach."""
    served_tokens: Amount
    """Tokens over the model's life, prompts included."""
    served_cost: float = 1.0
    """What a FLOP of serving costs against one of training."""


def what_if(asked: WhatIfArguments) -> int:
    """Print the table; 1 if the law's table did not support it."""
    from isoflop.laws.what_if import what_if as vary
    from isoflop.laws.what_if import what_if_budget

    law = _open(asked.law, LOSS_FORMS)
    run = (asked.params, asked.tokens)
    rows: tuple[Variant, ...]
    if asked.flops is not None and run == (None, None):
        if law.form == "data-constrained" and not hasattr(law, "optimal"):
            raise RecipeError(
                "a law of the form data-constrained divides no budget",
                where=asked.law,
                fix="Give --params and --tokens",
            )
        rows = what_if_budget(law, asked.flops, asked.factors, asked.level)
    elif asked.flops is None and asked.params is not None and asked.tokens is not None:
        rows = vary(law, asked.params, asked.tokens, asked.factors, asked.level)
    else:
        raise RecipeError(
            "say what to vary",
            where="isoflop laws what-if",
            fix="Give --params and --tokens for a run, or --flops for the best run of a budget",
        )
    print_result({"variants": [row.to_dict() for row in rows]}, _table(rows), asked.json)
    return 0 if law.supported else 1


def serving(asked: ServingArguments) -> int:
    """Print the optimum; 1 if the law's table did not support it."""
    from isoflop.laws.overtraining import SURFACES, best_for_serving

    law = _open(asked.law, SURFACES)
    best = best_for_serving(law, asked.loss, asked.served_tokens, asked.served_cost)
    print_result(asdict(best), _serving_text(best), asked.json)
    return 0 if law.supported else 1


def _open(given: str, forms: tuple[str, ...]) -> Any:
    law = open_law(given)
    if law.form not in forms:
        raise RecipeError(
            f"a law of the form {law.form} has no one formula of the loss over params and tokens",
            where=given,
            fix=f"Give one of {', '.join(f for f in forms if f != 'surface')}, or a published "
            "surface such as besiroglu",
        )
    if not law.supported:
        warn(f"the law is {law.verdict}")
    return law


# --- words ---------------------------------------------------------------------------------


def _table(rows: tuple[Variant, ...]) -> str:
    width = max(len(row.change) for row in rows)
    head = f"{'':<{width}}{'params':>10}{'tokens':>10}{'FLOPs':>10}{'loss':>9}  interval"
    lines = [head]
    for row in rows:
        low, high = row.loss.low, row.loss.high
        between = f"{low:.4f} to {high:.4f}" if low == low else "none published"
        lines.append(
            f"{row.change:<{width}}{row.params:>10.3g}{row.tokens:>10.3g}{row.flops:>10.2g}"
            f"{row.loss.loss:>9.4f}  {between:<16}"
            + (f"  {100 * row.difference:+.2f} %" if row.difference else "")
        )
    return "\n".join(line.rstrip() for line in lines)


def _serving_text(best: ServingOptimum) -> str:
    return (
        f"{best.params:.4g} parameters on {best.tokens:.4g} tokens "
        f"({best.tokens_per_param:.3g} tokens per parameter)\n"
        f"training {best.training_flops:.3g} + serving {best.serving_flops:.3g} = "
        f"{best.total_flops:.3g} FLOPs, {100 * best.saving:.1f} % less than the model of least "
        f"training compute ({best.compute_optimal_params:.4g} on "
        f"{best.compute_optimal_tokens:.4g})"
    )
