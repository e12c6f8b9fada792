"""Plain values (TOML, JSON) to nested frozen dataclasses, collecting every problem on the way.

Not for files or flags: see `recipe`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from isoflop.core.errors import RecipeError
from isoflop.core.flags import missing
from isoflop.core.toml_lines import KeyPath

_FAILED: Any = object()
"""Stands for a value whose problem is already on the list."""


@dataclasses.dataclass(frozen=True)
class Problem:
    source: str
    line: int | None
    what: str
    fix: str | None

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source

    def __str__(self) -> str:
        return RecipeError(self.what, where=self.where, fix=self.fix).paragraph()


class Reader:
    """Turns plain values into dataclasses, collecting every problem on the way."""

    def __init__(
        self,
        source: str,
        lines: Mapping[KeyPath, int],
        folder: Path | None = None,
        flags: frozenset[str] = frozenset(),
    ) -> None:
        self.source, self.lines, self.folder = source, lines, folder
        # With flags to come, what is read is only their default: its rules (`__post_init__`)
        # wait until the flags are in, and a flag may supply what the file leaves out.
        self.flags = flags
        self.root: type[Any] | None = None
        self.problems: list[Problem] = []

    def problem(self, path: KeyPath, what: str, fix: str | None = None) -> Any:
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        self.problems.append(Problem(self.source, self.lines.get(known), what, fix))
        return _FAILED

    def raise_problems(self) -> None:
        if len(self.problems) == 1:
            only = self.problems[0]
            raise RecipeError(only.what, where=only.where, fix=only.fix)
        if self.problems:
            in_order = sorted(self.problems, key=lambda problem: problem.line or 0)
            listed = "".join(f"\n  {problem}" for problem in in_order)
            raise RecipeError(f"{len(self.problems)} problems:{listed}", where=self.source)

    # --- tables ----------------------------------------------------------------------------

    def table(self, cls: type[Any], mapping: Any, path: KeyPath) -> Any:
        self.root = self.root or cls
        if not isinstance(mapping, Mapping):
            what = f"`{_dotted(path)}` must be a table, not {_describe(mapping)}"
            return self.problem(path, what)
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        hints = get_type_hints(cls, include_extras=True)
        given = self.known_keys(cls, fields, mapping, path)
        before = len(self.problems)
        values: dict[str, Any] = {}
        for name, field in fields.items():
            key = given.get(name)
            if key is not None:
                values[name] = self.value(hints[name], mapping[key], (*path, key))
            elif _is_required(field):
                values[name] = self.absent(hints[name], (*path, name), path)
        if len(self.problems) > before:
            return _FAILED
        if self.flags:
            return _without_rules(cls, fields, values)
        try:
            return cls(**values)
        except RecipeError as error:
            return self.problem(self.mentioned(error.what, path), error.what, error.fix)
        except ValueError as error:
            table = f"[{_dotted(path)}] " if path else ""
            return self.problem(self.mentioned(str(error), path), f"{table}{error}")

    def mentioned(self, message: str, table: KeyPath) -> KeyPath:
        """The first key of the file that the message of a rule names, or else the table."""
        for word in re.findall(r"[\w.]+", message):
            path = (*table, *word.strip(".").split("."))
            if path in self.lines:
                return path
        return table

    def known_keys(
        self, cls: type[Any], names: Mapping[str, Any], mapping: Mapping[str, Any], path: KeyPath
    ) -> dict[str, str]:
        """Field name → the key as written; unknown and doubled keys become problems."""
        given: dict[str, str] = {}
        for key in mapping:
            name = str(key).replace("-", "_")
            if name not in names:
                what = f"unknown key `{_dotted((*path, key))}`"
                self.problem((*path, key), what, self.suggestion(name, names, path))
            elif name in given:
                what = f"`{_dotted((*path, key))}` is given twice, also as `{given[name]}`"
                self.problem((*path, key), what, "Keep one of the two spellings")
            else:
                given[name] = key
        return given

    def suggestion(self, name: str, names: Mapping[str, Any], path: KeyPath) -> str:
        near = difflib.get_close_matches(name, names, n=1)
        if near:
            return f"Did you mean `{_dotted((*path, near[0]))}`?"
        homes = [dotted for dotted in _leaves(self.root) if dotted.split(".")[-1] == name]
        if homes:
            return f"It is written `{homes[0]}`"
        return f"Valid here: {', '.join(names)}"

    def absent(self, hint: Any, path: KeyPath, table: KeyPath) -> Any:
        kind = _strip(hint)
        if dataclasses.is_dataclass(kind):  # its own fields say what is missing
            return self.table(kind, {}, path)  # type: ignore[arg-type]
        if f"__{_dotted(path)}" in self.flags:
            return missing()
        return self.problem(table, f"missing `{_dotted(path)}`, {_describe_type(hint)}")

    # --- values ----------------------------------------------------------------------------

    def value(self, hint: Any, value: Any, path: KeyPath) -> Any:
        kind = _strip(hint)
        origin = get_origin(kind)
        if dataclasses.is_dataclass(kind):
            return self.table(kind, value, path)  # type: ignore[arg-type]
        if origin in (Union, types.UnionType):
            return self.union(kind, value, path)
        if origin is tuple:
            return self.array(kind, value, path)
        if origin in (dict, Mapping):
            return self.dictionary(kind, value, path)
        if origin is Literal:
            choices = get_args(kind)
            if any(value == choice and type(value) is type(choice) for choice in choices):
                return value
            near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
            fix = f"Did you mean {_quote(near[0])}?" if near else None
            return self.wrong(hint, value, path, fix)
        return self.scalar(kind, value, path)

    def scalar(self, kind: Any, value: Any, path: KeyPath) -> Any:
        plain_number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is float and plain_number:
            if math.isfinite(value):
                return float(value)
            return self.problem(path, f"`{_dotted(path)}` must be finite, not {value}")
        if kind is Path and isinstance(value, str):
            wanted = Path(value).expanduser()
            return self.folder / wanted if self.folder else wanted
        if kind is int and isinstance(value, float) and value.is_integer():
            return self.wrong(kind, value, path, f"Write {int(value):_}")
        if kind is Any or (kind in (int, bool, str) and type(value) is kind):
            return value
        if kind not in (int, bool, str, float, Path, type(None)):
            raise TypeError(f"a recipe cannot hold {kind!r} (at {_dotted(path)})")
        return self.wrong(kind, value, path)

    def union(self, kind: Any, value: Any, path: KeyPath) -> Any:
        members = [member for member in get_args(kind) if member is not type(None)]
        if value is None and len(members) < len(get_args(kind)):
            return None
        for member in members:
            trial = Reader(self.source, self.lines, self.folder, self.flags)
            trial.root = self.root
            result = trial.value(member, value, path)
            if not trial.problems:
                return result
            if len(members) == 1:
                self.problems += trial.problems
                return _FAILED
        return self.wrong(kind, value, path)

    def array(self, kind: Any, value: Any, path: KeyPath) -> Any:
        items = get_args(kind)
        if not isinstance(value, list | tuple):
            return self.wrong(kind, value, path)
        if items[-1] is Ellipsis:
            items = items[:1] * len(value)
        if len(items) != len(value):
            what = f"`{_dotted(path)}` must have {len(items)} values, not {len(value)}"
            return self.problem(path, what)
        read = [
            self.value(item, each, (*path, i))
            for i, (item, each) in enumerate(zip(items, value, strict=True))
        ]
        return _FAILED if any(each is _FAILED for each in read) else tuple(read)

    def dictionary(self, kind: Any, value: Any, path: KeyPath) -> Any:
        if not isinstance(value, Mapping):
            return self.wrong(kind, value, path)
        _, item = get_args(kind)
        return {key: self.value(item, each, (*path, key)) for key, each in value.items()}

    def wrong(self, hint: Any, value: Any, path: KeyPath, fix: str | None = None) -> Any:
        what = f"`{_dotted(path)}` must be {_describe_type(hint)}, not {_describe(value)}"
        return self.problem(path, what, fix)


# --- types and words -----------------------------------------------------------------------


def _strip(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _without_rules(
    cls: type[Any], fields: Mapping[str, dataclasses.Field[Any]], values: Mapping[str, Any]
) -> Any:
    """An instance whose `__post_init__` has not run, as a default for flags."""
    draft = object.__new__(cls)
    for name, field in fields.items():
        if name in values:
            value = values[name]
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            value = field.default
        object.__setattr__(draft, name, value)
    return draft


def outline(cls: type[Any]) -> Any:
    """An instance for showing a recipe's options: required values `missing()`, rules not run,
    and one table in each array of tables."""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    hints = get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        kind = _strip(hints[name])
        item = _strip(get_args(kind)[0]) if get_origin(kind) is tuple else None
        if dataclasses.is_dataclass(item):
            values[name] = (outline(item),)  # type: ignore[arg-type]
        elif dataclasses.is_dataclass(kind) and _is_required(field):
            values[name] = outline(kind)  # type: ignore[arg-type]
        elif _is_required(field):
            values[name] = missing()
    return _without_rules(cls, fields, values)


def _leaves(cls: type[Any] | None, prefix: str = "") -> list[str]:
    """Dotted names of every value a recipe can hold (tables of an array without their number)."""
    if cls is None:
        return []
    names: list[str] = []
    for name, hint in get_type_hints(cls, include_extras=True).items():
        kind = _strip(hint)
        inner = [kind, *(_strip(arg) for arg in get_args(kind))]
        table = next((each for each in inner if dataclasses.is_dataclass(each)), None)
        names += _leaves(table, f"{prefix}{name}.") if table else [f"{prefix}{name}"]  # type: ignore[arg-type]
    return names


def _dotted(path: Sequence[str | int]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _quote(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text in quotes",
    Path: "a path in quotes",
    type(None): "left out",
}


def _describe_type(hint: Any) -> str:
    kind = _strip(hint)
    origin = get_origin(kind)
    if origin is Literal:
        return f"one of {', '.join(_quote(choice) for choice in get_args(kind))}"
    if origin is tuple:
        return f"an array, each {_describe_type(get_args(kind)[0])}"
    if origin in (Union, types.UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        return " or ".join(_describe_type(member) for member in members)
    return _WORDS.get(kind, "a table")


def _describe(value: Any) -> str:
    words: list[tuple[type[Any], Callable[[Any], str]]] = [
        (bool, _quote),
        (str, lambda text: f"the text {_quote(text if len(text) <= 40 else text[:39] + '…')}"),
        (int, lambda number: f"the number {number}"),
        (float, lambda number: f"the number {number:g}"),
        (Mapping, lambda _: "a table"),
        (list, lambda _: "an array"),
        (tuple, lambda _: "an array"),
    ]
    return next((say(value) for kind, say in words if isinstance(value, kind)), repr(value))
