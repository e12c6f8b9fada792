"""Where an artifact came from: the manifests behind it, each with the commands that repeat it.

Not for what a thing is (identify).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isoflop.core.artifact import MANIFEST, read_manifest, sha256_file
from isoflop.core.errors import ArtifactError
from isoflop.reporting.inventory.commands import Command, made_by
from isoflop.reporting.inventory.identify import Thing, identify

_DEEPEST = 32


@dataclass(frozen=True)
class Step:
    """One artifact or file that something was made from."""

    depth: int
    """1 for what it was made from directly, 2 for what that was made from …"""
    path: str
    """Where it lies now, or where it lay."""
    kind: str
    """As `Thing.kind`; `gone` where there is nothing of the recorded name any more."""
    created: str
    sha256: str
    """As it was recorded when it was used."""
    unchanged: bool | None
    """Whether what lies there now is what was used; None where nothing lies there."""
    commands: tuple[Command, ...]


@dataclass(frozen=True)
class Damage:
    """A file that is not what the manifest says."""

    path: str
    what: str


def ancestry(thing: Thing) -> tuple[Step, ...]:
    """Everything a thing was made from, nearest first, each once.

    Raises:
        ArtifactError: A manifest on the way is damaged.
    """
    return tuple(_behind(thing, 1, set()))


def _behind(thing: Thing, depth: int, seen: set[str]) -> Iterator[Step]:
    if thing.manifest is None or depth > _DEEPEST:
        return
    for given in thing.manifest.inputs:
        recorded, digest = given["path"], given["sha256"]
        if digest in seen:
            continue
        seen.add(digest)
        found = _find(Path(recorded), thing.path, digest)
        if found is None:
            yield Step(depth, recorded, "gone", "", digest, None, ())
            continue
        current = identify(found)
        same = _hash(found) == digest
        created = current.manifest.created if current.manifest else ""
        shown = Step(depth, str(found), current.kind, created, digest, same, made_by(current))
        yield shown
        yield from _behind(current, depth + 1, seen)
        run = found.parent
        if current.kind in ("model", "reward-model") and (run / MANIFEST).is_file():
            yield from _behind(identify(run), depth + 1, seen)


def _find(recorded: Path, user: Path, digest: str) -> Path | None:
    """Where an input lies: as recorded, or beside its user where both were moved together."""
    beside = [user.parent / recorded.name, user.parent.parent / recorded.name]
    if not recorded.is_absolute():
        beside.insert(0, user.parent / recorded)
    places = [Path(os.path.normpath(place)) for place in (recorded, *beside)]
    there = [place for place in places if place.exists()]
    return next((p for p in there if _hash(p) == digest), there[0] if there else None)


def _hash(path: Path) -> str:
    manifest = path / MANIFEST
    if manifest.exists():
        return sha256_file(manifest)
    return sha256_file(path) if path.is_file() else ""


def damages(thing: Thing) -> tuple[Damage, ...]:
    """Every file that its manifest vouches for and that is missing or changed; hashes them all."""
    if thing.manifest is None:
        return ()
    found = []
    for name, expected in thing.manifest.files.items():
        file = thing.path / name
        if not file.is_file():
            found.append(Damage(str(file), "is missing"))
        elif sha256_file(file) != expected:
            found.append(Damage(str(file), "differs from its hash in the manifest"))
    inner = thing.path / "model"
    if thing.kind == "run" and (inner / MANIFEST).is_file():
        try:
            read_manifest(inner, verify=True)
        except ArtifactError as error:
            found.append(Damage(error.where or str(inner), error.what))
    return tuple(found)
