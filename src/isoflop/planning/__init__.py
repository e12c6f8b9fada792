"""From a budget to a run: plans, ladders and the machines they take; no training of its own.

plan(gpus=8, gpu="h100-80gb", hours=24)   # Plan(params, tokens, layout, seconds, loss, …)
mixture_search(recipe, out)               # MixtureSearch(weights, law, promises, gain, held, …)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isoflop.planning.mixing import MixtureSearch, mixture_search
    from isoflop.planning.planned import Plan
    from isoflop.planning.planner import plan

__all__ = ["MixtureSearch", "Plan", "mixture_search", "plan"]

_HOMES = {
    "MixtureSearch": "isoflop.planning.mixing",
    "Plan": "isoflop.planning.planned",
    "mixture_search": "isoflop.planning.mixing",
    "plan": "isoflop.planning.planner",
}
"""Public name → its module, imported at first use: a ladder's `--help` does not wait for plans."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
