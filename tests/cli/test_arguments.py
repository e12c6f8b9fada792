"""A recipe, an output and dotted flags on one command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from isoflop.cli.arguments import (
    Arguments,
    MaybeAmount,
    RecipeArguments,
    amount,
    dispatch,
    parse_arguments,
    parse_recipe_arguments,
)
from isoflop.core.errors import RecipeError


@dataclass(frozen=True)
class Source:
    kind: Literal["text", "jsonl"]
    """What it is."""


@dataclass(frozen=True)
class Train:
    tokens: int = 5
    """How long."""
    offset: float = 0.0
    widths: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recipe:
    name: str
    """What it is called."""
    sources: tuple[Source, ...]
    train: Train = Train()


@dataclass(frozen=True, kw_only=True)
class LadderArguments(RecipeArguments):
    """Train many small models."""

    launcher: Literal["local", "ray"] = "local"
    """Who starts them."""


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = tmp_path / "r.toml"
    path.write_text('name = "a"\n[[sources]]\nkind = "text"\n')
    return str(path)


def parse(*args: str) -> tuple[LadderArguments, Recipe]:
    return parse_recipe_arguments(LadderArguments, Recipe, args, "ladder")


def test_the_commands_own_options_are_parted_from_the_recipes(path: str) -> None:
    flags = ["--train.tokens", "7", "--train.offset", "-2.5", "--train.widths", "1", "2"]
    for args in (
        [path, "-o", "out", *flags, "--launcher", "ray", "--json"],
        [path, *flags, "--launcher=ray", "--json", "--out=out"],
        ["--json", "--launcher", "ray", path, "-oout", *flags],
    ):
        arguments, recipe = parse(*args)
        assert arguments == LadderArguments(
            json=True, recipe=Path(path), out=Path("out"), launcher="ray"
        )
        assert recipe.train == Train(7, -2.5, (1, 2))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-o", "x"], "missing PATH"),
        (["r.toml"], "missing -o"),
        (["-o", "x", "--train.tokens", "7", "r.toml"], "put the recipe before the options"),
        (["r.toml", "-o", "x", "--launcher", "slurm"], "slurm"),
        (["r.toml", "s.toml", "-o", "x"], "s.toml"),
        (["none.toml", "-o", "x"], "none.toml: no such recipe"),
    ],
)
def test_a_command_line_that_cannot_be_read_says_why(args: list[str], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse(*args)
    assert words in caught.value.paragraph()


def test_help_lists_the_recipes_options_with_their_docstrings(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert not stop.value.code
    page = capsys.readouterr().out
    for words in ("usage: isoflop ladder", "Train many small models", "-o DIR"):
        assert words in page
    assert "--train.tokens INT" in page
    assert "How long. (default: 5)" in page
    assert "--sources.0.kind {text,jsonl}" in page
    assert "--no-json" not in page


def test_a_second_word_is_dispatched_or_explained(capsys) -> None:
    choices = {"build": (len, "build one"), "inspect": (lambda args: 0, "look into one")}
    assert dispatch("data", choices, ["build", "x", "y"]) == 2
    assert dispatch("data", choices, ["--help"]) == 0
    assert "build    build one" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="Did you mean `inspect`"):
        dispatch("data", choices, ["inspekt"])
    with pytest.raises(RecipeError, match="needs a second word"):
        dispatch("data", choices, [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7B", 7e9),
        ("1.4T", 1.4e12),
        ("250m", 2.5e8),
        ("7e9", 7e9),
        ("250_000", 2.5e5),
        ("-1", -1.0),
    ],
)
def test_amounts_are_read_as_people_write_them(text: str, value: float) -> None:
    assert amount(text) == value


@pytest.mark.parametrize("text", ["", "B", "7X", "seven", "7BB"])
def test_what_is_no_amount_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write 7e9 or 7B"):
        amount(text)


@dataclass(frozen=True, kw_only=True)
class Amounts(Arguments):
    """A test's own arguments."""

    params: MaybeAmount = None
    """Parameters."""
    share: float | None = None
    """A share."""


def test_a_wrong_value_is_named_without_the_parsers_own_types() -> None:
    assert parse_arguments(Amounts, ["--params", "7B"], "test").params == 7e9
    refused = {"--params": "'x' is no number", "--share": "cannot be 'x'"}
    for flag, said in refused.items():
        with pytest.raises(RecipeError) as caught:
            parse_arguments(Amounts, [flag, "x"], "test")
        assert said in caught.value.what
        assert "None" not in caught.value.what
