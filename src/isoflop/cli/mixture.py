"""`isoflop mixture`: parses, calls `planning.mixture_search`, prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isoflop.cli.arguments import parse_recipe_arguments
from isoflop.cli.plan_first import CostlyArguments, begins
from isoflop.core.console import make_progress, print_result
from isoflop.core.foresight import Foresight
from isoflop.planning.mixing_recipe import MixtureRecipe

if TYPE_CHECKING:
    from isoflop.planning.mixing import MixtureSearch


@dataclass(frozen=True, kw_only=True)
class MixtureArguments(CostlyArguments):
    """Find the best mixture of several sources with tiny models, promise its losses, check them.

    Exit code 1: the proxies support no mixture, or the promise was not kept.
    """


def run(args: list[str]) -> int:
    """Run `isoflop mixture RECIPE.toml -o DIR`."""
    arguments, recipe = parse_recipe_arguments(MixtureArguments, MixtureRecipe, args, "mixture")
    from isoflop.planning.mixing import mixture_search

    def foretell() -> Foresight:
        from isoflop.planning.foresee import foresee_mixture

        return foresee_mixture(recipe, arguments.out)

    if not begins(arguments, arguments.plan, arguments.out, foretell):
        return 0
    search = mixture_search(recipe, arguments.out, make_progress(arguments.json))
    print_result(dict(search.result), _text(recipe, search), arguments.json)
    return 0 if search.held else 1


def mixture_toml(recipe: MixtureRecipe, weights: Mapping[str, float]) -> str:
    """The tables that a train recipe takes."""
    shards = {source.name: source.shards.as_posix() for source in recipe.sources}
    return "\n".join(
        f"[[data.mixture]]\nname = {_quoted(name)}\nshards = {_quoted(shards[name])}\n"
        f"weight = {weight:g}\n"
        for name, weight in weights.items()
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _text(recipe: MixtureRecipe, search: MixtureSearch) -> str:
    result = search.result
    width = max(6, *map(len, recipe.domains))
    lines = [
        f"{result['proxies']} proxies of {result['params']:,} parameters and "
        f"{result['tokens']:,} tokens; of mixtures left out the law foretells "
        f"{result['foretold']:.0%} of the differences",
        f"{'source':<{width}} {'natural':>8} {'best':>8} {'interval':>17} {'most':>7} "
        f"{'epochs':>7}",
    ]
    for name, share in search.weights.items():
        source = result["sources"][name]
        lines.append(
            f"{name:<{width}} {source['natural']:>8.4f} {share.value:>8.4f} "
            f"{f'{share.low:.4f} – {share.high:.4f}':>17} {source['most']:>7.4f} "
            f"{source['epochs']:>7.2f}{'  synthetic' if source['synthetic'] else ''}"
        )
    if recipe.synthetic:
        share = result["synthetic_share"]
        lines.append(f"synthetic: {share['best']:.1%} ({share['natural']:.1%} by nature)")
    if not search.supported:
        lines.append(f"verdict: {search.verdict}")
        return "\n".join(lines)
    lines += _scores(recipe, search, width)
    values = {name: share.value for name, share in search.weights.items()}
    return "\n".join([*lines, "", mixture_toml(recipe, values)])


def _scores(recipe: MixtureRecipe, search: MixtureSearch, width: int) -> list[str]:
    result, gain = search.result, search.gain
    lines = [f"{'loss':<{max(width, 9)}} {'promised':>9} {'interval':>17} {'came':>8}"]
    for name, loss in result["losses"].items():
        natural: dict[str, Any] = result["natural_losses"][name]
        verdict = "held" if loss["held"] else "MISSED"
        lines.append(
            f"{name:<{max(width, 9)}} {loss['value']:>9.4f} "
            f"{'{low:.4f} – {high:.4f}'.format(**loss):>17} {loss['outcome']:>8.4f} {verdict}"
            f"; natural {natural['outcome']:.4f}"
        )
    if gain is not None:
        word = "beyond the noise" if gain.low > 0.0 else "within the noise of the runs"
        if gain.high < 0.0:
            word = "worse than the natural proportions"
        lines.append(
            f"gain over the natural proportions {gain.value:+.4f} ({gain.low:+.4f} to "
            f"{gain.high:+.4f} at {gain.level:.0%}): {word}"
        )
    return lines
