"""The pins agree with each other and with what the package asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def pins() -> dict[str, str]:
    """Package → version in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def requirements() -> list[Requirement]:
    """What the package and all its extras ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(text) for group in (project["dependencies"], *extras) for text in group]


def test_every_requirement_is_pinned_at_a_version_it_allows() -> None:
    pinned = pins()
    for wanted in requirements():
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), wanted


def test_no_requirement_is_pinned_in_the_package_itself() -> None:
    assert [str(r) for r in requirements() if any("=" * 2 in str(s) for s in r.specifier)] == []


def test_make_installs_the_torch_that_is_pinned() -> None:
    installed = re.findall(r"torch==([\w.]+)", (ROOT / "Makefile").read_text())
    assert installed == [pins()["torch"]]
