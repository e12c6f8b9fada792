"""Artifact directories: whole files or none, hashes, and the manifest written last.

Not for what is inside the files: each stage knows its own formats.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from isoflop.core.errors import ArtifactError
from isoflop.version import __version__

MANIFEST = "manifest.json"


# --- whole files or none -------------------------------------------------------------------


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears at `path` whole, on success, or not at all.

    Written beside its final place, fsynced, then renamed, so that a crash at any instant leaves
    either the old file or the new one. On an exception the partial file is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError) and str(error.filename or aside) == str(aside):
            error.filename = str(path)  # a failed write does not know its file
        raise
    fsync_directory(path.parent)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` (text as UTF-8) so that `path` is never seen half-written."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: The file is missing, unreadable or not JSON (with the line).
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError("no such file", where=str(path)) from None
    except json.JSONDecodeError as error:
        raise ArtifactError(
            f"not valid JSON: {error.msg}",
            where=f"{path}:{error.lineno}",
            fix="The file was changed or damaged after it was written; remake the artifact",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"cannot be read: {error}", where=str(path)) from None


def fsync_directory(directory: Path) -> None:
    """Make a rename inside `directory` survive a power cut (a no-op where unsupported)."""
    with suppress(OSError):  # some file systems and platforms refuse to open a directory
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def build_directory(path: Path) -> Iterator[Path]:
    """Build a directory aside and rename it to `path` on success; nothing is left on failure.

    An older complete artifact at `path` is replaced only once the new one is whole.

    Raises:
        ArtifactError: `path` exists and is not an artifact of ours (it would be overwritten).
    """
    if path.exists() and not (path / MANIFEST).exists() and any(path.iterdir()):
        raise ArtifactError(
            "the output directory exists and is not an Isoflop artifact",
            where=str(path),
            fix="Choose another directory with -o, or remove this one",
        )
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    fsync_directory(aside)
    if path.exists():
        old = path.with_name(f".{path.name}.{os.getpid()}.old")
        os.replace(path, old)
        os.replace(aside, path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(aside, path)
    fsync_directory(path.parent)


def _remove_abandoned(path: Path) -> None:
    """Remove what builds of `path` left aside when they were killed; live ones are let be."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.(?:partial|old)")
    for beside in path.parent.iterdir():
        found = pattern.fullmatch(beside.name)
        if found and not _is_running(int(found.group(1))):
            shutil.rmtree(beside, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


# --- hashes --------------------------------------------------------------------------------


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """Hex SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


# --- manifests -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Manifest:
    """What a finished artifact directory says of itself (`manifest.json`, written last)."""

    kind: str
    """What the directory holds: corpus, tokenizer, shards, run, ladder, model, demo …"""
    created: str
    """UTC time of completion, ISO 8601."""
    isoflop_version: str
    config_sha256: str
    inputs: tuple[dict[str, str], ...]
    """`{path, sha256}` of each artifact or file it was made from."""
    files: dict[str, str]
    """Relative name → SHA-256 of every file it vouches for."""
    seed: int | None
    machine: dict[str, Any]
    status: str
    """`complete`, or how the work ended otherwise."""


def write_manifest(
    directory: Path,
    *,
    kind: str,
    config: Mapping[str, Any],
    machine: Mapping[str, Any],
    inputs: Sequence[Path] = (),
    seed: int | None = None,
    files: Sequence[Path] | None = None,
    status: str = "complete",
) -> Manifest:
    """Hash the directory's files and write its manifest, which marks it as finished.

    Args:
        inputs: Artifact directories (their manifest is hashed) or plain files it was made from.
        files: The files it vouches for; every file below `directory` when omitted.
    """
    if files is None:
        files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != MANIFEST)
    manifest = Manifest(
        kind=kind,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        isoflop_version=__version__,
        config_sha256=sha256_json(config),
        inputs=tuple({"path": str(p), "sha256": _input_hash(p)} for p in inputs),
        files={f.relative_to(directory).as_posix(): sha256_file(f) for f in files},
        seed=seed,
        machine=dict(machine),
        status=status,
    )
    write_json(directory / MANIFEST, asdict(manifest))
    return manifest


def read_manifest(directory: Path, kind: str | None = None, *, verify: bool = False) -> Manifest:
    """Read the manifest of a finished artifact.

    Args:
        kind: The kind of artifact the caller needs.
        verify: Also hash every file the manifest names.

    Raises:
        ArtifactError: The directory is missing, unfinished, of another kind, or damaged.
    """
    path = directory / MANIFEST
    if not directory.is_dir():
        raise ArtifactError(f"no such {kind or 'artifact'} directory", where=str(directory))
    if not path.exists():
        raise ArtifactError(
            f"not a finished {kind or 'artifact'}: it has no {MANIFEST}",
            where=str(directory),
            fix="Run the command that makes it again; it continues where it stopped",
        )
    raw = read_json(path)
    try:
        read = tuple({"path": str(i["path"]), "sha256": str(i["sha256"])} for i in raw["inputs"])
        files = {str(name): str(value) for name, value in raw["files"].items()}
        manifest = Manifest(**{**raw, "inputs": read, "files": files})
    except (TypeError, KeyError, AttributeError):
        version = raw.get("isoflop_version", "unknown") if isinstance(raw, dict) else "unknown"
        raise ArtifactError(
            f"the manifest is not one that Isoflop {__version__} writes (it says {version})",
            where=str(path),
            fix="Make the artifact again with this version",
        ) from None
    if kind is not None and manifest.kind != kind:
        raise ArtifactError(f"this is a {manifest.kind}, not a {kind}", where=str(directory))
    if verify:
        for name, expected in manifest.files.items():
            file = directory / name
            if not file.exists() or sha256_file(file) != expected:
                raise ArtifactError(
                    "the file is missing or differs from its hash in the manifest",
                    where=str(file),
                    fix="Make the artifact again, or restore the file from a copy",
                )
    return manifest


def _input_hash(path: Path) -> str:
    manifest = path / MANIFEST
    return sha256_file(manifest if manifest.exists() else path)
