"""A recipe back into TOML, so that what a program chose can be read, edited and run again.

Not for reading (`recipe.py`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isoflop.core.artifact import write_atomic


def write_recipe(path: Path, recipe: Any, comment: str) -> None:
    """Write a recipe as TOML that `load_recipe` reads back equal.

    Paths are written relative to the file's folder, so that a directory with its recipes can
    move; only absolute ones outside the folder's parent stay absolute. What is None is left out.

    Args:
        comment: Lines put on top, each behind a `#`.
    """
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    write_atomic(path, head + "\n".join(_table(recipe, "", path.parent)) + "\n")


def plain_toml(values: Mapping[str, Any]) -> str:
    """Plain values, as `to_dict` gives and JSON holds, as TOML; paths stay as they are written.

    What is None, or an empty list of tables, is left out.
    """
    return "\n".join(_plain_table(values, "")) + "\n"


def _plain_table(values: Mapping[str, Any], name: str) -> list[str]:
    lines, inner = [], []
    for key, value in values.items():
        dotted = f"{name}.{_key(key)}" if name else _key(key)
        if isinstance(value, Mapping):
            inner += ["", f"[{dotted}]", *_plain_table(value, dotted)]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for item in value:
                inner += ["", f"[[{dotted}]]", *_plain_table(item, dotted)]
        elif value is not None:
            lines.append(f"{_key(key)} = {_plain_value(value)}")
    return lines + inner


def _plain_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_plain_value, value))}]"
    if isinstance(value, str):
        return _string(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _string(key)


def _table(recipe: Any, name: str, folder: Path) -> list[str]:
    """The lines of one table: its own keys first, then the tables inside it."""
    values = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe) if f.init}
    lines, inner = [], []
    for key, value in values.items():
        dotted = f"{name}.{key}" if name else key
        if value is None:
            continue
        if dataclasses.is_dataclass(value):
            inner += ["", f"[{dotted}]", *_table(value, dotted, folder)]
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for item in value:
                inner += ["", f"[[{dotted}]]", *_table(item, dotted, folder)]
        else:
            lines.append(f"{key} = {_value(value, folder)}")
    return lines + inner


def _value(value: Any, folder: Path) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Path):
        home = Path(os.path.abspath(folder)).parent
        near = not value.is_absolute() or value.is_relative_to(home)
        return _string((Path(os.path.relpath(value, folder)) if near else value).as_posix())
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, tuple):
        return f"[{', '.join(_value(item, folder) for item in value)}]"
    return repr(value)


def _string(text: str) -> str:
    # TOML's basic strings take JSON's escapes, and want one more character escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
