"""The search of the best mixture, from recipe to scored promise; no training of its own.

Tiny models on sampled mixtures, a law of each domain's loss in the weights (Ye et al. 2024), the
law's best mixture (RegMix, Liu et al. 2024; its worst case is DoReMi's aim, Xie et al. 2023), a
promise of what that mixture gives, and the runs that score it. Each step finds what is on disk, so
the same command continues an interrupted search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.core.artifact import MANIFEST, sha256_file, write_json, write_manifest
from isoflop.core.console import SILENT, Progress, warn
from isoflop.core.hardware import calibrate, machine
from isoflop.core.ledger import LEDGER, Ledger, Promise
from isoflop.core.lock import locked
from isoflop.core.recipe import to_dict
from isoflop.laws.family import Estimate
from isoflop.laws.mixture import MixtureLaw, fit_mixture
from isoflop.laws.tables import MixtureTable, read_mixtures
from isoflop.planning.mixing_design import Shares, design, shares_of
from isoflop.planning.mixing_law import Proposal, foretell, measured_gain, propose
from isoflop.planning.mixing_recipe import MixtureRecipe
from isoflop.planning.mixing_runs import MIXTURES, Mixed, Outcome, train_mixtures, write_mixtures
from isoflop.training.run_directory import CONFIG, claim

LAW, RESULT = "law.json", "result.json"
BEST, NATURAL = "best", "natural"
OBJECTIVE = "objective"


@dataclass(frozen=True)
class MixtureSearch:
    """A finished search; `result.json` holds the same."""

    directory: Path
    weights: dict[str, Estimate]
    """The best mixture by the law."""
    law: MixtureLaw
    promises: tuple[Promise, ...]
    """Made of the best mixture and the natural one, and scored; none where the law is unsupported.
    """
    gain: Estimate | None
    """By how much the objective's mean over runs fell; None where nothing was promised."""
    held: bool | None
    """Whether the objective of the best mixture came to lie in its interval."""
    verdict: str
    """`supported`, or `unsupported` and why."""
    result: Mapping[str, Any]

    @property
    def supported(self) -> bool:
        """Whether the proxies support a best mixture."""
        return self.verdict == "supported"


def mixture_search(recipe: MixtureRecipe, out: Path, progress: Progress = SILENT) -> MixtureSearch:
    """Search the best mixture in the directory `out`, or continue there.

    Raises:
        RecipeError: The limits leave no mixture.
        RunError: `out` holds a search of another recipe, a run diverged, or a worker died.
        ArtifactError: Shards or the ledger cannot be used.
    """
    with locked(out):
        claim(out, recipe, "mixture search")
        calibrate()  # once here, so that workers find it measured instead of measuring at once
        shares = shares_of(recipe)
        for warning in shares.warnings:
            warn(warning)
        proxies = _proxies(recipe, shares)
        outcomes = train_mixtures(recipe, proxies, out, progress, "proxies")
        write_mixtures(recipe, proxies, outcomes, out / MIXTURES)
        table = read_mixtures([out / MIXTURES])
        law = _fit(table, recipe.train.seed)
        law.save(out / LAW)
        proposal = propose(recipe, shares, law, table)
        checks: dict[str, Outcome] = {}
        ledger = Ledger(out / LEDGER)
        if proposal.supported:
            _promise(recipe, shares, proposal, law, ledger, out)
            checks = train_mixtures(
                recipe, _checks(recipe, shares, proposal), out, progress, "checks"
            )
            _settle(recipe, proposal, ledger, checks)
        search = _search(recipe, out, shares, proposal, law, table, ledger, outcomes, checks)
        write_json(out / RESULT, search.result)
        if not (out / MANIFEST).exists():
            _seal(recipe, out)
    return search


# --- the runs ------------------------------------------------------------------------------


def _proxies(recipe: MixtureRecipe, shares: Shares) -> list[Mixed]:
    mixtures = design(recipe, shares)
    return [
        Mixed(f"proxy-{i:03d}", dict(zip(recipe.training, map(float, mixture), strict=True)), i)
        for i, mixture in enumerate(mixtures)
    ]


def _checks(recipe: MixtureRecipe, shares: Shares, proposal: Proposal) -> list[Mixed]:
    natural = _natural(recipe, shares)
    asked = [(BEST, proposal.best)] * recipe.checks + [(NATURAL, natural)] * recipe.natural_checks
    return [
        Mixed(f"check-{i:03d}-{name}", dict(weights), recipe.proxies + i)
        for i, (name, weights) in enumerate(asked)
    ]


def _natural(recipe: MixtureRecipe, shares: Shares) -> dict[str, float]:
    """The natural proportions as they are run."""
    return dict(zip(recipe.training, map(float, design(recipe, shares)[0]), strict=True))


def _fit(table: MixtureTable, seed: int) -> MixtureLaw:
    law = fit_mixture(
        table.weights,
        table.losses,
        training=table.training,
        validation=table.validation,
        seed=seed,
    )
    # By its name in the directory, so that the law is the same wherever the search lies.
    return replace(law, source=tuple({**file, "path": MIXTURES} for file in table.source))


# --- promises ------------------------------------------------------------------------------


