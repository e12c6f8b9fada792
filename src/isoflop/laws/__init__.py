"""Scaling laws: tables of runs in, forecasts with intervals out; knows nothing of training.

table = read_table("runs.csv")            # or RunTable.from_arrays(params, tokens, loss)
law = fit(table, form="auto")
law.predict(params=3e8, tokens=6e9)       # Prediction(loss, low, high, level, extrapolation)
law.optimal(flops=1e21)
law.save("law.json")                      # load_law reads it again, of whatever form

`fit` knows every form (`families.ENTRIES`); those of other tables than runs read them with
`read_for`. `published_law` gives a law of the literature.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# These two modules are called as their functions: once imported, the functions take the names.
from isoflop.laws.backtest import Backtest, backtest
from isoflop.laws.fitting import fit, read_for
from isoflop.laws.load import find_law, load_law
from isoflop.laws.predict import Law, Optimal, Prediction
from isoflop.laws.records import RunTable, read_table
from isoflop.laws.support import NextRun, next_run

if TYPE_CHECKING:
    from isoflop.laws.published import known_models, published_law, published_laws

__all__ = [
    "Backtest",
    "Law",
    "NextRun",
    "Optimal",
    "Prediction",
    "RunTable",
    "backtest",
    "find_law",
    "fit",
    "known_models",
    "load_law",
    "next_run",
    "published_law",
    "published_laws",
    "read_for",
    "read_table",
]

_HOMES = {
    "known_models": "isoflop.laws.published",
    "published_law": "isoflop.laws.published",
    "published_laws": "isoflop.laws.published",
}
"""Public name → its module, imported at first use: a forecast from a file does not wait for it."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
