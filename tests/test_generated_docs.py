"""What `make docs` writes from the code: every command with its help, every name, every module."""

from __future__ import annotations

import importlib.util
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import isoflop
from isoflop.cli.main import COMMANDS

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "generate.py"


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("generate", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_and_second_word_has_its_help(generate: Any) -> None:
    listed = dict(generate.commands())
    assert {name.split()[0] for name in listed} == set(COMMANDS)
    assert {"data build", "laws fit", "tokenizer train", "feedback export"} <= set(listed)
    for name, text in listed.items():
        assert text.startswith(f"usage: isoflop {name}"), name
        assert "--help" in text, name


def test_every_public_name_says_what_it_is(generate: Any) -> None:
    page = generate.names_page()
    for name in ("isoflop.train", "isoflop.plan", "isoflop.laws.fit", "isoflop.laws.Law"):
        assert f"## {name}\n" in page


def test_every_module_is_explained_in_one_line(generate: Any) -> None:
    rows = [line for line in generate.modules_page().splitlines() if line.startswith("| `")]
    modules = [found.name for found in pkgutil.walk_packages(isoflop.__path__, "isoflop.")]
    assert len(rows) == len(modules)
    for row in rows:
        name, what = (cell.strip(" `") for cell in row.strip("| ").split(" | ", 1))
        assert len(what) > 10, name
