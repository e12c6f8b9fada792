"""What laws answer, as a document and as text; not for asking them (laws_use)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoflop.laws.family import Estimate
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Optimal, Prediction

if TYPE_CHECKING:
    from isoflop.laws.curve import CurveForecast
    from isoflop.laws.experts import Allocation
    from isoflop.laws.hyperparameters import Choice, HyperparameterPrediction
    from isoflop.laws.mixture import Mixture

Answer = tuple[dict[str, Any], str]
"""The JSON document and the text."""
SHOWN = 1.005
"""Times beyond the runs of a law from which it is said."""


def prediction_answer(law: Any, promise: Prediction | Estimate, given: Mapping[str, Any]) -> Answer:
    """A loss with its interval and how far it lies beyond the law's runs.

    `extrapolation` always has params, tokens and flops; null where the law does not know.
    """
    if isinstance(promise, Estimate):
        beyond: dict[str, float] = {}
        document: dict[str, Any] = {
            "loss": promise.value,
            "low": promise.low,
            "high": promise.high,
            "level": promise.level,
        }
    else:
        beyond = promise.extrapolation
        document = promise.to_dict()
    asked = {name: given[name] for name in ("params", "tokens", "flops") if name in given}
    if "params" in asked and "tokens" in asked:
        asked["flops"] = FLOPS_PER_PARAMETER_TOKEN * asked["params"] * asked["tokens"]
    known = {
        name: max(value / law.domain[name][1], law.domain[name][0] / value, 1.0)
        for name, value in asked.items()
        if name in law.domain
    }
    named = dict.fromkeys(("params", "tokens", "flops"))
    document["extrapolation"] = {**named, **known, **beyond}
    return document, prediction_text(document)


def prediction_text(document: Mapping[str, Any]) -> str:
    """`loss 2.1, with 90 % probability between …` and how far out it is."""
    loss, low, high = (document[name] for name in ("loss", "low", "high"))
    if loss is None or math.isnan(loss):
        return "the law says nothing of the loss"
    if low is None or math.isnan(low):
        first = f"loss {loss:.4f} ({document.get('basis', 'no interval')})"
    else:
        first = (
            f"loss {loss:.4f}, with {100 * document['level']:g} % probability between "
            f"{low:.4f} and {high:.4f}"
        )
        if "basis" in document:
            first += f"\n({document['basis']})"
    return f"{first}\n{_beyond(document['extrapolation'])}"


def _beyond(times: Mapping[str, float | None]) -> str:
    known = {name: x for name, x in times.items() if x is not None}
    if not known:
        return "the range of the law's runs is not known"
    far = ", ".join(f"{x:.3g} × in {name}" for name, x in known.items() if x > SHOWN)
    return f"beyond the runs of the law: {far}" if far else "inside the range of the law's runs"


def optimal_answer(law: Any, best: Optimal) -> Answer:
    """The best division of a budget."""
    given = {"params": best.params, "tokens": best.tokens}
    document = best.to_dict()
    document["loss"], said = prediction_answer(law, best.loss, given)
    text = _division(best.params, best.tokens, best.flops, best.exponents, said)
    return document, _with_ends(text, best)


def _with_ends(text: str, best: Optimal) -> str:
    """The division with where the best size and horizon lie, after its first line."""
    ends: tuple[float, float] | None = getattr(best, "params_ends", None)
    first, rest = text.split("\n", 1)
    if ends is None:
        return f"{first}\nhow far off that may be, this law does not know\n{rest}"
    low, high = ends
    product = best.flops / FLOPS_PER_PARAMETER_TOKEN
    said = (
        f"with {100 * best.loss.level:g} % probability the best lies at {low:.3g} to {high:.3g} "
        f"parameters on {product / high:.3g} to {product / low:.3g} tokens"
    )
    return f"{first}\n{said}\n{rest}"


def allocation_answer(law: Any, best: Allocation, flops: float) -> Answer:
    """The best division of a budget at a number of experts."""
    from isoflop.laws.experts import reduced

    _, alpha, _, beta, _ = reduced(law.values(), best.experts)[0]
    exponents = {"a": float(beta / (alpha + beta)), "b": float(alpha / (alpha + beta))}
    given = {"params": best.params, "tokens": best.tokens}
    loss, said = prediction_answer(law, best.loss, given)
    document = {
        "params": best.params,
        "tokens": best.tokens,
        "flops": flops,
        "loss": loss,
        "exponents": exponents,
        "experts": best.experts,
    }
    return document, _division(best.params, best.tokens, flops, exponents, said)


def _division(
    params: float, tokens: float, flops: float, exponents: Mapping[str, float], said: str
) -> str:
    return (
        f"{params:.4g} parameters on {tokens:.4g} tokens "
        f"({tokens / params:.3g} tokens per parameter) for {flops:.4g} FLOPs\n"
        f"params grow as flops^{exponents['a']:.3f}, tokens as flops^{exponents['b']:.3f}\n{said}"
    )


def estimate_answer(what: str, value: Estimate) -> Answer:
    """A score or an added loss with its interval."""
    return value.to_dict(), f"{what} {_between(value)}"


def _between(value: Estimate, digits: str = ".4f") -> str:
    return (
        f"{value.value:{digits}}, with {100 * value.level:g} % probability between "
        f"{value.low:{digits}} and {value.high:{digits}}"
    )


def losses_answer(losses: Mapping[str, Estimate]) -> Answer:
    """The loss of each validation domain."""
    document = {"losses": {name: value.to_dict() for name, value in losses.items()}}
    return document, "\n".join(_lines(losses))


def best_mixture_answer(found: Mixture) -> Answer:
    """The mixture proposed, and what it is to give."""
    aim = found.objective
    lines = [
        f"mixture with the lowest mean loss, {_between(aim)}",
        *_lines(found.weights, ".3f"),
        "losses",
        *_lines(found.losses),
    ]
    return found.to_dict(), "\n".join(lines)


def _lines(values: Mapping[str, Estimate], digits: str = ".4f") -> list[str]:
    width = max(map(len, values))
    return [
        f"  {name:<{width}}  {v.value:{digits}}  ({v.low:{digits}} to {v.high:{digits}})"
        for name, v in values.items()
    ]


def choice_answer(found: HyperparameterPrediction) -> Answer:
    """Learning rate and batch for a run."""
    lines = [_choice("learning rate", found.learning_rate, ".3g")]
    if found.batch_tokens is not None:
        lines.append(_choice("batch in tokens", found.batch_tokens, ",.0f"))
    if found.carried_loss_percent is not None:
        lines.append(
            "keeping the optimum of the table's largest setting would cost "
            f"{found.carried_loss_percent:.2g} % of the loss"
        )
    document = found.to_dict()
    if "extrapolation" in document:
        lines.append(_beyond(document["extrapolation"]))
    return document, "\n".join(lines)


def _choice(name: str, choice: Choice, digits: str) -> str:
    best = choice.best
    text = f"{name} {best.value:{digits}}"
    if best.high > best.low:
        text = f"{name} {_between(best, digits)}"
    if choice.basin is not None:
        low, high = choice.basin
        text += f"; from {low:{digits}} to {high:{digits}} it costs at most 0.25 % of the loss"
    return text


def curve_answer(forecast: CurveForecast) -> Answer:
    """The loss at a schedule's end, and the whole curve in the document."""
    whole = forecast.to_dict()
    end = {name: whole.pop(name)[-1] for name in ("loss", "low", "high")}
    document = {
        **end,
        **{name: whole[name] for name in ("level", "extrapolation")},
        "curve": {**forecast.to_dict()},
    }
    for name in ("level", "extrapolation"):
        document["curve"].pop(name)
    return document, f"at the end of the schedule: {prediction_text(document)}"
