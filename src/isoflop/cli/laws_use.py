"""`isoflop laws predict` and `optimal`: what a law of any form says; not for fitting (laws_fit)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from isoflop.cli.arguments import Arguments, MaybeAmount
from isoflop.cli.laws_fit import parse_pairs
from isoflop.cli.laws_open import open_law
from isoflop.cli.laws_plot import PlotFile, check_plot, save_plot
from isoflop.cli.laws_words import (
    Answer,
    allocation_answer,
    best_mixture_answer,
    choice_answer,
    curve_answer,
    estimate_answer,
    losses_answer,
    optimal_answer,
    prediction_answer,
)
from isoflop.core.console import print_result, warn
from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from pathlib import Path

    from isoflop.laws.schedule_terms import Schedule

Law = Annotated[str, arg(metavar="LAW.json|NAME")]
BOTH = ("params", "tokens")
UNDIVIDED = "does not divide a budget between size and data"
SCHEDULED = ("schedule", "steps", "learning_rate")


@dataclass(frozen=True, kw_only=True)
class PredictArguments(Arguments):
    """Foretell the loss of a run, or whatever else the law is about.

    What to give depends on the law's form:
    - auto, gamma, chinchilla, kaplan-nd: --params --tokens
    - kaplan-n: --params; kaplan-d: --tokens; kaplan-c, frontier: --flops
    - data-constrained: --params --tokens --unique-tokens
    - curve: --schedule --steps --learning-rate
    - hyperparameters: --params --tokens
    - mixture: --weights; loss-to-task: --loss
    - experts: --params --tokens --experts
    - precision, quantisation: --params --tokens --bits
    """

    law: Positional[Law]
    """The law.json that `isoflop laws fit` wrote, or the name of a published law."""
    params: MaybeAmount = None
    """Parameters, counted as in the table of the law (ours: without input embeddings)."""
    tokens: MaybeAmount = None
    """Training tokens."""
    flops: MaybeAmount = None
    """Training FLOPs, 6 x params x tokens."""
    unique_tokens: MaybeAmount = None
    """Tokens of the corpus, where the training repeats it."""
    experts: float | None = None
    """Experts of a layer; 1 is dense."""
    bits: float | None = None
    """Bits of the weights."""
    loss: float | None = None
    """The loss whose task score to foretell."""
    loss_stderr: float | None = None
    """Standard error of that loss, where it is a forecast."""
    weights: Annotated[str | None, arg(metavar="A=0.5,B=0.5")] = None
    """Shares of the training domains."""
    schedule: Literal["constant", "cosine", "linear", "wsd"] | None = None
    """How the learning rate moves."""
    steps: float | None = None
    """Length of the schedule, in the steps of the curves."""
    learning_rate: float | None = None
    """Its peak."""
    warmup_steps: float | None = None
    """Its linear warm-up; none if omitted."""
    final_fraction: float | None = None
    """Its last value as a share of the peak; 0 if omitted."""
    decay_fraction: float | None = None
    """The share of a wsd schedule that decays; 0.2 if omitted."""
    level: float = 0.9
    """Probability that the interval promises."""
    plot: PlotFile = None
    """Draw the forecast and its surroundings into this file."""


@dataclass(frozen=True, kw_only=True)
class OptimalArguments(Arguments):
    """Divide a compute budget between size and data; of a mixture law, find the best mixture."""

    law: Positional[Law]
    """The law.json that `isoflop laws fit` wrote, or the name of a published law."""
    flops: MaybeAmount = None
    """Training FLOPs, 6 x params x tokens (precision: x bits / 16)."""
    experts: float | None = None
    """experts: how many in a layer; 1 if omitted."""
    bits: float | None = None
    """precision: bits in training; 16 if omitted."""
    target: Annotated[str | None, arg(metavar="A=0.7,B=0.3")] = None
    """mixture: how much each validation domain's loss counts; all alike if omitted."""
    most: Annotated[str | None, arg(metavar="A=0.2")] = None
    """mixture: the largest share of a training domain, where its data are few."""
    level: float = 0.9
    """Probability that the intervals promise."""


