"""Recipes written as TOML are read back equal."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from isoflop.core.recipe import load_recipe
from isoflop.core.toml_write import plain_toml, write_recipe
from isoflop.planning.recipe import LadderRecipe, RungConfig, WidthRule
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.recipe import DataConfig, ModelConfig, TrainConfig

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
floats = st.floats(1e-12, 1e12)


@dataclass(frozen=True)
class Inner:
    """A table in a table."""

    text: str = ""
    """Any text."""
    flag: bool = True
    """Yes or no."""
    maybe: float | None = None
    """A number or nothing."""


@dataclass(frozen=True)
class Outer:
    """Every kind of value a recipe holds."""

    number: int = 0
    """A number."""
    texts: tuple[str, ...] = ()
    """A list."""
    inner: Inner = field(default_factory=Inner)
    """A table."""
    tables: tuple[Inner, ...] = ()
    """A list of tables."""


inners = st.builds(Inner, text=texts, flag=st.booleans(), maybe=st.none() | floats)
outers = st.builds(
    Outer,
    number=st.integers(-(2**62), 2**62),
    texts=st.lists(texts, max_size=3).map(tuple),
    inner=inners,
    tables=st.lists(inners, max_size=3).map(tuple),
)
ladders = st.builds(
    LadderRecipe,
    data=st.just(DataConfig(Path("/elsewhere/shards"))),
    rungs=st.lists(
        st.builds(RungConfig, d_model=st.integers(1, 64).map(lambda n: 32 * n),
                  n_layers=st.integers(1, 9),
                  tokens=st.lists(st.integers(16384, 2**40), min_size=1, max_size=4).map(tuple)),
        min_size=1, max_size=4, unique_by=lambda rung: (rung.d_model, rung.n_layers),
    ).map(tuple),
    model=st.builds(ModelConfig, n_heads=st.none() | st.integers(1, 8), rope_theta=floats,
                    tie_embeddings=st.booleans()),
    optimizer=st.builds(OptimizerConfig, learning_rate=floats, decay_fraction=st.floats(0.01, 1)),
    width_rule=st.builds(WidthRule, base_width=st.integers(1, 4096), exponent=st.floats(-2, 2)),
    train=st.builds(TrainConfig, sample_prompts=st.lists(texts, max_size=2).map(tuple),
                    seed=st.integers(0, 2**63 - 1), threads=st.none() | st.integers(1, 64)),
    processes=st.none() | st.integers(1, 64),
)  # fmt: skip
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@shared_folder
@given(outers, texts.map(lambda text: "".join(c for c in text if c.isprintable())))
def test_any_values_are_read_back_equal(tmp_path: Path, recipe: Outer, comment: str) -> None:
    write_recipe(tmp_path / "recipe.toml", recipe, f"{comment}\nisoflop …")
    assert load_recipe(tmp_path / "recipe.toml", Outer) == recipe


@shared_folder
@given(ladders)
def test_any_ladder_is_read_back_equal(tmp_path: Path, recipe: LadderRecipe) -> None:
    write_recipe(tmp_path / "recipe.toml", recipe, "isoflop ladder recipe.toml -o ladder")
    assert load_recipe(tmp_path / "recipe.toml", LadderRecipe) == recipe


def test_the_comment_comes_first_and_each_of_its_lines_is_one(tmp_path: Path) -> None:
    write_recipe(tmp_path / "recipe.toml", Outer(), "one\ntwo = 2")
    assert (tmp_path / "recipe.toml").read_text().startswith("# one\n# two = 2\nnumber = 0\n")


@pytest.mark.parametrize("given_as", ["relative", "absolute"])
def test_a_directory_can_move_with_the_recipes_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_as: str
) -> None:
    monkeypatch.chdir(tmp_path)
    demo = Path("demo") if given_as == "relative" else tmp_path / "demo"
    (demo / "shards").mkdir(parents=True)
    write_recipe(demo / "recipes" / "r.toml", DataConfig(demo / "shards"), "")
    demo.rename(tmp_path / "moved")
    found = load_recipe(tmp_path / "moved" / "recipes" / "r.toml", DataConfig)
    assert found.shards.samefile(tmp_path / "moved" / "shards")
    assert str(tmp_path) not in (tmp_path / "moved" / "recipes" / "r.toml").read_text()


def test_an_absolute_path_elsewhere_stays_as_it_is(tmp_path: Path) -> None:
    recipe = DataConfig(Path("/data/shards"))
    write_recipe(tmp_path / "a" / "r.toml", recipe, "")
    assert load_recipe(tmp_path / "a" / "r.toml", DataConfig) == replace(recipe)


def test_plain_values_are_read_back_equal_and_paths_stay_as_written() -> None:
    values = {
        "seed": 3, "rate": 1e-3, "on": True, "name": 'a "b"\n\x7f', "path": "../x y",
        "none": None, "list": [1, 2], "odd key": 1, "inner": {"deep": {"a": 1.5}},
        "tables": [{"a": 1, "sub": {"b": 2}}, {"a": 2}],
    }  # fmt: skip
    read = tomllib.loads(plain_toml(values))
    assert read == {key: value for key, value in values.items() if value is not None}
