"""`--plan` of every costly command: what it will take, then whether to begin.

Not for foretelling it (`planning.foresee`, `alignment.foresee`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from isoflop.cli.arguments import Arguments, RecipeArguments
from isoflop.core.console import print_result
from isoflop.core.foresight import Foresight, ask, may_ask

PlanFirst = Annotated[
    bool,
    arg(
        help="Say what it will take (time, memory, disk), then ask at a terminal whether to begin; "
        "anywhere else, and with --json, stop there."
    ),
]
"""The type of a `plan` argument."""


@dataclass(frozen=True, kw_only=True)
class CostlyArguments(RecipeArguments):
    """Base of the arguments of recipe commands that can take long."""

    plan: PlanFirst = False


def begins(arguments: Arguments, plan: bool, out: Path, foretell: Callable[[], Foresight]) -> bool:
    """Whether to do the work: at once without `--plan`, else what the answer is.

    Args:
        foretell: Called only where it was asked for.
    """
    if not plan:
        return True
    foresight = foretell()
    free = shutil.disk_usage(_standing(out)).free
    document = {**foresight.document(), "out": str(out), "free_bytes": free, "begun": False}
    asks = may_ask(arguments.json)
    print_result(document, foresight.text(out, free), arguments.json)
    return asks and ask("begin?")


def _standing(path: Path) -> Path:
    """The nearest folder above `path` that is there."""
    absolute = path.absolute()
    return next(parent for parent in (absolute, *absolute.parents) if parent.is_dir())
