"""Command-line flags to a frozen dataclass through tyro; not for what the values mean.

Tyro is imported on first use: commands that read no flags do not pay for it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Any, TypeVar

from isoflop.core.errors import RecipeError

T = TypeVar("T")


def parse_flags(
    cls: type[T],
    args: Sequence[str],
    *,
    program: str = "isoflop",
    default: T | None = None,
    description: str | None = None,
    paired_flags: bool = True,
) -> T:
    """Parse flags into `cls`; `--help` prints its attribute docstrings and exits with 0.

    Args:
        default: An instance whose values hold where no flag is given. A field of it may be
            `missing()`, which makes its flag required.
        paired_flags: Offer `--no-x` beside `--x` for booleans.

    Raises:
        RecipeError: A flag is unknown, missing or has a value of the wrong type.
    """
    import tyro

    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(
                cls,
                args=list(args),
                prog=program,
                default=tyro.MISSING_NONPROP if default is None else default,
                description=description,
                config=() if paired_flags else (tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
    what = _flatten(said.getvalue())
    raise RecipeError(what, where=program, fix=f"`{program} --help` lists every option")


def missing() -> Any:
    """The value that makes a field of a default instance required on the command line."""
    import tyro

    return tyro.MISSING


def _flatten(boxed: str) -> str:
    """One sentence or two from the box that tyro draws around a usage error.

    Where the terminal is not UTF-8 the box is of dashes and its title is a section of its own.
    """
    sections: list[list[str]] = [[]]
    for line in boxed.splitlines():
        inside = line.strip("│ ")
        if not inside or inside[0] in "╭╰":
            continue
        if inside.strip("─-"):
            sections[-1].append(inside)
        else:
            sections.append([])
    if "╭" not in boxed and len(sections) > 1:
        sections.pop(0)
    said = " ".join(sections[0])
    if said.startswith("Missing from"):
        return f"missing {' and '.join(_options(sections[0])) or said}"
    said = _plainly(said)
    near = next((s for s in sections[1:] if s and s[0].startswith("Perhaps you meant")), [])
    if options := _options(near):
        said = f"{said.rstrip('.')}. Did you mean {' or '.join(options)}?"
    return said[:1].lower() + said[1:] if said else "the options cannot be read"


def _plainly(said: str) -> str:
    """Without what an option that may be left out adds: the type `None` and its complaint."""
    wrong = re.match(
        r"Error parsing (\S+): no type matching .* instantiated from \['(.*?)'\]", said
    )
    if wrong:
        return f"{wrong[1]} cannot be {wrong[2]!r}"
    return re.sub(r"Expected one of \('None', ", "Expected one of (", said)


def _options(lines: Sequence[str]) -> list[str]:
    """The option names that stand at the start of lines, in order, once each."""
    found = (re.match(r"-{1,2}[\w.-]+|[A-Z]{2}[\w.|-]*(?= |$)", line) for line in lines)
    return list(dict.fromkeys(match.group() for match in found if match))
