"""Scaling laws: tables of runs in, forecasts with intervals out; knows nothing of training.

table = read_table("runs.csv")            # or RunTable.from_arrays(params, tokens, loss)
law = fit(table, form="gamma")
law.predict(params=3e8, tokens=6e9)       # Prediction(loss, low, high, level, extrapolation)
law.optimal(flops=1e21)
"""

from isoflop.laws.backtest import Backtest, backtest
from isoflop.laws.fit import fit
from isoflop.laws.predict import Law, Optimal, Prediction, load_law
from isoflop.laws.records import RunTable, read_table
from isoflop.laws.support import NextRun, next_run

__all__ = [
    "Backtest",
    "Law",
    "NextRun",
    "Optimal",
    "Prediction",
    "RunTable",
    "backtest",
    "fit",
    "load_law",
    "next_run",
    "read_table",
]