@dataclass(frozen=True)
class Question:
    """What a form is asked with, and how it answers."""

    needs: tuple[str, ...]
    takes: tuple[str, ...]
    answer: Callable[[Any, dict[str, Any]], Answer]


def predict(asked: PredictArguments) -> int:
    """Ask the law; 1 if its table did not support it."""
    return _ask(asked, PREDICTIONS, "predict", "does not foretell a run; ask `laws optimal`")


def optimal(asked: OptimalArguments) -> int:
    """Ask the law for its best; 1 if its table did not support it."""
    return _ask(asked, OPTIMA, "optimal", UNDIVIDED)


def _ask(asked: Arguments, questions: dict[str, Question], word: str, unable: str) -> int:
    plot: Path | None = vars(asked).get("plot")
    check_plot(plot)
    outside = ("law", "json", "plot")
    given = {k: v for k, v in vars(asked).items() if v is not None and k not in outside}
    law = _open(vars(asked)["law"], word)
    if law.form not in questions:
        raise RecipeError(f"a law of the form {law.form} {unable}", where=vars(asked)["law"])
    question = questions[law.form]
    needs, takes = question.needs, (*question.needs, *question.takes, "level")
    missing = [name for name in needs if name not in given]
    if missing:
        raise RecipeError(
            f"a law of the form {law.form} needs {_flags(needs)}",
            where=f"isoflop laws {word}",
            fix=f"Add {_flags(missing)}",
        )
    extra = [name for name in given if name not in takes]
    if extra:
        raise RecipeError(
            f"a law of the form {law.form} takes no {_flags(extra)}",
            where=f"isoflop laws {word}",
            fix=f"It takes {_flags(takes)}",
        )
    document, text = question.answer(law, dict(given))
    if not law.supported:
        warn(f"the law is {law.verdict}")
    print_result(document, text, vars(asked)["json"])
    save_plot(plot, f"forecast by {vars(asked)['law']}", lambda: _drawn(law, given))
    return 0 if law.supported else 1


def _drawn(law: Any, given: dict[str, Any]) -> str:
    from isoflop.reporting.law_plot import plot_prediction

    if law.form == "curve":
        given = {"schedule": _schedule(given), "level": given["level"]}
    return plot_prediction(law, given, given["level"])


def _open(given: str, word: str) -> Any:
    """The law; of those that the literature knows for the learning rate alone, that one."""
    law = open_law(given)
    if word == "predict" and law.form in ("allocation", "hyperparameters"):
        from isoflop.laws import hyperparameters

        name = getattr(law, "name", "")
        if name in hyperparameters.PUBLISHED:
            return hyperparameters.published_law(name)
    return law


