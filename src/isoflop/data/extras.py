"""Imports a package that only some recipes need, or says which extra brings it; nothing else."""

from __future__ import annotations

import importlib
from types import ModuleType

from isoflop.core.errors import RecipeError


def require(module: str, needed_by: str, extra: str, *, where: str = "data recipe") -> ModuleType:
    """The module, imported.

    Args:
        needed_by: What of the recipe needs it, as the user wrote it.
        extra: The extra of Isoflop's that installs it.

    Raises:
        RecipeError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RecipeError(
            f"`{needed_by}` needs the package {module.split('.')[0]}, which cannot be imported "
            f"({error})",
            where=where,
            fix=f"Install it with `pip install 'isoflop[{extra}]'`",
        ) from None
