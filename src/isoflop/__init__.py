"""Isoflop builds language models whose outcome is known before they are paid for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from isoflop.version import __version__

if TYPE_CHECKING:
    from isoflop import laws
    from isoflop.evaluation.evaluate import evaluate
    from isoflop.loading import load
    from isoflop.planning.planner import plan
    from isoflop.training.pretrain import train

__all__ = ["__version__", "evaluate", "laws", "load", "plan", "train"]

_HOMES = {
    "evaluate": "isoflop.evaluation.evaluate",
    "load": "isoflop.loading",
    "plan": "isoflop.planning.planner",
    "train": "isoflop.training.pretrain",
}
"""Public name → its module, imported at first use: `import isoflop` stays free of torch."""


def __getattr__(name: str) -> Any:
    if name == "laws":
        return importlib.import_module("isoflop.laws")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