def _flags(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


# --- what each form is asked with ------------------------------------------------------------


def _loss(law: Any, given: dict[str, Any]) -> Answer:
    return prediction_answer(law, law.predict(**given), given)


def _power_published(law: Any, given: dict[str, Any]) -> Answer:
    """A published power of one variable: what it does not use is taken not to limit the loss."""
    return prediction_answer(law, law.predict(**{"params": 1.0, "tokens": 1.0, **given}), given)


def _compute(law: Any, given: dict[str, Any]) -> Answer:
    if "flops" in given and "params" in given and "tokens" in given:
        raise RecipeError("--flops is --params and --tokens already", fix="Leave one of them out")
    return _loss(law, given)


def _task(law: Any, given: dict[str, Any]) -> Answer:
    return estimate_answer("score", law.predict(**given))


def _added(law: Any, given: dict[str, Any]) -> Answer:
    return estimate_answer("added loss", law.predict(**given))


def _choice(law: Any, given: dict[str, Any]) -> Answer:
    return choice_answer(law.predict(**given))


def _mixed(law: Any, given: dict[str, Any]) -> Answer:
    weights = _shares(given["weights"], "--weights")
    return losses_answer(law.predict(weights, given["level"]))


def _curve(law: Any, given: dict[str, Any]) -> Answer:
    schedule = _schedule(given)
    return curve_answer(law.predict(schedule, level=given["level"]))


def _schedule(given: dict[str, Any]) -> Schedule:
    from isoflop.laws.schedule_terms import Schedule

    rest = {k: given[k] for k in ("final_fraction", "decay_fraction") if k in given}
    return Schedule.named(
        given["schedule"],
        steps=given["steps"],
        peak=given["learning_rate"],
        warmup=given.get("warmup_steps", 0.0),
        **rest,
    )


def _best(law: Any, given: dict[str, Any]) -> Answer:
    if not hasattr(law, "optimal"):
        raise RecipeError(f"a law of the form {law.form} {UNDIVIDED}")
    return optimal_answer(law, law.optimal(**given))


def _best_experts(law: Any, given: dict[str, Any]) -> Answer:
    return allocation_answer(law, law.optimal(**given), given["flops"])


def _best_bits(law: Any, given: dict[str, Any]) -> Answer:
    level = given.pop("level")
    params, tokens = law.optimal(**given)
    bits = {"bits": given["bits"]} if "bits" in given else {}
    loss = law.predict(params, tokens, level=level, **bits)
    alpha, beta = law.parameters["alpha"], law.parameters["beta"]
    document = {
        "params": params,
        "tokens": tokens,
        "flops": given["flops"],
        "loss": prediction_answer(law, loss, {"params": params, "tokens": tokens})[0],
        "exponents": {"a": beta / (alpha + beta), "b": alpha / (alpha + beta)},
    }
    return document, (
        f"{params:.4g} parameters on {tokens:.4g} tokens for {given['flops']:.4g} FLOPs\n"
        f"loss {loss.value:.4f}, between {loss.low:.4f} and {loss.high:.4f}"
    )


def _best_mixture(law: Any, given: dict[str, Any]) -> Answer:
    target = _shares(given["target"], "--target") if "target" in given else None
    most = _shares(given["most"], "--most") if "most" in given else None
    return best_mixture_answer(law.best(target, most=most, level=given["level"]))


def _shares(text: str, flag: str) -> dict[str, float]:
    pairs = parse_pairs(text, flag, "web=0.7,code=0.3")
    try:
        return {name: float(share) for name, share in pairs.items()}
    except ValueError:
        raise RecipeError(f"{text!r} holds a share that is no number", where=flag) from None


_SURFACE = Question(BOTH, (), _loss)
_DATA = Question(BOTH, ("unique_tokens",), _loss)
_COMPUTE = Question((), ("flops", *BOTH), _compute)
PREDICTIONS: dict[str, Question] = {
    **dict.fromkeys(("auto", "gamma", "chinchilla", "kaplan-nd", "surface"), _SURFACE),
    **dict.fromkeys(("data-constrained",), _DATA),
    "kaplan-n": Question(("params",), ("tokens",), _loss),
    "kaplan-d": Question(("tokens",), ("params",), _loss),
    "kaplan-c": _COMPUTE,
    "frontier": Question(("flops",), (), _loss),
    "power-n": Question(("params",), ("tokens",), _power_published),
    "power-d": Question(("tokens",), ("params",), _power_published),
    "power-c": Question(BOTH, (), _loss),
    "hyperparameters": Question(BOTH, (), _choice),
    "curve": Question(SCHEDULED, ("warmup_steps", "final_fraction", "decay_fraction"), _curve),
    "mixture": Question(("weights",), (), _mixed),
    "loss-to-task": Question(("loss",), ("loss_stderr",), _task),
    "experts": Question(BOTH, ("experts",), _loss),
    "precision": Question(BOTH, ("bits",), _loss),
    "quantisation": Question((*BOTH, "bits"), (), _added),
}
"""Form (or kind of a published law) → what it is asked with for a prediction."""

_BUDGET = Question(("flops",), (), _best)
OPTIMA: dict[str, Question] = {
    **dict.fromkeys(("auto", "gamma", "chinchilla", "kaplan-nd", "frontier", "isoflop"), _BUDGET),
    **dict.fromkeys(("surface", "allocation", "power-c", "data-constrained"), _BUDGET),
    "experts": Question(("flops",), ("experts",), _best_experts),
    "precision": Question(("flops",), ("bits",), _best_bits),
    "mixture": Question((), ("target", "most"), _best_mixture),
}
"""Form (or kind of a published law) → what it is asked with for the best of something."""
