"""The pages that `make docs` writes from the code itself: every command's help, every public name.

Not kept in the repository: docs/generated is made anew by each build (conf.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import io
import os
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import isoflop
import isoflop.laws
from isoflop.cli.main import COMMANDS, main

WIDTH = 96
_SECOND = re.compile(r"usage: isoflop (\w+) \{([\w,-]+)\}")


def help_of(words: list[str]) -> str:
    """What `isoflop WORDS --help` prints, in characters that every font has."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return "\n".join(line.rstrip() for line in said.getvalue().strip().splitlines())


def commands() -> Iterator[tuple[str, str]]:
    """(command, its help), the words of two-word commands one by one."""
    for name in COMMANDS:
        text = help_of([name])
        two_words = _SECOND.match(text)
        if two_words:
            for second in two_words[2].split(","):
                yield f"{name} {second}", help_of([name, second])
        else:
            yield name, text


def commands_page() -> str:
    """Every command with the help it prints."""
    parts = [
        "# Commands, one by one",
        "Written from the commands themselves: what `isoflop COMMAND --help` prints.",
    ]
    for name, text in commands():
        parts += [f"## isoflop {name}", f"```text\n{text}\n```"]
    return "\n\n".join(parts) + "\n"


def names_page() -> str:
    """Every public name with its signature and what its docstring says."""
    parts = [
        "# Public names",
        "Written from the code: what `isoflop` and `isoflop.laws` export.",
    ]
    for package in (isoflop, isoflop.laws):
        for name in sorted(package.__all__):
            value = getattr(package, name)
            if name.startswith("__") or inspect.ismodule(value):
                continue
            parts += [f"## {package.__name__}.{name}", _described(name, value)]
    return "\n\n".join(parts) + "\n"


def _described(name: str, value: object) -> str:
    text = inspect.getdoc(value) or ""
    if dataclasses.is_dataclass(value) and isinstance(value, type):
        shown = "\n".join(f"{f.name}: {_typed(f.type)}" for f in dataclasses.fields(value))
    elif callable(value):
        # Annotations are strings, which a signature shows in quotes.
        shown = name + re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(value)))
    else:
        shown = f"{name} = {value!r}"
    return f"```text\n{shown}\n```\n\n```text\n{text}\n```"


def _typed(kind: object) -> str:
    return kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))


def modules_page() -> str:
    """Every module in one line: the first of its docstring."""
    parts = ["# Modules", "Written from the code: what each module is for.", ""]
    parts += ["| module | what it is for |", "|---|---|"]
    for found in pkgutil.walk_packages(isoflop.__path__, "isoflop."):
        spec = importlib.util.find_spec(found.name)
        source = Path(spec.origin).read_text(encoding="utf-8")
        line = re.match(r'"""(.*?)(?:"""|\n)', source)
        what = (line[1] if line else "").replace("|", r"\|").replace("<", "&lt;")
        parts.append(f"| `{found.name}` | {what.rstrip('.')} |")
    return "\n".join(parts) + "\n"


def write(folder: Path) -> None:
    """All pages."""
    os.environ["COLUMNS"] = str(WIDTH)
    folder.mkdir(exist_ok=True)
    pages = {"commands": commands_page, "names": names_page, "modules": modules_page}
    for name, page in pages.items():
        (folder / f"{name}.md").write_text(page(), encoding="utf-8")
