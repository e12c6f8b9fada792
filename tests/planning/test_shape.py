"""From a number of parameters to a decoder."""

from __future__ import annotations

import pytest

from isoflop.core.errors import RecipeError
from isoflop.models.accounting import count_parameters
from isoflop.planning.shape import aspect_ratio, choose_shape, counted, vocabulary

SIZES = [3e5, 1e6, 1e7, 3e7, 1.24e8, 3.5e8, 1e9, 1.5e9, 3e9, 7e9, 1.3e10, 3.3e10, 7e10, 4e11]


@pytest.mark.parametrize("count", ["params", "params_total"])
@pytest.mark.parametrize("params", SIZES)
def test_the_count_comes_within_a_few_percent_and_the_aspect_ratio_near(
    params: float, count: str
) -> None:
    config = choose_shape(params, 2048, count=count)  # type: ignore[arg-type]
    counts = count_parameters(config)
    assert getattr(counts, count) == counted(config, count)  # type: ignore[arg-type]
    small = params < 3e7  # where one block is a large part of the whole
    assert counted(config, count) == pytest.approx(params, rel=0.25 if small else 0.04)  # type: ignore[arg-type]
    aspect = config.d_model / config.n_layers
    assert aspect_ratio(params) / 2.1 < aspect < aspect_ratio(params) * 2.1


@pytest.mark.parametrize("params", SIZES)
def test_sizes_are_multiples_that_kernels_and_layouts_like(params: float) -> None:
    config = choose_shape(params, 2048)
    assert config.d_model % (256 if params >= 3e8 else 128 if params >= 2e7 else 32) == 0
    assert config.d_ff % 32 == 0
    assert config.n_heads * config.head_dim == config.d_model
    assert config.n_heads % config.n_kv_heads == 0
    if params >= 3e9:
        assert config.head_dim == 128
        assert config.n_kv_heads in (4, 8)
        assert config.d_ff % 256 == config.n_layers % 2 == 0


def test_seven_billion_looks_like_llama() -> None:
    config = choose_shape(6.74e9, 4096, vocab_size=32000)
    assert 3584 <= config.d_model <= 4608
    assert 26 <= config.n_layers <= 40
    assert config.d_ff == pytest.approx(8 / 3 * config.d_model, rel=0.05)


def test_aspect_ratios_are_those_of_gpt_3_and_llama() -> None:
    assert aspect_ratio(1.25e8) == 64  # 768 / 12
    assert aspect_ratio(6.7e9) == pytest.approx(128, rel=0.02)  # 4096 / 32
    assert aspect_ratio(1.75e11) == 128  # 12288 / 96
    assert aspect_ratio(1.3e9) == pytest.approx(85, rel=0.1)  # 2048 / 24


def test_the_vocabulary_is_the_power_of_two_nearest_tao_et_al() -> None:
    assert vocabulary(3e9) in (32768, 65536)  # 43,000
    assert vocabulary(7e10) == 131072  # 216,000, above the limit
    assert vocabulary(1e9) == 32768
    assert vocabulary(1e6) == 1024


def test_small_models_tie_their_embeddings() -> None:
    assert choose_shape(1e9, 2048).tie_embeddings
    assert not choose_shape(7e9, 2048).tie_embeddings


def test_a_vocabulary_too_large_for_the_size_is_refused() -> None:
    with pytest.raises(RecipeError, match="no decoder has 1e\\+05 parameters") as refused:
        choose_shape(1e5, 256, vocab_size=50_000)
    assert "--vocab-size" in str(refused.value)
