"""What other people's code may rely on: the public names, kept small on purpose."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types

import pytest

import isoflop
import isoflop.laws
from isoflop.cli.main import COMMANDS

PUBLIC = {
    isoflop: {"__version__", "evaluate", "laws", "load", "plan", "train"},
    isoflop.laws: {
        *("Backtest", "Law", "NextRun", "Optimal", "Prediction", "RunTable"),
        *("backtest", "find_law", "fit", "known_models", "load_law", "next_run", "published_law"),
        *("published_laws", "read_for", "read_table"),
    },
}
"""A name is added here on purpose, and taken away only with a new major version."""

FUNCTIONS = [
    (package, name)
    for package, names in PUBLIC.items()
    for name in sorted(names)
    if not name.startswith("_") and name != "laws"
]


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_the_public_names_are_these_and_no_others(package: types.ModuleType) -> None:
    assert set(package.__all__) == PUBLIC[package]
    assert len(package.__all__) == len(set(package.__all__))


def test_dir_shows_the_public_names_before_they_are_imported() -> None:
    assert dir(isoflop) == sorted(PUBLIC[isoflop])


def test_the_package_leads_to_its_laws_without_another_import() -> None:
    script = "import isoflop; print(isoflop.laws.fit.__name__, isoflop.plan.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "fit plan\n"


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        isoflop.trian  # noqa: B018


@pytest.mark.parametrize(("package", "name"), FUNCTIONS, ids=lambda part: str(part))
def test_a_public_name_says_what_it_is_and_takes_typed_values(
    package: types.ModuleType, name: str
) -> None:
    thing = getattr(package, name)
    assert inspect.getdoc(thing), f"{name} has no docstring"
    callables = [thing]
    if inspect.isclass(thing):
        callables = [
            member
            for key, member in vars(thing).items()
            if inspect.isfunction(member) and not key.startswith("_")
        ]
        assert all(inspect.getdoc(member) for member in callables), name
    for function in callables:
        signature = inspect.signature(function)
        untyped = [
            parameter.name
            for parameter in signature.parameters.values()
            if parameter.annotation is parameter.empty and parameter.name not in ("self", "cls")
        ]
        assert not untyped, f"{name}: {untyped}"
        assert signature.return_annotation is not signature.empty, name


def test_the_commands_are_these() -> None:
    assert set(COMMANDS) == {
        *("demo", "doctor", "data", "tokenizer", "tokenize", "train", "ladder", "mixture", "laws"),
        *("emergence", "plan", "models", "compress", "import", "export", "eval", "report"),
        *("sft", "reward", "dpo", "ppo", "grpo", "verify", "serve", "feedback", "redteam"),
        *("ledger", "chat", "runs", "show", "grokking", "iterate"),
    }


def test_the_version_is_one_that_packaging_tools_understand() -> None:
    major, minor, patch = isoflop.__version__.split(".")
    assert f"{int(major)}.{int(minor)}.{int(patch)}" == isoflop.__version__
