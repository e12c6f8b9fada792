"""Opening the law that a command was given; not for tables of runs (laws_fit)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isoflop.core.errors import RecipeError

TABLES = (".csv", ".jsonl", ".parquet")


def open_law(given: str) -> Any:
    """A law by its file or its name in the literature.

    Raises:
        RecipeError: It is a table of runs or a ladder.
        ArtifactError: The file is damaged or no law.
        TableError: There is neither a file nor a published law of that name.
    """
    from isoflop.laws.load import find_law

    refuse_table(given)
    return find_law(given)


def refuse_table(given: str | Path) -> None:
    """Say how to fit a law where a table of runs was given in place of one.

    Raises:
        RecipeError: It is a table or a directory.
    """
    path = Path(given)
    if path.suffix.lower() in TABLES or path.is_dir():
        raise RecipeError(
            "this is a table of runs, not a law",
            where=str(given),
            fix=f"Fit one first: isoflop laws fit {given} -o law.json",
        )
