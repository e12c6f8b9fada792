"""Finds the files of a source, on this machine or in an object store, and opens them safely.

Not for what is in them: the readers of the single formats know that.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from isoflop.core.errors import DataError
from isoflop.data.documents import InputSplit, Skipped, order_key
from isoflop.data.extras import require
from isoflop.data.recipe import SourceConfig

SPLIT_BYTES = 64 << 20
"""Files whose format allows it are cut into parts of this size."""
UNREADABLE = "unreadable file"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a source, as `InputSplit` describes it."""

    identity: str
    location: str
    bytes: int
    stamp: str


def whole(files: list[SourceFile], seed: int) -> list[InputSplit]:
    """One split a file, in an order hashed from the seed and the identities."""
    return in_order([_split(file, seed) for file in files], seed)


def cut(files: list[SourceFile], seed: int) -> list[InputSplit]:
    """Splits of about `SPLIT_BYTES`, by ranges of bytes, in an order hashed from the seed."""
    splits: list[InputSplit] = []
    for file in files:
        starts = range(0, max(file.bytes, 1), SPLIT_BYTES)
        if len(starts) == 1:
            splits.append(_split(file, seed))
            continue
        for start in starts:
            stop = min(start + SPLIT_BYTES, file.bytes)
            splits.append(
                InputSplit(
                    file.identity, file.location, stop - start, start, stop, file.stamp, seed
                )
            )
    return in_order(splits, seed)


def in_order(splits: list[InputSplit], seed: int) -> list[InputSplit]:
    """Splits in an order that depends on the seed and their identities alone."""

    def key(split: InputSplit) -> bytes:
        part = f"@{split.start}" if split.start else ""
        return order_key(seed, split.identity + part)

    return sorted(splits, key=key)


def _split(file: SourceFile, seed: int) -> InputSplit:
    return InputSplit(file.identity, file.location, file.bytes, stamp=file.stamp, seed=seed)


def find_files(source: SourceConfig, endings: tuple[str, ...]) -> list[SourceFile]:
    """The files to read; a folder gives those with one of the endings, a glob all that match.

    Links to folders are not followed: they are listed, and reading them gives a `Skipped`.

    Raises:
        DataError: There is none, or the store cannot be asked.
        RecipeError: The package for this kind of store is not installed.
    """
    if source.url is not None:
        place, files = source.url, _remote(source, source.url, endings)
    elif source.path is not None:
        place, files = str(source.path), list(_local(source.path, endings))
    else:
        raise DataError("no path", where=f"source `{source.label}`", fix="Set `path`")
    if not files:
        looked_for = ", ".join("*" + ending for ending in endings)
        raise DataError(
            f"no {source.kind} file ({looked_for}) is there",
            where=f"source `{source.label}` ({place})",
            fix="Correct `path` in the recipe; it is relative to the recipe's folder"
            if source.url is None
            else "Correct `url` in the recipe",
        )
    return files


def open_file(location: str) -> BinaryIO:
    """Open a regular file of this machine or a URL for reading.

    Raises:
        OSError: It cannot be opened or is no regular file (a FIFO or device would block).
    """
    if "://" in location:
        return _open_url(location)
    # Without O_NONBLOCK a FIFO that nobody writes to would hold us up for ever.
    descriptor = os.open(location, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(f"not a regular file but a {_kind(mode)}")
    return os.fdopen(descriptor, "rb")


def unreadable(
    identity: str, error: Exception, line: int | None = None, offset: int | None = None
) -> Skipped:
    """The note that a file, or its rest, could not be read."""
    # strerror leaves out the path, which is this machine's.
    detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Skipped(identity, UNREADABLE, line=line, broken=True, detail=str(detail), offset=offset)


def read_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """What reading a file may raise: OSError, others, and what clients of object stores raise."""
    found: list[type[Exception]] = [OSError, *others]
    for module, name in (
        ("aiohttp", "ClientError"),
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("gcsfs.retry", "HttpError"),
    ):
        error = getattr(sys.modules.get(module), name, None)
        if error is not None:
            found.append(error)
    return tuple(found)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_ISDIR: "folder (links to folders are not followed)", stat.S_ISFIFO: "FIFO",
        stat.S_ISSOCK: "socket", stat.S_ISCHR: "device", stat.S_ISBLK: "device",
    }  # fmt: skip
    return next((name for test, name in kinds.items() if test(mode)), "special file")


# --- this machine --------------------------------------------------------------------------


