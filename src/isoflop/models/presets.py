"""Published models by name: their exact shapes, and the parameter counts their authors give.

Not for training recipes, which take a preset and change parts of it, nor for published losses
(`laws/published_models.json`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isoflop.core.errors import RecipeError
from isoflop.models.config import (
    DECODER_FORMS,
    AnyConfig,
    Architecture,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ExpertsConfig,
    RopeScaling,
)


@dataclass(frozen=True)
class Preset:
    """A published model."""

    name: str
    architecture: Architecture
    config: AnyConfig
    published: str
    """The count as published, for instance "6.7B"."""
    source: str
    """Where shape and count are from."""
    note: str = ""
    """What to know where the two do not agree, or are not all there is."""
    active: str | None = None
    """Active parameters as published, of a mixture of experts."""


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        RecipeError: There is none; the nearest name is told.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name.lower(), PRESETS, n=1)
        fix = f"Did you mean {near[0]}?" if near else "`isoflop models` lists them"
        raise RecipeError(f"there is no model preset {name!r}", where="model.preset", fix=fix)
    return PRESETS[name]


_GPT: Mapping[str, Any] = DECODER_FORMS["gpt2"]
_LLAMA: Mapping[str, Any] = DECODER_FORMS["llama"]
_LLAMA_3_1 = RopeScaling(8.0, 1.0, 4.0, 8192)
_LLAMA_3_2 = RopeScaling(32.0, 1.0, 4.0, 8192)


def _gpt(width: int, depth: int, heads: int, context: int, vocab: int, **more: Any) -> AnyConfig:
    return DecoderConfig(
        vocab_size=vocab, d_model=width, n_layers=depth, n_heads=heads, n_kv_heads=heads,
        d_ff=4 * width, max_seq_len=context, **{"head_dim": width // heads, **_GPT, **more},
    )  # fmt: skip


def _llama(
    width: int, depth: int, heads: int, inner: int, context: int, vocab: int = 32_000, **more: Any
) -> AnyConfig:
    shape = {"n_kv_heads": heads, "head_dim": width // heads, "tie_embeddings": False, **more}
    return DecoderConfig(
        vocab_size=vocab, d_model=width, n_layers=depth, n_heads=heads, d_ff=inner,
        max_seq_len=context, **{**_LLAMA, **shape},
    )  # fmt: skip


def _qwen3(
    width: int, depth: int, heads: int, keys: int, inner: int, tied: bool, **more: Any
) -> AnyConfig:
    return DecoderConfig(
        151_936, width, depth, heads, keys, 128, inner, 40_960,
        rope_theta=1e6, tie_embeddings=tied, **more,
    )  # fmt: skip


def _deepmind(width: int, depth: int, heads: int, head_dim: int) -> AnyConfig:
    return DecoderConfig(
        32_000, width, depth, heads, heads, head_dim, 4 * width, 2048,
        positions="relative", activation="gelu", qk_norm=False, bias=True,
    )  # fmt: skip


def _t5(
    width: int, depth: int, heads: int, inner: int, *, first: bool, head_dim: int = 64
) -> AnyConfig:
    return EncoderDecoderConfig(
        32_128, width, depth, depth, heads, head_dim, inner,
        activation="relu" if first else "geglu", tie_embeddings=first,
    )  # fmt: skip


_GPT_1 = "Radford et al. 2018, section 4.1"
_GPT_2 = "Radford et al. 2019, table 2; counts corrected in the release of the weights"
_GPT_3 = "Brown et al. 2020, table 2.1"
_LLAMA_1 = "Touvron et al. 2023a, table 2"
_LLAMA_2 = "Touvron et al. 2023b, table 1; config.json of the weights"
_LLAMA_3 = "Grattafiori et al. 2024, table 3; config.json of the weights"
_QWEN3 = "Qwen3 technical report 2025, tables 1 and 2; config.json of the weights"
_T5_0 = "Raffel et al. 2020, sections 3.1.1 and 3.7"
_T5_1 = "T5 1.1 checkpoints, google-research/text-to-text-transfer-transformer"
_DENSE = "its layers alternate with banded sparse attention; here all are dense"

_ALL = [
    Preset("gpt1", "gpt2", _gpt(768, 12, 12, 512, 40_478, post_norm=True), "117M", _GPT_1),
    Preset("gpt2", "gpt2", _gpt(768, 12, 12, 1024, 50_257), "124M", _GPT_2, "117M in the paper"),
    Preset(
        "gpt2-medium", "gpt2", _gpt(1024, 24, 16, 1024, 50_257), "355M", _GPT_2,
        "345M in the paper",
    ),
    Preset(
        "gpt2-large", "gpt2", _gpt(1280, 36, 20, 1024, 50_257), "774M", _GPT_2,
        "762M in the paper",
    ),
    Preset(
        "gpt2-xl", "gpt2", _gpt(1600, 48, 25, 1024, 50_257), "1.558B", _GPT_2,
        "1542M in the paper",
    ),
    Preset("gpt3-small", "gpt2", _gpt(768, 12, 12, 2048, 50_257), "125M", _GPT_3, _DENSE),
    Preset("gpt3-medium", "gpt2", _gpt(1024, 24, 16, 2048, 50_257), "350M", _GPT_3, _DENSE),
    Preset("gpt3-large", "gpt2", _gpt(1536, 24, 16, 2048, 50_257), "760M", _GPT_3, _DENSE),
    Preset(
        "gpt3-xl", "gpt2", _gpt(2048, 24, 16, 2048, 50_257), "1.3B", _GPT_3,
        "the table's 24 heads of 128 are not its width of 2048 and would make 1.5B; 16 heads are",
    ),
    Preset("gpt3-2.7b", "gpt2", _gpt(2560, 32, 32, 2048, 50_257), "2.7B", _GPT_3, _DENSE),
    Preset("gpt3-6.7b", "gpt2", _gpt(4096, 32, 32, 2048, 50_257), "6.7B", _GPT_3, _DENSE),
    Preset(
        "gpt3-13b", "gpt2", _gpt(5140, 40, 40, 2048, 50_257, head_dim=128), "13.0B", _GPT_3,
        "40 heads of 128 project a width of 5140, as printed",
    ),
    Preset("gpt3-175b", "gpt2", _gpt(12_288, 96, 96, 2048, 50_257), "175.0B", _GPT_3, _DENSE),
    Preset(
        "gopher-280b", "gpt2", _deepmind(16_384, 80, 128, 128), "280B",
        "Rae et al. 2021, table 1",
    ),
    Preset(
        "chinchilla-70b", "gpt2", _deepmind(8192, 80, 64, 128), "70B",
        "Hoffmann et al. 2022, table 4",
    ),
    Preset(
        "llama-7b", "llama", _llama(4096, 32, 32, 11_008, 2048, norm_eps=1e-6), "6.7B",
        _LLAMA_1,
    ),
    Preset(
        "llama-13b", "llama", _llama(5120, 40, 40, 13_824, 2048, norm_eps=1e-6), "13.0B",
        _LLAMA_1,
    ),
    Preset(
        "llama-33b", "llama", _llama(6656, 60, 52, 17_920, 2048, norm_eps=1e-6), "32.5B",
        _LLAMA_1,
    ),
    Preset("llama-65b", "llama", _llama(8192, 80, 64, 22_016, 2048), "65.2B", _LLAMA_1),
    Preset("llama-2-7b", "llama", _llama(4096, 32, 32, 11_008, 4096), "7B", _LLAMA_2),
    Preset("llama-2-13b", "llama", _llama(5120, 40, 40, 13_824, 4096), "13B", _LLAMA_2),
    Preset(
        "llama-2-70b", "llama", _llama(8192, 80, 64, 28_672, 4096, n_kv_heads=8), "70B",
        _LLAMA_2,
    ),
    Preset(
        "llama-3-8b", "llama",
        _llama(4096, 32, 32, 14_336, 8192, 128_256, n_kv_heads=8, rope_theta=5e5),
        "8.03B", _LLAMA_3,
    ),
    Preset(
        "llama-3-70b", "llama",
        _llama(8192, 80, 64, 28_672, 8192, 128_256, n_kv_heads=8, rope_theta=5e5),
        "70.6B", _LLAMA_3,
    ),
    Preset(
        "llama-3.1-405b", "llama",
        _llama(
            16_384, 126, 128, 53_248, 131_072, 128_256, n_kv_heads=8, rope_theta=5e5,
            rope_scaling=_LLAMA_3_1,
        ),
        "405.9B", _LLAMA_3,
    ),
    Preset(
        "llama-3.2-1b", "llama",
        _llama(
            2048, 16, 32, 8192, 131_072, 128_256, n_kv_heads=8, rope_theta=5e5,
            rope_scaling=_LLAMA_3_2, tie_embeddings=True,
        ),
        "1.23B", "model card and config.json of the weights",
    ),
    Preset(
        "llama-3.2-3b", "llama",
        _llama(
            3072, 28, 24, 8192, 131_072, 128_256, n_kv_heads=8, rope_theta=5e5,
            rope_scaling=_LLAMA_3_2, tie_embeddings=True,
        ),
        "3.21B", "model card and config.json of the weights",
    ),
    Preset(
        "mistral-7b", "llama",
        _llama(4096, 32, 32, 14_336, 8192, n_kv_heads=8, window=4096), "7.24B",
        "Jiang et al. 2023, table 1; config.json of the weights",
    ),
    Preset(
        "mixtral-8x7b", "llama",
        _llama(
            4096, 32, 32, 14_336, 32_768, n_kv_heads=8, rope_theta=1e6,
            experts=ExpertsConfig(8, 2, 14_336),
        ),
        "46.7B", "Jiang et al. 2024, table 1; release note", active="12.9B",
    ),
    Preset(
        "mixtral-8x22b", "llama",
        _llama(
            6144, 56, 48, 16_384, 65_536, 32_768, n_kv_heads=8, rope_theta=1e6,
            experts=ExpertsConfig(8, 2, 16_384),
        ),
        "141B", "release note and config.json of the weights", active="39B",
    ),
    Preset("qwen3-0.6b", "qwen3", _qwen3(1024, 28, 16, 8, 3072, True), "0.6B", _QWEN3),
    Preset("qwen3-1.7b", "qwen3", _qwen3(2048, 28, 16, 8, 6144, True), "1.7B", _QWEN3),
    Preset("qwen3-4b", "qwen3", _qwen3(2560, 36, 32, 8, 9728, True), "4.0B", _QWEN3),
    Preset("qwen3-8b", "qwen3", _qwen3(4096, 36, 32, 8, 12_288, False), "8.2B", _QWEN3),
    Preset("qwen3-14b", "qwen3", _qwen3(5120, 40, 40, 8, 17_408, False), "14.8B", _QWEN3),
    Preset("qwen3-32b", "qwen3", _qwen3(5120, 64, 64, 8, 25_600, False), "32.8B", _QWEN3),
    Preset(
        "qwen3-30b-a3b", "qwen3-moe",
        _qwen3(2048, 48, 32, 4, 6144, False, experts=ExpertsConfig(128, 8, 768)),
        "30.5B", _QWEN3, active="3.3B",
    ),
    Preset(
        "qwen3-235b-a22b", "qwen3-moe",
        _qwen3(4096, 94, 64, 4, 12_288, False, experts=ExpertsConfig(128, 8, 1536)),
        "235B", _QWEN3, active="22B",
    ),
    Preset(
        "bert-base", "bert", EncoderConfig(30_522, 768, 12, 12, 3072), "110M",
        "Devlin et al. 2019, section 3",
    ),
    Preset(
        "bert-large", "bert", EncoderConfig(30_522, 1024, 24, 16, 4096), "340M",
        "Devlin et al. 2019, section 3",
    ),
    Preset("t5-small", "t5", _t5(512, 6, 8, 2048, first=True), "60M", _T5_0),
    Preset("t5-base", "t5", _t5(768, 12, 12, 3072, first=True), "220M", _T5_0),
    Preset("t5-large", "t5", _t5(1024, 24, 16, 4096, first=True), "770M", _T5_0),
    Preset("t5-v1.1-small", "t5", _t5(512, 8, 6, 1024, first=False), "77M", _T5_1),
    Preset("t5-v1.1-base", "t5", _t5(768, 12, 12, 2048, first=False), "250M", _T5_1),
    Preset("t5-v1.1-large", "t5", _t5(1024, 24, 16, 2816, first=False), "780M", _T5_1),
]  # fmt: skip

PRESETS: Mapping[str, Preset] = {each.name: each for each in _ALL}
"""All presets by name."""
