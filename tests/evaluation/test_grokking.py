"""Grokking: its pieces against closed forms, and the recipe as a whole."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isoflop.cli.main import main
from isoflop.core.errors import RecipeError
from isoflop.core.recipe import load_recipe
from isoflop.evaluation.grokking import RESULTS, fourier_shares, run_grokking
from isoflop.evaluation.grokking_recipe import GrokkingRecipe

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "grokking.toml"
SMALL = GrokkingRecipe(
    modulus=7, d_model=32, n_heads=2, steps=12, evaluations=4, batch_pairs=16,
    weight_decays=(0.0, 1.0),
)  # fmt: skip


def test_the_energy_of_a_wave_lies_at_its_own_frequency() -> None:
    numbers = np.arange(13)[:, None]
    wave = 3 + 2 * np.cos(2 * math.pi * 4 * numbers / 13 + 1) * np.ones((1, 5))
    shares = fourier_shares(wave)
    assert shares.shape == (6,)
    assert shares[3] == pytest.approx(1)


def test_white_rows_spread_their_energy_evenly() -> None:
    shares = fourier_shares(np.random.default_rng(0).standard_normal((59, 4000)))
    assert shares == pytest.approx(1 / 29, rel=0.15)


def test_moments_are_even_on_a_log_axis_and_hold_both_ends() -> None:
    moments = sorted(replace(SMALL, steps=10_000, evaluations=5).moments)
    assert moments == [1, 10, 100, 1000, 10_000]


def test_every_impossible_value_is_named_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        GrokkingRecipe(modulus=2, d_model=50, weight_decays=(1.0, 1.0))
    for word in ("modulus = 2", "d_model = 50", "weight_decays names one twice"):
        assert word in str(caught.value)


def test_the_command_writes_arms_that_share_their_start_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "small.toml"
    recipe.write_text(
        "modulus = 7\nd_model = 32\nn_heads = 2\nsteps = 12\nevaluations = 4\nbatch_pairs = 16\n"
        "weight_decays = [0.0, 1.0]\n"
    )
    out = tmp_path / "out"
    assert main(["grokking", str(recipe), "-o", str(out), "--json"]) in (0, 1)
    said = json.loads(capsys.readouterr().out)
    document = json.loads((out / RESULTS).read_text())
    assert said["arms"] == document["arms"]
    plain, decayed = document["arms"]
    assert [m["step"] for m in plain["moments"]] == sorted(SMALL.moments)
    assert plain["moments"][0]["train_loss"] == pytest.approx(
        decayed["moments"][0]["train_loss"], rel=1e-2
    )
    assert decayed["moments"][-1]["weight_norm"] < plain["moments"][-1]["weight_norm"]
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert page.count("<svg") == 8


def test_the_same_recipe_again_gives_the_same_document(tmp_path: Path) -> None:
    first = run_grokking(SMALL, tmp_path / "out")
    assert run_grokking(SMALL, tmp_path / "out") == first  # read back from finished arms
    assert run_grokking(SMALL, tmp_path / "other") == first


@pytest.mark.slow
def test_with_weight_decay_one_it_generalises_and_without_it_does_not(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPE, GrokkingRecipe, [])
    arms = {arm.weight_decay: arm for arm in run_grokking(recipe, tmp_path / "out").arms}
    for decay, arm in arms.items():
        print(decay, arm.memorised_at, arm.generalised_at, arm.best_accuracy)
    memorised, understood = arms[1.0].memorised_at, arms[1.0].generalised_at
    assert memorised is not None
    assert understood is not None
    assert understood > 2 * memorised
    assert arms[0.0].memorised_at is not None
    assert arms[0.0].best_accuracy < 0.7
    first, last = arms[1.0].moments[0], arms[1.0].moments[-1]
    assert last.fourier_top > 2 * first.fourier_top
    assert last.weight_norm < arms[0.0].moments[-1].weight_norm
