"""Learning-rate schedules as pure functions of the tokens seen; not optimizers."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["wsd", "cosine", "linear", "constant", "inverse-sqrt"]


def learning_rate_factor(
    tokens: int,
    *,
    total_tokens: int,
    warmup_tokens: int,
    schedule: Schedule,
    decay_fraction: float,
    final_fraction: float,
) -> float:
    """The factor on the peak learning rate for the step that starts after `tokens` tokens.

    Linear warm-up over `warmup_tokens`, then
    `constant`: 1; `linear`: straight to `final_fraction` at `total_tokens`;
    `cosine`: half a cosine to `final_fraction` (Loshchilov & Hutter 2017);
    `wsd`: 1 until the last `decay_fraction` of all tokens, then straight to `final_fraction`
    (warm-up–stable–decay, Hu et al. 2024). Because nothing before the decay depends on the
    horizon, runs of several lengths share one trunk;
    `inverse-sqrt`: (warmup_tokens / tokens)^0.5 (Vaswani et al. 2017), whatever the horizon.
    """
    warmup = min(1.0, tokens / warmup_tokens) if warmup_tokens else 1.0
    if schedule == "constant":
        return warmup
    if schedule == "inverse-sqrt":
        return warmup * math.sqrt(warmup_tokens / max(tokens, warmup_tokens, 1))
    start = (1 - decay_fraction) * total_tokens if schedule == "wsd" else warmup_tokens
    done = min(1.0, max(0.0, (tokens - start) / max(total_tokens - start, 1)))
    remaining = 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1 - done
    return warmup * (final_fraction + (1 - final_fraction) * remaining)
