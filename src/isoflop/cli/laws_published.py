"""`isoflop laws published`: the literature's laws and models; not for using one (laws_use)."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from isoflop.cli.arguments import Arguments
from isoflop.core.console import print_result
from isoflop.core.errors import RecipeError

if TYPE_CHECKING:
    from isoflop.laws.published import KnownModel, PublishedLaw, Standing

YARDSTICK = 1e24
"""FLOPs at which the laws' divisions are compared."""


@dataclass(frozen=True, kw_only=True)
class PublishedArguments(Arguments):
    """The literature's laws and known models, with the source of each figure."""

    name: Positional[Annotated[str | None, arg(metavar="NAME")]] = None
    """A law or a model, for all that is known of it; all of them if omitted."""
    against: Annotated[str, arg(metavar="NAME")] = "besiroglu"
    """The law whose optimum the models are held against."""


def published(asked: PublishedArguments) -> int:
    """Print one, or all."""
    from isoflop.laws.load import OTHERS
    from isoflop.laws.published import known_models, published_law, published_laws

    against = published_law(asked.against)
    if asked.name is None:
        laws, models = published_laws(), known_models()
        others = {name: form for name, (_, _, form) in OTHERS.items()}
        document: dict[str, Any] = {
            "laws": [law.to_dict() for law in laws] + [_other(name) for name in others],
            "models": [_model(model, against) for model in models],
        }
        print_result(document, _all_text(laws, others, models, against), asked.json)
        return 0
    wanted = asked.name.lower()
    of_name = [model for model in known_models() if model.name.lower() == wanted]
    for law in published_laws():
        if wanted in (law.name, *law.aliases):  # Chinchilla is a law and a model
            also = [_model(model, against) for model in of_name]
            text = "\n\n".join([_law_text(law), *(_model_text(m, against) for m in of_name)])
            print_result(law.to_dict() | ({"model": also[0]} if also else {}), text, asked.json)
            return 0
    if wanted in OTHERS:
        document = _other(wanted)
        print_result(document, _other_text(wanted, document), asked.json)
        return 0
    for model in of_name:
        print_result(_model(model, against), _model_text(model, against), asked.json)
        return 0
    names = [law.name for law in published_laws()] + [*OTHERS]
    known = {name.lower(): name for name in (*names, *(m.name for m in known_models()))}
    near = get_close_matches(wanted, known, n=1)
    raise RecipeError(
        f"nothing published is called {asked.name!r}",
        where="isoflop laws published",
        fix=f"Did you mean {known[near[0]]}?" if near else "Without a name it lists all",
    )


def _other(name: str) -> dict[str, Any]:
    """A published law of another form than those of `laws.published`, without its draws."""
    from isoflop.laws.load import find_law

    law: Any = find_law(name)
    kept = ("form", "formula", "parameters")
    document = law.to_dict()
    source = ", ".join(entry["path"] for entry in document["source"])
    return {"name": name, **{key: document[key] for key in kept}, "source": source}


def _model(model: KnownModel, against: PublishedLaw) -> dict[str, Any]:
    found = _standing(model, against)
    place = None
    if found is not None:
        place = {
            "law": found.law,
            "optimal_params": found.optimal_params,
            "optimal_tokens": found.optimal_tokens,
            "size_ratio": found.size_ratio,
            "excess_loss": found.excess_loss,
        }
    return {**model.to_dict(), "standing": place}


def _standing(model: KnownModel, against: PublishedLaw) -> Standing | None:
    from isoflop.laws.published import standing

    return standing(model, against)


# --- words ---------------------------------------------------------------------------------


def _all_text(
    laws: tuple[PublishedLaw, ...],
    others: dict[str, str],
    models: tuple[KnownModel, ...],
    against: PublishedLaw,
) -> str:
    lines = [
        f"laws, and how each divides {YARDSTICK:.0e} FLOPs",
        f"  {'name':<20}{'kind':<17}{'N':>7}{'D':>8}{'D/N':>7}  title",
    ]
    for law in laws:
        lines.append(f"  {law.name:<20}{law.kind:<17}{_division(law)}  {law.title}")
    for name, form in others.items():
        document = _other(name)
        lines.append(f"  {name:<20}{form:<17}{'-':>7}{'-':>8}{'-':>7}  {document['source']}")
    lines += [
        "",
        f"models, against the optimum of {against.name} for their compute: N/best below 1 is "
        "trained longer than",
        "training compute alone asks for; loss is what that costs (of mixtures, active parameters)",
        f"  {'name':<17}{'year':>5}{'N':>7}{'active':>8}{'D':>8}{'D/N':>7}{'FLOPs':>9}"
        f"{'N/best':>8}{'loss':>8}  source",
    ]
    lines += [_model_row(model, _standing(model, against)) for model in models]
    lines.append("`isoflop laws published NAME` says all of one; - is not public")
    return "\n".join(lines)


