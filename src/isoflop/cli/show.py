"""`isoflop show`: what a directory or file is; not for finding that out (`reporting`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, parse_arguments
from isoflop.core.console import print_result
from isoflop.core.errors import ArtifactError

if TYPE_CHECKING:
    from isoflop.reporting.inventory.commands import Command
    from isoflop.reporting.inventory.show import Shown

_HASH = 12


@dataclass(frozen=True, kw_only=True)
class ShowArguments(Arguments):
    """Say what a directory or file is, where it came from, and what can be done with it."""

    path: Positional[Path]
    """Anything: an artifact, a run, a law, a ledger, a recipe, a table, a model, text."""
    check: bool = False
    """Also hash every file that its manifest vouches for; the exit status is 1 if one differs."""
    recipe: bool = False
    """Print nothing but its recipe as it was resolved, as TOML that repeats or continues it."""


def run(args: list[str]) -> int:
    """Run the command; 1 if a file differs from its hash, 2 (raised) if there is no such path."""
    arguments = parse_arguments(ShowArguments, args, "show")
    from isoflop.reporting.inventory.show import show

    shown = show(arguments.path, check=arguments.check)
    if arguments.recipe:
        return _print_recipe(shown)
    print_result(shown.document(), "\n".join(page(shown)), arguments.json)
    return 1 if shown.damages else 0


def _print_recipe(shown: Shown) -> int:
    from isoflop.core.toml_write import plain_toml

    thing = shown.thing
    if thing.recipe is None:
        raise ArtifactError(
            f"this {thing.kind} keeps no recipe",
            where=str(thing.path),
            fix="`isoflop show` without --recipe names the command that makes it",
        )
    sys.stdout.write(f"# isoflop {thing.stage}\n{plain_toml(thing.recipe)}")
    return 0


def page(shown: Shown) -> Iterator[str]:
    """What it is, where it came from, and what to type next."""
    thing, manifest = shown.thing, shown.thing.manifest
    by = f" (isoflop {thing.stage})" if thing.stage else ""
    yield f"{thing.path}: {shown.meaning}{by}"
    facts: dict[str, Any] = {}
    if thing.kind in ("run", "ladder", "demo", "mixture-search") or thing.status != "complete":
        facts["status"] = thing.status
    if manifest is not None:
        facts["created"] = f"{manifest.created} by Isoflop {manifest.isoflop_version}"
    facts |= {key: value for key, value in thing.facts.items() if value not in (None, "")}
    width = max(map(len, facts), default=0)
    for key, value in facts.items():
        yield f"  {key:<{width}}  {_number(value)}"
    if shown.damages is not None:
        yield ""
        yield from _checked(shown)
    if shown.made_by:
        yield "\nmade again by"
        yield from _commands(shown.made_by)
    if shown.made_from:
        yield "\nmade from"
        for step in shown.made_from:
            state = {True: "", False: "  CHANGED since", None: "  not there any more"}
            indent = "  " * step.depth
            yield f"{indent}{step.path}  {step.kind}  {step.sha256[:_HASH]}{state[step.unchanged]}"
            yield from (f"{indent}    {command.line}" for command in step.commands)
    if shown.next:
        yield "\nwhat you can do now"
        yield from _commands(shown.next)


def _checked(shown: Shown) -> Iterator[str]:
    manifest = shown.thing.manifest
    if manifest is None:
        yield "  nothing to check: it has no manifest"
    elif not shown.damages:
        yield f"  checked: all {len(manifest.files):,} files are as they were written"
    for damage in shown.damages or ():
        yield f"  DAMAGED: {damage.path} {damage.what}"


def _commands(commands: Sequence[Command]) -> Iterator[str]:
    width = max(len(command.line) for command in commands)
    narrow = width <= 72
    for command in commands:
        yield (
            f"  {command.line:<{width}}  {command.why}"
            if narrow
            else (f"  {command.line}\n      {command.why}")
        )


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