def _promise(
    recipe: MixtureRecipe,
    shares: Shares,
    proposal: Proposal,
    law: MixtureLaw,
    ledger: Ledger,
    out: Path,
) -> None:
    """Write what the checks will come to, before they start; once only."""
    made = {p.quantity for p in ledger.read()} if ledger.path.exists() else set()
    for name, weights, runs in (
        (BEST, proposal.best, recipe.checks),
        (NATURAL, _natural(recipe, shares), recipe.natural_checks),
    ):
        foretold = foretell(proposal, law, weights, runs, recipe.level)
        listed = ", ".join(f"{source} {share:.4f}" for source, share in weights.items())
        basis = (
            f"{LAW} {sha256_file(out / LAW)[:12]}: mixture form on {law.n_runs} runs of "
            f"{MIXTURES}; mean of {runs} runs with {listed}"
        )
        for domain, loss in foretold.items():
            quantity = _quantity(name, domain)
            if quantity not in made:  # a kill may have come between two promises
                ledger.promise(
                    quantity, "nats per token", loss.value, loss.low, loss.high, recipe.level, basis
                )


def _quantity(name: str, domain: str) -> str:
    """`loss_code of best`, `objective of natural`."""
    return f"{f'loss_{domain}' if domain else OBJECTIVE} of {name}"


def _settle(
    recipe: MixtureRecipe, proposal: Proposal, ledger: Ledger, checks: Mapping[str, Outcome]
) -> None:
    outcomes: dict[str, float] = {}
    for name in (BEST, NATURAL):
        losses = _losses(recipe, [checks[run] for run in checks if run.endswith(name)]).mean(axis=0)
        outcomes[_quantity(name, "")] = float(proposal.objective.of(losses))
        for domain, loss in zip(recipe.domains, losses, strict=True):
            outcomes[_quantity(name, domain)] = float(loss)
    for promise in ledger.read():
        if not promise.settled:
            ledger.settle(promise.id, outcomes[promise.quantity])


def _losses(recipe: MixtureRecipe, outcomes: Sequence[Outcome]) -> Any:
    """(runs, I)."""
    return np.array([[outcome.losses[name] for name in recipe.domains] for outcome in outcomes])


# --- the result ----------------------------------------------------------------------------


def _search(
    recipe: MixtureRecipe,
    out: Path,
    shares: Shares,
    proposal: Proposal,
    law: MixtureLaw,
    table: MixtureTable,
    ledger: Ledger,
    proxies: Mapping[str, Outcome],
    checks: Mapping[str, Outcome],
) -> MixtureSearch:
    promises = ledger.read() if checks else ()
    kept = {promise.quantity: promise for promise in promises}
    gain, held = None, None
    if checks:
        best, natural = (
            _losses(recipe, [checks[run] for run in sorted(checks) if run.endswith(name)])
            for name in (BEST, NATURAL)
        )
        natural = np.concatenate([table.losses[: recipe.repeats], natural])
        objective = proposal.objective
        gain = measured_gain(
            objective.of(natural).tolist(), objective.of(best).tolist(), recipe.level
        )
        held = kept[_quantity(BEST, "")].held
    weights = _natural(recipe, shares)
    result = {
        "weights": {name: share.to_dict() for name, share in proposal.weights.items()},
        "natural": weights,
        "objective": {"kind": recipe.objective, "target": recipe.target},
        "losses": _promised(recipe, kept, BEST),
        "natural_losses": _promised(recipe, kept, NATURAL),
        "gain": None if gain is None else {**gain.to_dict(), "beyond_noise": gain.low > 0.0},
        "held": held,
        "verdict": proposal.verdict,
        "foretold": proposal.foretold,
        "proxies": len(proxies),
        "checks": len(checks),
        "params": next(iter(proxies.values())).params,
        "tokens": next(iter(proxies.values())).tokens,
        "seconds": sum(run.seconds for run in (*proxies.values(), *checks.values())),
        "sources": _sources(recipe, shares, proposal.best),
        "synthetic_share": {
            BEST: sum(proposal.best[name] for name in recipe.synthetic),
            NATURAL: sum(weights[name] for name in recipe.synthetic),
        },
        "warnings": [*shares.warnings, *law.warnings],
    }
    return MixtureSearch(out, proposal.weights, law, promises, gain, held, proposal.verdict, result)


def _promised(
    recipe: MixtureRecipe, kept: Mapping[str, Promise], name: str
) -> dict[str, dict[str, Any]]:
    """What was promised of a mixture and what came, by domain and for the objective."""
    fields = ("value", "low", "high", "level", "outcome", "held")
    return {
        domain or OBJECTIVE: {f: getattr(kept[_quantity(name, domain)], f) for f in fields}
        for domain in ("", *recipe.domains)
        if kept
    }


def _sources(
    recipe: MixtureRecipe, shares: Shares, best: Mapping[str, float]
) -> dict[str, dict[str, Any]]:
    used = shares.use(best, recipe.target_tokens)
    return {
        name: {
            "unique_tokens": shares.unique_tokens[name],
            "natural": shares.natural[name],
            "least": shares.least[name],
            "most": shares.most[name],
            "synthetic": name in recipe.synthetic,
            **used[name],
        }
        for name in recipe.training
    }


def _seal(recipe: MixtureRecipe, out: Path) -> None:
    files = [out / name for name in (CONFIG, MIXTURES, LAW, RESULT, LEDGER)]
    write_manifest(
        out,
        kind="mixture-search",
        config=to_dict(recipe),
        machine=machine(),
        inputs=recipe.data.directories,
        seed=recipe.train.seed,
        files=[
            *(file for file in files if file.exists()),
            *sorted((out / "runs").glob(f"*/{MANIFEST}")),
        ],
    )
