"""`--plot FILE` of the `laws` words: where pictures go; not for what they show (law_plot).

A name that no picture can have is refused before the work begins.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from isoflop.core.artifact import write_atomic
from isoflop.core.errors import RecipeError

PlotFile = Annotated[Path | None, arg(metavar="FILE.svg|.html")]
SUFFIXES = (".svg", ".html")


def check_plot(path: Path | None) -> None:
    """Refuse a file that is neither SVG nor HTML.

    Raises:
        RecipeError: The name ends otherwise.
    """
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise RecipeError(
            f"{path} is the name of no picture that is made here",
            where="--plot",
            fix=f"End it in {' or '.join(SUFFIXES)}",
        )


def save_plot(path: Path | None, title: str, draw: Callable[[], str]) -> None:
    """Draw and write, where a file was asked for.

    Raises:
        TableError: There is nothing to draw.
    """
    if path is None:
        return
    from isoflop.reporting.law_plot import page

    picture = draw()
    write_atomic(path, page(picture, title) if path.suffix.lower() == ".html" else picture)
