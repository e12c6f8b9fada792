"""Published shapes give published counts, and a smaller twin has as many as its module."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from isoflop.core.errors import RecipeError
from isoflop.models.accounting import count_parameters
from isoflop.models.build import build_model
from isoflop.models.config import DecoderConfig, EncoderConfig
from isoflop.models.presets import PRESETS, preset

EXACT = {
    # The sums of the tensors' sizes in the released weights.
    "gpt1": 116_534_784, "gpt2": 124_439_808, "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200, "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320, "llama-33b": 32_528_943_616, "llama-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616, "llama-2-70b": 68_976_648_192, "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496, "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400, "llama-3.2-3b": 3_212_749_824, "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704, "mixtral-8x22b": 140_630_071_296,
    "qwen3-0.6b": 596_049_920, "qwen3-8b": 8_190_735_360, "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560, "t5-small": 60_506_624, "t5-base": 222_903_552,
    "t5-large": 737_668_096, "t5-v1.1-small": 76_961_152, "t5-v1.1-base": 247_577_856,
    "t5-v1.1-large": 783_150_080, "bert-base": 110_106_428, "bert-large": 336_226_108,
}  # fmt: skip
QWEN3_NON_EMBEDDING = {
    # Model cards of the released weights.
    "qwen3-0.6b": 0.44e9, "qwen3-1.7b": 1.4e9, "qwen3-4b": 3.6e9, "qwen3-8b": 6.95e9,
    "qwen3-14b": 13.2e9, "qwen3-32b": 31.2e9, "qwen3-30b-a3b": 29.9e9, "qwen3-235b-a22b": 234e9,
}  # fmt: skip
ROUGH = {
    # Published counts that are not rounded to the digits they have, and how far they are off.
    "gpt3-medium": 0.017, "gpt3-13b": 0.005, "gpt3-175b": 0.0023, "llama-65b": 0.0014,
    "llama-2-70b": 0.015, "llama-3.2-1b": 0.0048, "bert-large": 0.0112, "t5-small": 0.0085,
    "t5-base": 0.0132, "t5-large": 0.042, "t5-v1.1-base": 0.0097, "t5-v1.1-large": 0.0041,
}  # fmt: skip
ROUGH_ACTIVE = {"qwen3-30b-a3b": 0.0161}


def _number(said: str) -> tuple[float, float]:
    """The published number, and half of its last digit."""
    match = re.fullmatch(r"([\d.]+)([MB])", said)
    assert match
    unit = {"M": 1e6, "B": 1e9}[match[2]]
    digits = len(match[1].partition(".")[2])
    return float(match[1]) * unit, 0.5 * 10**-digits * unit


@pytest.mark.parametrize("name", PRESETS)
def test_the_count_is_the_published_one_to_its_last_digit(name):
    each = PRESETS[name]
    value, half_digit = _number(each.published)
    off = abs(count_parameters(each.config).params_total - value)
    assert off <= max(half_digit, ROUGH.get(name, 0.0) * value)
    assert name not in ROUGH or off > half_digit, "no longer rough"


@pytest.mark.parametrize("name", [n for n in PRESETS if PRESETS[n].active])
def test_active_parameters_are_the_published_ones(name):
    value, half_digit = _number(PRESETS[name].active)
    found = count_parameters(PRESETS[name].config).active_total
    assert abs(found - value) <= max(half_digit, ROUGH_ACTIVE.get(name, 0.0) * value)


@pytest.mark.parametrize("name", EXACT)
def test_the_count_is_that_of_the_released_weights(name):
    assert count_parameters(PRESETS[name].config).params_total == EXACT[name]


@pytest.mark.parametrize("name", QWEN3_NON_EMBEDDING)
def test_non_embedding_counts_of_qwen3_are_those_of_its_model_cards(name):
    found = count_parameters(PRESETS[name].config).non_embedding
    assert found == pytest.approx(QWEN3_NON_EMBEDDING[name], rel=0.01)


@pytest.mark.parametrize("name", PRESETS)
def test_a_smaller_twin_has_as_many_parameters_as_its_module(name):
    config = PRESETS[name].config
    small = {"vocab_size": 97, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 64}
    if isinstance(config, DecoderConfig):
        small |= {"head_dim": 8, "n_kv_heads": 4 if config.n_kv_heads == config.n_heads else 2}
        if config.experts is not None:
            experts = replace(config.experts, n_experts=9, d_expert=16)
            small["experts"] = experts
    elif not isinstance(config, EncoderConfig):
        small |= {"head_dim": 8, "n_decoder_layers": 3}
    twin = replace(config, **small)
    with torch.device("meta"):
        model = build_model(replace(twin, max_seq_len=64))
    built = sum(parameter.numel() for parameter in model.parameters())
    assert count_parameters(replace(twin, max_seq_len=64)).params_total == built


@pytest.mark.parametrize("name", ["gpt2-xl", "llama-7b", "bert-large", "t5-base", "qwen3-30b-a3b"])
def test_the_whole_module_has_the_count_of_the_formula(name):
    with torch.device("meta"):
        model = build_model(PRESETS[name].config)
    built = sum(parameter.numel() for parameter in model.parameters())
    assert count_parameters(PRESETS[name].config).params_total == built


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(RecipeError, match=r"no model preset 'gpt2-xxl'.*Did you mean gpt2-xl\?"):
        preset("gpt2-xxl")


@pytest.mark.parametrize("page", ["reference.md", "reference.zh.md"])
def test_the_table_of_the_manual_is_that_of_the_presets(page):
    text = (Path(__file__).resolve().parents[2] / "docs" / page).read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `([^`]+)` \| ([\d.]+[MB]) \| ([\d,]+) \| (\S+) % \|", text, re.MULTILINE
    )
    assert [row[0] for row in rows] == list(PRESETS)
    for name, published, ours, difference in rows:
        count = count_parameters(PRESETS[name].config).params_total
        assert (published, ours) == (PRESETS[name].published, f"{count:,}")
        assert difference == f"{(count / _number(published)[0] - 1) * 100:+.1f}"
