"""The form `isoflop`: approach 2 as a law that divides budgets; not for its slices (isoflop).

N_opt = k·C^a through the minima of IsoFLOP parabolas (Hoffmann et al. 2022, section 3.2), with
D_opt = C / (6·N_opt). It says nothing of the loss: fit the form `frontier` for that.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from isoflop.core.errors import TableError
from isoflop.laws.family import Family, check_refits, ends, named, spread
from isoflop.laws.isoflop import Exponents, envelope, parabolas
from isoflop.laws.predict import FLOPS_PER_PARAMETER_TOKEN, Optimal, Prediction
from isoflop.laws.records import RunTable

FORM = "isoflop"
FORMULA = "N_opt = k*C^a"
PARAMETERS = ("k", "a")
BIASED = 0.02
"""Bias of the exponent from which it is said in a warning of its own."""


@dataclass(frozen=True)
class IsoflopLaw(Family):
    """A law fitted by `fit_isoflop`.

    `noise` holds `minima`, one row (flops, params, loss) per slice; `bias`, what approach 2 itself
    adds to `a` on this design; `exponents`, of `isoflop.Exponents`; `envelope`, the exponent and
    its standard error by approach 1.
    """

    NEEDS = ("exponents",)

    def optimal(self, flops: float, level: float = 0.9) -> Optimal:
        """The best size and horizon for a budget; its loss is NaN, for the form has none.

        Raises:
            TableError: `flops` is not positive.
        """
        if not (np.isfinite(flops) and flops > 0.0):
            raise TableError(f"flops must be positive, not {flops:g}")
        share = self.parameters["a"]
        params = float(self.parameters["k"] * flops**share)
        tokens = flops / (FLOPS_PER_PARAMETER_TOKEN * params)
        asked = {"params": params, "tokens": tokens, "flops": flops}
        beyond = {
            name: max(value / self.domain[name][1], self.domain[name][0] / value, 1.0)
            for name, value in asked.items()
        }
        nothing = Prediction(float("nan"), float("nan"), float("nan"), level, beyond)
        line = Exponents(**self.noise["exponents"])
        exponents = {"a": share, "b": 1.0 - share}
        return Optimal(params, tokens, flops, nothing, exponents, line.ends(flops, level))


def fit_isoflop(table: RunTable, bootstrap: int = 1000, seed: int = 0) -> IsoflopLaw:
    """Fit N_opt = k·C^a to a table made at fixed budgets.

    Args:
        bootstrap: Regressions on resampled minima, behind the standard errors.

    Raises:
        TableError: Fewer than three slices of equal compute have their lowest loss inside.
    """
    check_refits(bootstrap)
    found = parabolas(table, seed)
    flops = np.array([m.flops for m in found.minima])
    ln_c, ln_n = np.log(flops), np.log([m.params for m in found.minima])
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(ln_c), size=(4 * bootstrap, len(ln_c)))
    rows = rows[np.ptp(ln_c[rows], axis=1) > 0.0][:bootstrap]
    x, y = ln_c[rows], ln_n[rows]
    off = x - x.mean(axis=1, keepdims=True)
    slope = np.sum(off * y, axis=1) / np.sum(off**2, axis=1)
    draws = np.column_stack([np.exp(y.mean(axis=1) - slope * x.mean(axis=1)), slope])
    first = envelope(table, seed).exponents
    best = np.array([found.exponents.coefficient, found.exponents.a])
    warnings = [*table.notes, *(f"left out, {text}" for text in found.skipped)]
    if abs(found.bias) > BIASED:
        warnings.append(
            f"approach 2 adds {found.bias:+.3f} to the exponent on this design (a parabola is not "
            "the valley's shape); a surface (auto, gamma) has no such bias"
        )
    return IsoflopLaw(
        form=FORM,
        formula=FORMULA,
        parameters=named(PARAMETERS, best),
        stderr=named(PARAMETERS, spread(draws)),
        draws=draws,
        noise={
            "minima": [[m.flops, m.params, m.loss] for m in found.minima],
            "exponents": asdict(found.exponents),
            "bias": found.bias if np.isfinite(found.bias) else None,
            "envelope": [first.a, first.a_stderr],
        },
        objective="lsq",
        n_runs=len(table),
        domain={"params": ends(table.params), "tokens": ends(table.tokens), "flops": ends(flops)},
        source=table.source,
        warnings=tuple(warnings),
        verdict="supported",
    )
