"""What compressing will cost, foretold from each part of the model compressed alone.

Not for judging the compressed model (`measure.py`). To second order the loss of compressing all
parts is what each loses alone plus what pairs of them lose together. Both are measured on a few
windows, the pairs by compressing every other part at once: such halves hold some of the pairs, and
the others are taken to be as large on average.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats
from torch import Tensor

from isoflop.compression.measure import window_losses
from isoflop.data.loader import EvalWindows
from isoflop.models.decoder import Decoder

LEVEL = 0.9
"""Probability that a promise claims."""


@dataclass(frozen=True)
class Sensitivity:
    """What compression adds to the loss, by part and foretold for all of them together."""

    parts: Mapping[str, float]
    """Part → bits per byte that compressing it alone adds."""
    together: float
    """Bits per byte that pairs of parts add beyond that, foretold for all pairs."""
    added: float
    """Bits per byte that compressing everything is foretold to add."""
    low: float
    high: float
    """Ends of the interval, at `LEVEL`: chance in the windows probed and in `n_judged` others,
    and `together`, on both sides, as what is least well known."""
    bits_per_byte: float
    """Of the model as it is, on the probe."""


@torch.no_grad()
def foretell(
    decoder: Decoder,
    replacements: Mapping[str, Tensor],
    probe: EvalWindows,
    n_judged: int,
) -> Sensitivity:
    """Foretell the loss of replacing parameters of a decoder.

    Args:
        replacements: Parameter → its values after compression.
        probe: Windows to measure on.
        n_judged: Windows that the compressed model will be judged on.
    """
    work = copy.deepcopy(decoder).eval()
    base = window_losses(work, probe)
    parts = parts_of(replacements)

    def cost(names: Sequence[str]) -> npt.NDArray[np.float64]:
        changed = [parameter for name in names for parameter in parts[name]]
        own = dict(work.named_parameters())
        kept = {name: own[name].detach().clone() for name in changed}
        for name in changed:
            own[name].copy_(replacements[name])
        losses = window_losses(work, probe) - base
        for name in changed:
            own[name].copy_(kept[name])
        return losses

    alone = {name: cost([name]) for name in parts}
    singles = np.sum(list(alone.values()), axis=0)
    pairs = np.zeros_like(base)
    names = list(parts)
    halves = [half for half in (names[::2], names[1::2]) if len(half) > 1]
    seen = sum(math.comb(len(half), 2) for half in halves)
    if seen:
        beyond = sum(cost(half) - np.sum([alone[n] for n in half], axis=0) for half in halves)
        pairs = beyond * (math.comb(len(names), 2) / seen)
    to_bits = len(base) / (math.log(2) * probe.text_bytes)
    per_window = (singles + pairs) * to_bits
    added, together = float(per_window.mean()), float(pairs.mean() * to_bits)
    n = len(base)
    chance = float(per_window.std(ddof=1)) * math.sqrt(1 / n + 1 / n_judged)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * chance + abs(together)
    return Sensitivity(
        parts={name: float(each.mean() * to_bits) for name, each in alone.items()},
        together=together,
        added=added,
        low=added - reach,
        high=added + reach,
        bits_per_byte=float(base.mean() * to_bits),
    )


def parts_of(parameters: Mapping[str, object]) -> dict[str, list[str]]:
    """Parameters by part: `embed_tokens`, `layers.3.self_attn`, `layers.3.mlp`, `lm_head`, …"""
    found: dict[str, list[str]] = {}
    for name in parameters:
        words = name.split(".")
        found.setdefault(".".join(words[:3] if words[0] == "layers" else words[:1]), []).append(
            name
        )
    return found