def _division(law: PublishedLaw) -> str:
    if law.allocation is None and law.kind not in ("surface", "data-constrained"):
        return f"{'-':>7}{'-':>8}{'-':>7}"
    best = law.optimal(YARDSTICK)
    ratio = _ratio(best.tokens / best.params)
    return f"{_short(best.params):>7}{_short(best.tokens):>8}{ratio:>7}"


def _model_row(model: KnownModel, found: Standing | None) -> str:
    ratio, compute = model.tokens_per_param, model.compute
    size = "-" if found is None else f"{found.size_ratio:.2g}"
    excess = "-"
    if found is not None and found.excess_loss is not None:
        excess = f"{100 * found.excess_loss:+.1f} %"
    active = "" if model.active_params is None else _short(model.active_params)
    source = model.source.partition(",")[0]
    return (
        f"  {model.name:<17}{model.year:>5}{_short(model.params):>7}{active:>8}"
        f"{_short(model.tokens):>8}{_ratio(ratio):>7}"
        f"{'-' if compute is None else f'{compute:.2g}':>9}{size:>8}{excess:>8}  {source}"
    )


def _law_text(law: PublishedLaw) -> str:
    lines = [f"{law.name}: {law.title}", f"  {law.formula}"]
    for name, value in law.parameters.items():
        error = f" ± {law.stderr[name]:.2g}" if name in law.stderr else ""
        lines.append(f"  {name:<16} {value:<12.6g}{error}".rstrip())
    if law.allocation is not None:
        a, k = law.allocation["exponent"], law.allocation["coefficient"]
        lines.append(f"  N_opt = {k:.4g}*C^{a:.4g}")
    for name, (low, high) in law.domain.items():
        lines.append(f"  {name} from {low:.3g} to {high:.3g}")
    lines += [f"N counts {law.counts}; loss in {law.unit}", law.note, f"source: {law.source}"]
    if law.aliases:
        lines.append(f"also called {', '.join(law.aliases)}")
    return "\n".join(line for line in lines if line)


def _other_text(name: str, document: dict[str, Any]) -> str:
    lines = [f"{name}: {document['form']}", f"  {document['formula']}"]
    lines += [f"  {key:<10} {value:.6g}" for key, value in document["parameters"].items()]
    return "\n".join([*lines, f"source: {document['source']}"])


def _model_text(model: KnownModel, against: PublishedLaw) -> str:
    found = _standing(model, against)
    used = f" ({_short(model.active_params)} of them active)" if model.active_params else ""
    size, data = (
        f"unpublished {what}" if number is None else f"{_short(number)} {what}"
        for what, number in (("parameters", model.params), ("tokens", model.tokens))
    )
    lines = [f"{model.name} ({model.year}): {size}{used}, {data}"]
    if model.compute is not None:
        how = "as published" if model.flops is not None else "6·N·D"
        lines.append(f"  {model.compute:.3g} FLOPs ({how})")
    if found is not None:
        lines.append(
            f"  {against.name} would put that compute into {_short(found.optimal_params)} "
            f"parameters on {_short(found.optimal_tokens)} tokens: it has {found.size_ratio:.2g} "
            "times the best size"
        )
        if found.excess_loss is not None:
            lines.append(f"  which costs {100 * found.excess_loss:.2g} % of the loss by that law")
    looked_up = f"looked up at {model.checked}" if model.checked else "not looked up again"
    lines += [model.note, f"source: {model.source} ({looked_up})"]
    return "\n".join(line for line in lines if line)


def _ratio(ratio: float | None) -> str:
    """Tokens per parameter."""
    if ratio is None:
        return "-"
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _short(number: float | None) -> str:
    """`70B`: three digits and a letter; `-` for what is not public."""
    if number is None:
        return "-"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"