def _local(root: Path, endings: tuple[str, ...]) -> Iterator[SourceFile]:
    if root.is_dir():
        for identity, path in _walk(root):
            if identity.endswith(endings) or _is_linked_folder(path):
                yield _local_file(identity, path)
    elif root.exists():
        yield _local_file(root.name, str(root))
    else:
        fixed = _fixed_part(root)
        matches = glob_pattern(root.relative_to(fixed).as_posix())
        for identity, path in _walk(fixed):
            if matches.fullmatch(identity) and not _is_linked_folder(path):
                yield _local_file(identity, path)


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """(identity, path) of all that is no folder, and of links to folders."""
    waiting = [(str(root), "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            if prefix:
                yield prefix, folder  # opening it will say why
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append((entry.path, f"{prefix}{entry.name}/"))
            else:
                yield prefix + entry.name, entry.path


def _is_linked_folder(path: str) -> bool:
    return os.path.isdir(path)  # _walk gives no other folders, but those it could not list


def _local_file(identity: str, path: str) -> SourceFile:
    return SourceFile(identity, path, *find_stamp(path))


def find_stamp(path: str) -> tuple[int, str]:
    """Size and stamp of a file of this machine; 0 and "" where it cannot be reached."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, ""
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    return size, f"{size}:{status.st_mtime_ns}"


def _fixed_part(pattern: Path) -> Path:
    """The folder above the first part of a glob that holds a wildcard."""
    parts = pattern.parts
    fixed = next((i for i, part in enumerate(parts) if any(c in part for c in "*?[")), len(parts))
    return Path(*parts[: min(fixed, len(parts) - 1)])


def glob_pattern(pattern: str) -> re.Pattern[str]:
    """A glob of relative paths as a regular expression: `**` spans folders, `*` and `?` do not.

    As in a shell, no wildcard matches the leading dot of a name.
    """
    parts = pattern.split("/")
    expression = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            expression += r"(?:(?!\.)[^/]+/)*" + (r"(?!\.)[^/]+" if last else "")
            continue
        for position, piece in enumerate(re.split(r"(\*+|\?|\[!?[^]]+\])", part)):
            guard = r"(?!\.)" if position == 1 and not part[: len(piece)].startswith(".") else ""
            if piece.startswith("*"):
                expression += guard + "[^/]*"
            elif piece == "?":
                expression += guard + "[^/]"
            elif position % 2:
                inside = re.sub(r"([\[\\&~|])", r"\\\1", piece[1:-1])
                expression += guard + f"[{'^' + inside[1:] if inside[0] == '!' else inside}]"
            else:
                expression += re.escape(piece)
        expression += "" if last else "/"
    return re.compile(expression, re.DOTALL)


# --- object stores -------------------------------------------------------------------------


def _remote(source: SourceConfig, url: str, endings: tuple[str, ...]) -> list[SourceFile]:
    fsspec = require("fsspec", f'url = "{url}"', "text")
    try:
        store, path = fsspec.core.url_to_fs(url)
        is_web = url.startswith(("http://", "https://"))
        # A question mark of a web address starts its query.
        if any(c in url for c in ("*[" if is_web else "*?[")):
            names = [name for name in store.glob(path) if not store.isdir(name)]
            root = path[: re.search(r"[*?\[]", path).start()].rpartition("/")[0]  # type: ignore[union-attr]
        elif not is_web and store.isdir(path):
            names = [name for name in store.find(path) if name.endswith(endings)]
            root = path
        else:
            names, root = [path], path.rpartition("/")[0]
        return [_remote_file(store, name, root) for name in names]
    except ImportError as error:
        raise DataError(
            f"this kind of address needs another package: {error}",
            where=f"source `{source.label}` ({url})",
            fix="Install what fsspec asks for, as s3fs for s3:// or gcsfs for gs://",
        ) from None
    except read_errors(ValueError) as error:
        raise DataError(
            f"the store cannot be read: {error or type(error).__name__}",
            where=f"source `{source.label}` ({url})",
            fix="Check the address, the network and the credentials, or copy the files here",
        ) from None


def _remote_file(store: object, name: str, root: str) -> SourceFile:
    details = store.info(name)  # type: ignore[attr-defined]
    size = int(details.get("size") or 0)
    tags = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "created")
    tag = next((str(details[key]) for key in tags if details.get(key)), "")
    identity = name[len(root) :].lstrip("/") or name.rpartition("/")[2]
    location = str(store.unstrip_protocol(name))  # type: ignore[attr-defined]
    return SourceFile(identity, location, size, f"{size}:{tag}")


def _open_url(url: str) -> BinaryIO:
    fsspec = require("fsspec", url, "text")
    try:
        store, path = fsspec.core.url_to_fs(url)
        file: BinaryIO = store.open(path, "rb")
    except (ImportError, ValueError) as error:
        raise OSError(str(error)) from None
    return file
