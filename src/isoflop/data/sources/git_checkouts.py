"""Reads the tracked text files of a git checkout, each with its licence; not its history."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from isoflop.core.errors import DataError
from isoflop.data.documents import Document, InputSplit, Skipped
from isoflop.data.encodings import decode
from isoflop.data.licences import licence_of_text
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources.files import SourceFile, find_stamp, open_file, read_errors, whole
from isoflop.data.sources.text import read_whole, unknown_encoding

_PROSE = (".md", ".markdown", ".rst", ".txt", ".text", ".adoc", ".tex", ".org")
_LICENCE_FILE = re.compile(
    r"(?:licen[cs]e|copying(?:\.lesser)?|unlicense)(?:[.-][\w.-]+)?", re.IGNORECASE
)
_BINARY_HEAD_BYTES = 8_000
_POINTER = b"version https://git-lfs.github.com/spec/"
_MAX_LICENCE_BYTES = 100_000
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^/@]*@")


def plan(source: SourceConfig, seed: int) -> list[InputSplit]:
    """The tracked files of the checkout, or of the folder within one that `path` names.

    Raises:
        DataError: git is missing, or there is no checkout or no tracked file.
    """
    folder = _folder(source)
    listing = _git(folder, "ls-files", "--stage", "-z")
    files: list[SourceFile] = []
    for entry in listing.split("\0"):
        mode, _, rest = entry.partition(" ")
        name = rest.partition("\t")[2]
        if mode.startswith("100"):  # regular files; not links (120000) nor submodules (160000)
            path = str(folder / name)
            size, stamp = find_stamp(path)
            files.append(SourceFile(name, path, size, stamp))
    if not files:
        raise DataError(
            "git tracks no file here",
            where=f"source `{source.label}` ({folder})",
            fix="Correct `path`, or add files with `git add`",
        )
    return whole(files, seed)


def read(source: SourceConfig, split: InputSplit) -> Iterator[Document | Skipped]:
    """One file: a document, or a note that it is binary or only a pointer to large storage."""
    raw = read_whole(source, split)
    if isinstance(raw, Skipped):
        yield raw
        return
    name, size = split.identity, len(raw)
    if raw.startswith(_POINTER):
        yield Skipped(name, "pointer to a large file", size)
        return
    is_wide = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in raw[:_BINARY_HEAD_BYTES] and not is_wide:
        yield Skipped(name, "binary file", size)
        return
    found = decode(raw)
    if found is None:
        yield unknown_encoding(name, raw)
        return
    folder = _folder(source)
    address, commit = _origin(folder)
    meta: dict[str, object] = {"commit": commit, "path": name} if commit else {"path": name}
    if licence := source.license or _licence(folder, PurePosixPath(name).parent):
        meta["license"] = licence
    language = source.language
    if language == "und" and not name.casefold().endswith(_PROSE):
        language = "code"
    yield Document(name, found.text, source.label, language, address, meta)


def _folder(source: SourceConfig) -> Path:
    if source.path is None:
        raise DataError("no path", where=f"source `{source.label}`", fix="Set `path`")
    return source.path


def _git(folder: Path, *arguments: str) -> str:
    # A checkout may come from anyone: nothing that its configuration names is run.
    safe = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
    command = ["git", *safe, "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except FileNotFoundError:
        raise DataError(
            "git is not installed", where=str(folder), fix='Install git, or use kind = "text"'
        ) from None
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode("utf-8", "replace").strip().splitlines()
        raise DataError(
            f"git cannot read it: {said[0] if said else error.returncode}",
            where=str(folder),
            fix="Give `path` the folder of a git checkout that you own",
        ) from None
    return done.stdout.decode("utf-8", "surrogateescape")


@lru_cache(maxsize=64)
def _origin(folder: Path) -> tuple[str, str]:
    """Address of the origin, without any password in it, and the commit; "" where unknown."""
    found = []
    for arguments in (("config", "--get", "remote.origin.url"), ("rev-parse", "HEAD")):
        try:
            found.append(_git(folder, *arguments).strip())
        except DataError:
            found.append("")
    return _USER_IN_ADDRESS.sub("", found[0]), found[1]


@lru_cache(maxsize=4096)
def _licence(folder: Path, inside: PurePosixPath) -> str | None:
    """The licence of the nearest folder that has one, up to the checkout's own."""
    here = folder / inside
    try:
        names = sorted(path.name for path in here.iterdir() if _LICENCE_FILE.fullmatch(path.name))
    except OSError:
        names = []
    for name in names:
        try:
            with open_file(str(here / name)) as file:
                text = file.read(_MAX_LICENCE_BYTES).decode("utf-8", "replace")
        except read_errors():
            continue
        if found := licence_of_text(text):
            return found
    return _licence(folder, inside.parent) if inside != inside.parent else None
