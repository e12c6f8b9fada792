"""Recipes: TOML files and flags to frozen dataclasses and back; not for what a recipe does.

Every problem of a file is collected and reported at once, each with its line and the nearest
valid key. A recipe's own rules belong in its `__post_init__`, which raises `RecipeError` or
`ValueError`.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from isoflop.core.errors import RecipeError
from isoflop.core.flags import parse_flags
from isoflop.core.recipe_reader import Reader
from isoflop.core.toml_lines import KeyPath, key_lines

T = TypeVar("T")

_SEE_HELP = "The command's --help lists every option"


def load_recipe(path: Path, cls: type[T], overrides: Sequence[str] = ()) -> T:
    """Read a TOML recipe into a frozen dataclass, then apply flags over it.

    Keys may be written with `_` or `-`. Relative paths in the file start at the file's folder,
    relative paths in flags at the working directory.

    Args:
        overrides: Flags in dotted form, `["--train.learning-rate", "3e-4"]`; they may also
            supply what the file leaves out.

    Raises:
        RecipeError: The file cannot be read, or holds unknown keys, wrong types or impossible
            values, or lacks required ones: all of them in one message, each with its line.
    """
    mapping, lines = _read_toml(path)
    flags = frozenset(flag.split("=")[0].replace("-", "_") for flag in overrides)
    reader = Reader(str(path), lines, folder=path.parent, flags=flags)
    recipe = reader.table(cls, mapping, ())
    reader.raise_problems()
    if overrides:
        try:
            recipe = parse_flags(cls, overrides, default=recipe)
        except RecipeError as error:
            fix = error.fix if error.fix and "--help" not in error.fix else _SEE_HELP
            raise RecipeError(error.what, where=f"{path} with flags", fix=fix) from None
    return recipe  # type: ignore[no-any-return]


def from_dict(cls: type[T], mapping: Mapping[str, Any], where: str) -> T:
    """Build a recipe from plain values, as `to_dict` gives or JSON holds.

    Raises:
        RecipeError: As for `load_recipe`, naming keys instead of lines.
    """
    reader = Reader(where, {})
    recipe = reader.table(cls, mapping, ())
    reader.raise_problems()
    return recipe  # type: ignore[no-any-return]


def to_dict(recipe: Any) -> dict[str, Any]:
    """The resolved recipe as JSON-able values; `from_dict` reads them back equal."""
    return {
        field.name: _plain(getattr(recipe, field.name))
        for field in dataclasses.fields(recipe)
        if field.init
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _read_toml(path: Path) -> tuple[dict[str, Any], dict[KeyPath, int]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(
            "no such recipe", where=str(path), fix="Check the path; recipes are TOML files"
        ) from None
    except IsADirectoryError:
        raise RecipeError(
            "this is a directory, not a recipe", where=str(path), fix="Give a TOML file"
        ) from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"not UTF-8 text (byte {error.start})", where=str(path), fix="Save the file as UTF-8"
        ) from None
    try:
        return tomllib.loads(text), key_lines(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at (?:line (\d+)|end of document).*\)$", str(error))
        line = (found and found.group(1)) or str(text.count("\n") + 1)
        what = str(error)[: found.start()].strip() if found else str(error)
        raise RecipeError(
            f"not valid TOML: {what[:1].lower()}{what[1:]}",
            where=f"{path}:{line}",
            fix='TOML wants `key = value`, text in "quotes" and tables as [name]',
        ) from None
