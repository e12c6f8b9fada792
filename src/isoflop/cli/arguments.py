"""How commands read their arguments: dataclasses, recipes with flags over them, second words.

Not for any one command. `main` does not import this module, so that `isoflop --help` stays quick.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from tyro.conf import FlagCreatePairsOff, Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from isoflop.core.errors import RecipeError
from isoflop.core.flags import parse_flags
from isoflop.core.recipe import load_recipe
from isoflop.core.recipe_reader import outline

A = TypeVar("A", bound="Arguments")
R = TypeVar("R")
RA = TypeVar("RA", bound="RecipeArguments")

_VALUE = re.compile(r"[^-].*|-|-\.?\d.*", re.DOTALL)
"""What is a flag's value and not the next flag: a word, `-`, a negative number."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Base of every command's arguments; attribute docstrings are the help."""

    json: bool = False
    """Print one JSON document on stdout and everything else on stderr."""


_SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}


def amount(text: str) -> float:
    """A number as people write them: `7e9`, `7B`, `1.4T`, `250_000`.

    Raises:
        ValueError: It is none.
    """
    digits, suffix = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    try:
        return float(digits) * (_SUFFIXES[suffix] if suffix else 1.0)
    except (ValueError, KeyError):
        raise ValueError(f"{text!r} is no number; write 7e9 or 7B") from None


_AMOUNT: PrimitiveConstructorSpec[Any] = PrimitiveConstructorSpec(
    nargs=1,
    metavar="NUMBER",
    instance_from_str=lambda words: amount(words[0]),
    is_instance=lambda value: value is None or isinstance(value, float | int),
    str_from_instance=lambda value: ["None" if value is None else f"{value:g}"],
)
Amount = Annotated[float, _AMOUNT]
"""A number of parameters, tokens or FLOPs; 7B and 1.4T are understood."""
MaybeAmount = Annotated[float | None, _AMOUNT]
"""The same, of an option that may be left out."""

OutPath = Annotated[Path, arg(aliases=["-o"], metavar="DIR")]
"""The type of an `out` argument: `-o DIR` or `--out DIR`."""


PlacementName = Annotated[
    str,
    arg(
        metavar="WHERE",
        help="Where the work is done: auto (processes where that pays), inline, processes[:N], "
        "ray[:N or :ADDRESS], slurm[:N]. The answer is the same.",
    ),
]
"""The type of a `placement` argument."""

KeepWork = Annotated[
    bool,
    arg(help="Keep the working folder OUT.work, so that a change repeats only what it concerns."),
]
"""The type of a `keep_work` argument."""


@dataclass(frozen=True, kw_only=True)
class RecipeArguments(Arguments):
    """Base of the arguments of commands that take a recipe."""

    recipe: Positional[Path]
    """The recipe, a TOML file. It comes before the options that change it."""
    out: OutPath
    """The directory to write; the same command continues one that was interrupted."""


def parse_arguments(cls: type[A], args: Sequence[str], command: str) -> A:
    """Parse a command's arguments; `--help` prints them and exits with 0.

    Args:
        command: The command as typed: `doctor`, `data build`.

    Raises:
        RecipeError: An argument is unknown, missing or of the wrong type.
    """
    return parse_flags(cls, args, program=f"isoflop {command}", paired_flags=False)


def parse_recipe_arguments(
    cls: type[RA], recipe_cls: type[R], args: Sequence[str], command: str
) -> tuple[RA, R]:
    """Parse `RECIPE.toml -o OUT` and load the recipe with the dotted flags over it.

    `--help` lists the options of the recipe too.

    Args:
        cls: `RecipeArguments` or a subclass with options of its own.
        recipe_cls: The recipe's dataclass; import it without torch, for a quick `--help`.

    Raises:
        RecipeError: The arguments or the recipe cannot be used.
    """
    if "-h" in args or "--help" in args:
        _show_help(cls, recipe_cls, command)
    own, overrides = _split(cls, args)
    arguments = parse_arguments(cls, own, command)
    return arguments, load_recipe(arguments.recipe, recipe_cls, overrides)


def _show_help(cls: type[Any], recipe_cls: type[Any], command: str) -> None:
    """Print the command's own options and those of its recipe as one page, and exit with 0."""
    unnamed = arg(name="")  # `--train.tokens`, not `--recipe.train.tokens`
    page = dataclasses.make_dataclass(
        "Page",
        [
            ("command", Annotated[cls, unnamed, FlagCreatePairsOff]),
            ("recipe", Annotated[recipe_cls, unnamed]),
        ],
    )
    parse_flags(
        page,
        ["--help"],
        program=f"isoflop {command}",
        default=page(outline(cls), outline(recipe_cls)),
        description=(cls.__doc__ or "").strip(),
    )


def _split(cls: type[RecipeArguments], args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part a command's own arguments from the flags of its recipe."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    switches = {name for name, field in fields.items() if field.default is False}
    own: list[str] = []
    overrides: list[str] = []
    waiting = list(args)
    seen_recipe = False
    while waiting:
        word = waiting.pop(0)
        name = "out" if word == "-o" else word.split("=")[0].lstrip("-").replace("-", "_")
        if _VALUE.fullmatch(word):  # not taken by a flag before it: the recipe
            own.append(word)
            seen_recipe = True
            continue
        mine = name in fields or (word.startswith("-o") and not word.startswith("--"))
        side = own if mine else overrides
        side.append(word)
        takes = 0 if "=" in word or name in switches else 1 if mine else len(waiting)
        while takes > 0 and waiting and _VALUE.fullmatch(waiting[0]):
            side.append(waiting.pop(0))
            takes -= 1
    recipes = [word for word in overrides if word.endswith(".toml")]
    if not seen_recipe and recipes:
        raise RecipeError(
            f"put the recipe before the options that change it: {recipes[0]}",
            fix="Write `RECIPE.toml -o OUT --table.key value`",
        )
    return own, overrides


def dispatch(
    command: str,
    choices: Mapping[str, tuple[Callable[[list[str]], int], str]],
    args: list[str],
) -> int:
    """Run the second word of a two-word command: `isoflop data build …`.

    Args:
        choices: Second word → (its function, one line of help).

    Raises:
        RecipeError: The second word is missing or unknown.
    """
    if args and args[0] in ("-h", "--help"):
        print(f"usage: isoflop {command} {{{','.join(choices)}}} …\n")
        width = max(map(len, choices))
        for name, (_, help_) in choices.items():
            print(f"  {name:<{width}}  {help_}")
        print(f"\n`isoflop {command} {next(iter(choices))} --help` shows its options.")
        return 0
    if args and args[0] in choices:
        return choices[args[0]][0](args[1:])
    listed = ", ".join(f"`isoflop {command} {name}`" for name in choices)
    if not args or args[0].startswith("-"):
        raise RecipeError(f"`isoflop {command}` needs a second word", fix=f"There are {listed}")
    raise RecipeError(
        f"`isoflop {command}` has no `{args[0]}`", fix=nearest(args[0], choices) or f"Try {listed}"
    )


def nearest(word: str, choices: Mapping[str, Any]) -> str | None:
    """`Did you mean …?`, or None if nothing is near."""
    near = difflib.get_close_matches(word, choices, n=1)
    return f"Did you mean `{near[0]}`?" if near else None
