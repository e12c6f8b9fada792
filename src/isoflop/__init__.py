"""Isoflop builds language models whose outcome is known before they are paid for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from isoflop.version import __version__

if TYPE_CHECKING:
    from isoflop.loading import load

__all__ = ["__version__", "load"]

_HOMES = {"load": "isoflop.loading"}
"""Public name → its module, imported at first use: `import isoflop` stays free of torch."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
