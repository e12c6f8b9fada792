"""From a number of parameters to a decoder: width, depth, heads, feed-forward, vocabulary.

Not for the number itself (the law) nor for what it costs. Sizes come in multiples that kernels and
layouts like; the exact count is `models.accounting`'s.
"""

from __future__ import annotations

import math
from typing import Literal

from isoflop.core.errors import RecipeError
from isoflop.models.accounting import count_parameters
from isoflop.models.config import DecoderConfig

Count = Literal["params", "params_total", "without_embeddings"]
"""What a law's N counts: all but the input embedding, as our run tables do (`params`); everything
(`params_total`); neither embedding nor output layer (`without_embeddings`)."""

SMALL_ASPECT, LARGE_ASPECT = 64.0, 128.0
SMALL_PARAMS, LARGE_PARAMS = 5e8, 7e9
SMALLEST_WIDTH = 32
LARGEST_VOCABULARY = 131_072
TIED_BELOW = 3e9
WIDE_HEADS_FROM = 2048
KEY_HEADS = 8
MISFIT_WEIGHT = 8.0
"""How much dearer a wrong parameter count is than a wrong aspect ratio, per e-fold of either: the
loss hardly knows the aspect ratio (Kaplan et al. 2020, figure 5)."""


def aspect_ratio(params: float) -> float:
    """Width over depth to aim at: 64 up to half a billion parameters, 128 from 7 billion on.

    The ratios of GPT-3's family (Brown et al. 2020, table 2.1: 64 for 125M and 760M, 128 for 6.7B
    to 175B) and of Llama (128); between them, evenly in the log.
    """
    way = math.log(params / SMALL_PARAMS) / math.log(LARGE_PARAMS / SMALL_PARAMS)
    way = min(1.0, max(0.0, way))
    return float(SMALL_ASPECT * (LARGE_ASPECT / SMALL_ASPECT) ** way)


def vocabulary(params: float) -> int:
    """A power of two near the best vocabulary of that size (Tao et al. 2024).

    They find 43,000 for 3 billion parameters and 216,000 for 70 billion, about the square root of
    the size; never above 131,072, beyond which tokenizers hardly gain.
    """
    best = 43_000 * math.sqrt(params / 3e9)
    power = round(math.log2(best))
    return int(min(LARGEST_VOCABULARY, max(1024, 2**power)))


def choose_shape(
    params: float, seq_len: int, *, count: Count = "params_total", vocab_size: int | None = None
) -> DecoderConfig:
    """The decoder whose count comes nearest to `params` at about the usual aspect ratio.

    Args:
        params: Parameters, counted as `count` says.
        vocab_size: The tokenizer's; chosen by `vocabulary` when None.

    Raises:
        RecipeError: There is no decoder so small with this vocabulary.
    """
    vocab_size = vocab_size or vocabulary(params)
    best: DecoderConfig | None = None
    best_score = math.inf
    for width in _widths(params):
        for config in _depths(params, width, seq_len, vocab_size, count):
            misfit = abs(math.log(counted(config, count) / params))
            aspect = abs(math.log(width / config.n_layers / aspect_ratio(params)))
            score = MISFIT_WEIGHT * misfit + aspect
            if score < best_score:
                best, best_score = config, score
    if best is None or counted(best, count) > 2.0 * params:
        least = counted(_config(SMALLEST_WIDTH, 1, seq_len, vocab_size, True), count)
        raise RecipeError(
            f"no decoder has {params:.3g} parameters with a vocabulary of {vocab_size:,}",
            where="params",
            fix=f"The smallest has {least:,}; a smaller --vocab-size makes it smaller",
        )
    return best


def counted(config: DecoderConfig, count: Count) -> int:
    """A decoder's parameters as a law counts them."""
    counts = count_parameters(config)
    if count == "without_embeddings":
        return counts.params - counts.output
    return counts.params if count == "params" else counts.params_total


def _unit(params: float) -> int:
    """What widths are multiples of: at scale, so that heads come in eights."""
    for least, unit in ((3e10, 1024), (3e9, 512), (3e8, 256), (2e7, 128)):
        if params >= least:
            return unit
    return 32


def _depth_unit(params: float) -> int:
    """What depths are multiples of: at scale, they divide into pipeline stages."""
    if params < 1e9:
        return 1
    return 2 if params < 1e10 else 4


def _widths(params: float) -> range:
    """Widths around the one that 12·depth·width² and the aspect ratio give."""
    unit = _unit(params)
    middle = (params * aspect_ratio(params) / 12) ** (1 / 3)
    low = max(unit, int(middle / 3) // unit * unit)
    return range(low, int(middle * 1.6) + unit + 1, unit)


def _depths(
    params: float, width: int, seq_len: int, vocab_size: int, count: Count
) -> list[DecoderConfig]:
    """The one or two depths at which this width comes nearest to the count."""
    tied = params < TIED_BELOW
    unit = _depth_unit(params)
    one, two = (_config(width, n, seq_len, vocab_size, tied) for n in (1, 2))
    block = counted(two, count) - counted(one, count)
    exact = (params - (counted(one, count) - block)) / block
    below = max(unit, int(exact) // unit * unit)
    return [_config(width, depth, seq_len, vocab_size, tied) for depth in (below, below + unit)]


def _config(width: int, depth: int, seq_len: int, vocab_size: int, tied: bool) -> DecoderConfig:
    head_dim = 128 if width >= WIDE_HEADS_FROM else 64
    if width < 256 or width % head_dim:
        head_dim = 32
    n_heads = width // head_dim
    # Groups of query heads share keys from 16 heads on, as in Llama 3 and Qwen3 (Ainslie et al.
    # 2023): the cache of a served model is that much smaller at little loss.
    shared = math.gcd(n_heads, KEY_HEADS)
    unit = 32 if width < 1024 else 256
    return DecoderConfig(
        vocab_size=vocab_size,
        d_model=width,
        n_layers=depth,
        n_heads=n_heads,
        n_kv_heads=shared if n_heads >= 2 * KEY_HEADS and shared >= 4 else n_heads,
        head_dim=head_dim,
        d_ff=math.ceil(8 * width / 3 / unit) * unit,  # Shazeer 2020: as many weights as 4 · width
        max_seq_len=seq_len,
        tie_embeddings=tied,
    )
