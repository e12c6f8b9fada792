"""Real English and code that is on every machine: the text of the running Python installation.

Sources, docstrings, package descriptions and the language manual. Not for importing or running
any of it: files are only read.
"""

from __future__ import annotations

import ast
import inspect
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from isoflop.data.documents import Document, InputSplit, Skipped, order_key
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources.files import find_stamp

_SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "testing", "idle_test", "__pycache__", "site-packages", "node_modules"}
)
_TOPICS = "pydoc_data/topics.py"
_MIN_FILE_BYTES = 300
_MAX_FILE_BYTES = 200_000
_MAX_LINE_CHARACTERS = 1_000
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Written code is mostly letters; tables of numbers, escapes and code points are not.
_MIN_LETTER_SHARE = 0.5
_DOCSTRING_MODULE_SHARE = 0.5
_MIN_DOCSTRING_CHARACTERS = 60
_MIN_PROSE_CHARACTERS = 400


def plan(_: SourceConfig, seed: int) -> list[InputSplit]:
    """The files of the standard library and of the packages installed beside Isoflop.

    The manual (`pydoc_data`) and the packages' descriptions come first, since prose is what an
    installation has least of; then the modules, in an order hashed from the seed and their
    relative paths, so that whoever stops early holds an even sample. Test suites are left out.
    """

    def place(split: InputSplit) -> tuple[bool, bytes]:
        return not _is_prose(split.identity), order_key(seed, split.identity)

    return sorted((_split(identity, path, seed) for identity, path in _files()), key=place)


def read(source: SourceConfig, split: InputSplit) -> Iterator[Document | Skipped]:
    """The documents of one file.

    One module in two gives its docstrings (`language` `en`), the others their source (`code`),
    none both: a docstring in the training text and again inside a held-out source would leak.
    Left out are files under 300 bytes or over 200 kB and generated tables (a line over 1,000
    characters, or fewer than half letters).
    """
    identity, path = split.identity, Path(split.location)
    if identity.endswith(_TOPICS):
        yield from _topics(source.label, identity, path)
    elif _is_prose(identity):
        yield _description(source.label, identity, path)
    else:
        yield _module(source.label, split.seed, identity, path)


def _split(identity: str, path: Path, seed: int) -> InputSplit:
    size, stamp = find_stamp(str(path))
    return InputSplit(identity, str(path), size, stamp=stamp, seed=seed)


def _is_prose(identity: str) -> bool:
    return identity.endswith((_TOPICS, "/METADATA"))


def _files() -> Iterator[tuple[str, Path]]:
    """(identity, path) of every candidate; the identity is relative to its library."""
    paths = sysconfig.get_paths()
    roots = {"stdlib": paths["stdlib"], "site-packages": paths["purelib"]}
    if paths["platlib"] != paths["purelib"]:
        roots["platlib"] = paths["platlib"]
    for label, root in roots.items():
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
            inside = Path(folder).relative_to(root).as_posix()
            prefix = f"{label}/" if inside == "." else f"{label}/{inside}/"
            for name in names:
                if name.endswith(".py") or name == "METADATA":
                    yield prefix + name, Path(folder, name)


def _read(identity: str, path: Path, max_bytes: int = _MAX_FILE_BYTES) -> str | Skipped:
    try:
        size = path.stat().st_size
        if size > max_bytes:
            return Skipped(identity, "larger than 200 kB", size)
        if size < _MIN_FILE_BYTES:
            return Skipped(identity, "shorter than 300 bytes", size)
        text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return Skipped(identity, "unreadable file", broken=True, detail=reason)
    except UnicodeDecodeError:
        # PEP 263 allows other encodings; the few such files are fixtures, not prose.
        return Skipped(identity, "not UTF-8", size)
    return text


def _written(identity: str, path: Path) -> str | Skipped:
    """The text of a file, if people wrote it line by line."""
    text = _read(identity, path)
    if isinstance(text, str) and max(map(len, text.split("\n"))) > _MAX_LINE_CHARACTERS:
        return Skipped(identity, "generated: a line over 1,000 characters", len(text.encode()))
    return text


def _module(source: str, seed: int, identity: str, path: Path) -> Document | Skipped:
    text = _written(identity, path)
    if isinstance(text, Skipped):
        return text
    if _letter_share(text) < _MIN_LETTER_SHARE:
        return Skipped(identity, "mostly not letters (a table)", len(text.encode()))
    draw = order_key(seed, f"docstrings of {identity}")[0] / 256
    if draw < _DOCSTRING_MODULE_SHARE:
        prose = _docstrings(text)
        if len(prose) >= _MIN_PROSE_CHARACTERS:
            return Document(identity, prose, source, "en", meta={"part": "docstrings"})
    return Document(identity, text, source, "code", meta={"part": "source"})


def _letter_share(text: str) -> float:
    visible = "".join(text.split())
    return sum(map(str.isalpha, visible)) / max(1, len(visible))


def _docstrings(text: str) -> str:
    """The docstrings of a module in reading order; "" when it is not valid Python."""
    tree = _parse(text)
    found: list[str] = []
    waiting: list[ast.AST] = [tree] if tree else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, _DOCUMENTED):
            docstring = ast.get_docstring(node, clean=False)
            if docstring and len(docstring) >= _MIN_DOCSTRING_CHARACTERS:
                found.append(inspect.cleandoc(docstring))
        # Only statements can hold definitions; walking the expressions too takes four times longer.
        blocks = (getattr(node, name, ()) for name in ("body", "handlers", "orelse", "finalbody"))
        children = [child for block in blocks if isinstance(block, list) for child in block]
        waiting.extend(reversed(children))
    return "\n\n".join(found)


def _parse(text: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's sources
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # templates and Python 2; the caller keeps the source itself


def _topics(source: str, identity: str, path: Path) -> Iterator[Document | Skipped]:
    """The chapters of the language manual that `help()` shows."""
    text = _read(identity, path, max_bytes=10_000_000)
    if isinstance(text, Skipped):
        yield text
        return
    tree = _parse(text)
    for node in tree.body if tree else ():
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(node.value)
            for name in sorted(topics):
                yield Document(
                    f"{identity}#{name}", topics[name], source, "en", meta={"part": "manual"}
                )


def _description(source: str, identity: str, path: Path) -> Document | Skipped:
    """The description (usually the README) that a package carries after its metadata headers."""
    text = _written(identity, path)
    if isinstance(text, Skipped):
        return text
    _, _, body = text.partition("\n\n")
    if len(body) < _MIN_PROSE_CHARACTERS:
        return Skipped(identity, "package without a description", len(text.encode()))
    return Document(identity, body, source, "en", meta={"part": "description"})
