"""Recipes: messages with file, line and nearest key; flags over the file; round trips."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from isoflop.core.errors import RecipeError
from isoflop.core.recipe import from_dict, load_recipe, to_dict


@dataclass(frozen=True)
class Source:
    kind: Literal["text", "jsonl"]
    """What it is."""
    path: Path | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Train:
    learning_rate: float = 1e-3
    """Peak learning rate."""
    tokens: int = 1000
    widths: tuple[int, ...] = (1, 2)
    compile: bool = False

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate = {self.learning_rate} must be positive")


@dataclass(frozen=True)
class Recipe:
    name: str
    train: Train = field(default_factory=Train)
    sources: tuple[Source, ...] = ()
    batch: int | Literal["auto"] = "auto"
    mixture: dict[str, float] | None = None

    def __post_init__(self) -> None:
        if self.train.tokens < 10:
            raise RecipeError(f"train.tokens = {self.train.tokens} is too few", fix="Give 10")


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "recipe.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, Recipe, overrides)
    return caught.value.paragraph()


def test_a_full_recipe_becomes_nested_frozen_dataclasses(write) -> None:
    path = write(
        'name = "a"\nbatch = 8\n[train]\nlearning-rate = 1\nwidths = [4, 5, 6]\ncompile = true\n'
        '[[sources]]\nkind = "text"\npath = "texts"\n[[sources]]\nkind = "jsonl"\nweight = 2\n'
        "[mixture]\nweb = 0.5\n"
    )
    recipe = load_recipe(path, Recipe)
    assert recipe == Recipe(
        name="a",
        train=Train(learning_rate=1.0, widths=(4, 5, 6), compile=True),
        sources=(Source("text", path.parent / "texts"), Source("jsonl", None, 2.0)),
        batch=8,
        mixture={"web": 0.5},
    )
    assert isinstance(recipe.train.learning_rate, float)


def test_a_typo_in_a_nested_table_names_file_line_and_nearest_key(write) -> None:
    path = write('name = "a"\n\n[train]\ntokens = 5_000\nlerning_rate = 3e-4\n')
    said = message(path)
    assert said.startswith(f"{path}:5: ")
    assert "`train.lerning_rate`" in said
    assert "Did you mean `train.learning_rate`?" in said


def test_a_typo_in_the_second_table_of_an_array_names_its_line(write) -> None:
    path = write('name = "a"\n[[sources]]\nkind = "text"\n[[sources]]\nkind = "jsonl"\npth = "x"\n')
    said = message(path)
    assert said.startswith(f"{path}:6: ")
    assert "sources[1].pth" in said
    assert "`sources[1].path`?" in said


def test_a_key_in_the_wrong_table_is_told_where_it_belongs(write) -> None:
    assert "It is written `train.learning_rate`" in message(
        write('name = "a"\nlearning_rate = 1.0\n')
    )


def test_all_problems_are_reported_at_once_in_the_order_of_lines(write) -> None:
    path = write(
        '[train]\ntokens = "many"\ncompile = 1\nwidths = [1, 2.5]\n[[sources]]\nkind = "txt"\n'
        "[[sources]]\nweight = 1\n"
    )
    said = message(path)
    assert said.startswith(f"{path}: 6 problems:")
    places = [f"{path}:{line}: " for line in (2, 3, 4, 6, 7)]
    assert [said.index(place) for place in places] == sorted(said.index(p) for p in places)
    for words in (
        "missing `name`",
        '`train.tokens` must be a whole number, not the text "many"',
        "`train.compile` must be true or false, not the number 1",
        "`train.widths[1]` must be a whole number, not the number 2.5",
        'one of "text", "jsonl", not the text "txt". Did you mean "text"?',
        "missing `sources[1].kind`",
    ):
        assert words in said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("name = 3", "`name` must be text in quotes"),
        ('name = "a"\nbatch = true', '`batch` must be a whole number or one of "auto"'),
        ('name = "a"\nbatch = "aut"', '`batch` must be a whole number or one of "auto"'),
        ('name = "a"\ntrain = 3', "`train` must be a table"),
        ('name = "a"\ntrain.tokens = 4e6', "Write 4_000_000"),
        ('name = "a"\ntrain.learning_rate = inf', "must be finite"),
        ('name = "a"\ntrain.learning_rate = true', "must be a number, not true"),
        ('name = "a"\nsources = 3', "`sources` must be an array"),
        ('name = "a"\n[mixture]\nweb = "x"', "`mixture.web` must be a number"),
        ('name = "a"\ntrain.tokens = 20\ntrain.widths = [', "not valid TOML"),
        ('name = "a"\ntrain.compile = yes', "not valid TOML"),
        ('name = "a"\ntrain.learning-rate = 1.0\ntrain.learning_rate = 2.0', "given twice"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_line(write, line: str, words: str) -> None:
    path = write(line + "\n")
    said = message(path)
    assert words in said
    assert f"{path}:" in said.split(" ")[0]


def test_a_broken_rule_is_reported_at_the_line_of_the_key_it_names(write) -> None:
    said = message(write('name = "a"\n[train]\ntokens = 100\nlearning_rate = -1.0\n'))
    assert ":4: [train] learning_rate = -1.0 must be positive" in said
    said = message(write('name = "a"\n[train]\ntokens = 3\n'))
    assert ":3: train.tokens = 3 is too few. Give 10." in said


def test_missing_directories_and_binary_files_are_told_apart(tmp_path: Path) -> None:
    assert "no such recipe" in message(tmp_path / "none.toml")
    assert "directory" in message(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"name = \xff")
    assert "not UTF-8" in message(tmp_path / "binary.toml")


def test_flags_beat_the_file_and_leave_the_rest(write) -> None:
    path = write(
        'name = "a"\n[train]\nlearning_rate = 1.0\ntokens = 50\n[[sources]]\nkind = "text"\n'
    )
    flags = ["--train.learning-rate", "3e-4", "--sources.0.kind=jsonl", "--train.compile"]
    recipe = load_recipe(path, Recipe, [*flags, "--batch", "7", "--train.widths", "8", "9"])
    assert recipe == Recipe(
        name="a",
        train=Train(3e-4, 50, (8, 9), compile=True),
        sources=(Source("jsonl"),),
        batch=7,
    )


def test_a_flag_repairs_a_broken_rule_and_supplies_what_is_missing(write) -> None:
    path = write("[train]\nlearning_rate = -1.0\n")
    recipe = load_recipe(path, Recipe, ["--train.learning-rate", "2", "--name", "b"])
    assert (recipe.name, recipe.train.learning_rate) == ("b", 2.0)


def test_what_neither_file_nor_flag_gives_is_still_missing(write) -> None:
    assert "missing `name`" in message(write("[train]\n"), "--train.tokens", "50")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--train.lerning-rate", "1"], "Did you mean --train.learning-rate?"),
        (["--train.tokens", "4e6"], "--train.tokens"),
        (["--train.learning-rate", "-1"], "must be positive"),
        (["--train.tokens", "3"], "train.tokens = 3 is too few. Give 10."),
        (["--train.tokens"], "--train.tokens"),
    ],
)
def test_a_bad_flag_is_one_paragraph(write, flags: list[str], words: str) -> None:
    said = message(write('name = "a"\n'), *flags)
    assert words in said
    assert not set(said) & set("\n╭│─")


_RECIPES = st.builds(
    Recipe,
    name=st.text(max_size=5),
    train=st.builds(
        Train,
        learning_rate=st.floats(1e-9, 1e9),
        tokens=st.integers(10),
        widths=st.lists(st.integers(), max_size=3).map(tuple),
        compile=st.booleans(),
    ),
    sources=st.lists(
        st.builds(
            Source,
            kind=st.sampled_from(["text", "jsonl"]),
            path=st.none() | st.sampled_from([Path("a/b"), Path("/c")]),
        ),
        max_size=2,
    ).map(tuple),
    batch=st.integers() | st.just("auto"),
    mixture=st.none() | st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=2),
)


@given(_RECIPES)
@settings(deadline=None)
def test_a_recipe_survives_json(recipe: Recipe) -> None:
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe))), "here") == recipe


def test_from_dict_names_its_source_and_the_key() -> None:
    with pytest.raises(RecipeError, match=r"config\.json: unknown key `train\.token`"):
        from_dict(Recipe, {"name": "a", "train": {"token": 3}}, "config.json")
