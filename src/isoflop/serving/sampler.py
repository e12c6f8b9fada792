"""Chooses the next token from logits, the same one whatever else is computed beside it.

The random number of a position is a hash of (seed, choice, position) and not the next of a stream:
a request that is preempted, batched with others or asked again gets the same tokens. Not for the
logits (`forward.py`) nor for what the tokens spell (`text_stream.py`).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from isoflop.core.errors import RecipeError

Floats = npt.NDArray[np.float64]
SEEDS = 2**63
MOST_BIAS = 100.0


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Steps are taken in this order: bias, penalties, temperature, top-k,
    top-p, min-p; each of the last three works on what those before it left.

    Raises:
        RecipeError: Values are out of their range; all problems at once.
    """

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Only this many likeliest tokens; 0 is all."""
    top_p: float = 1.0
    """Only the fewest likeliest tokens that hold this probability (Holtzman et al. 2020)."""
    min_p: float = 0.0
    """Only tokens at least this share as likely as the likeliest (Nguyen et al. 2024)."""
    repetition_penalty: float = 1.0
    """Divides positive logits, multiplies negative ones, of every token in the prompt or the
    answer (Keskar et al. 2019, section 4.1)."""
    presence_penalty: float = 0.0
    """Subtracted once from the logits of tokens in the answer."""
    frequency_penalty: float = 0.0
    """Subtracted from their logits as often as they occur in the answer."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Token id → what is added to its logit."""
    seed: int = 0

    def __post_init__(self) -> None:
        problems = [
            f"{name} = {getattr(self, name)} must be {words}"
            for name, low, high, words in _RANGES
            if not low <= getattr(self, name) <= high
        ]
        if self.top_p == 0:
            problems.append("top_p = 0 must be above 0")
        if self.repetition_penalty == 0:
            problems.append("repetition_penalty = 0 must be above 0")
        if any(not abs(bias) <= MOST_BIAS for bias in self.logit_bias.values()):
            problems.append(f"every logit_bias must be within ±{MOST_BIAS:g}")
        if problems:
            raise RecipeError("; ".join(problems), where="sampling")

    @property
    def penalises(self) -> bool:
        """Whether logits depend on the tokens before them beyond what the model makes of them."""
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
        )

    @property
    def filters(self) -> bool:
        """Whether unlikely tokens are left out."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


_RANGES = (
    ("temperature", 0.0, 100.0, "within 0 and 100"),
    ("top_k", 0, math.inf, "0 (all) or more"),
    ("top_p", 0.0, 1.0, "above 0 and at most 1"),
    ("min_p", 0.0, 1.0, "within 0 and 1"),
    ("repetition_penalty", 0.0, 100.0, "above 0 and at most 100"),
    ("presence_penalty", -2.0, 2.0, "within ±2"),
    ("frequency_penalty", -2.0, 2.0, "within ±2"),
    ("seed", -SEEDS, SEEDS - 1, "a 64-bit number"),
)


def uniform(seed: int, choice: int, position: int) -> float:
    """The random number in [0, 1) of a position: a counter-based generator (Salmon et al. 2011)
    whose bijection is BLAKE2b.

    Args:
        choice: Which of the answers to one prompt (OpenAI's `n`).
        position: Place of the token to be chosen, counted from the start of the prompt.
    """
    counter = struct.pack("<qqq", seed, choice, position)
    digest = hashlib.blake2b(counter, digest_size=8).digest()
    return float(int.from_bytes(digest, "little") >> 11) / 2.0**53


def adjusted(
    logits_V: Floats,
    sampling: Sampling,
    prompt_counts_V: npt.NDArray[np.int64],
    answer_counts_V: npt.NDArray[np.int64],
) -> Floats:
    """(V,) logits with bias and penalties; the counts say how often each token has occurred."""
    out = logits_V.astype(np.float64)
    for index, bias in sampling.logit_bias.items():
        out[index] += bias
    if sampling.repetition_penalty != 1:
        seen = (prompt_counts_V > 0) | (answer_counts_V > 0)
        penalty = sampling.repetition_penalty
        out = np.where(seen, np.where(out > 0, out / penalty, out * penalty), out)
    if sampling.presence_penalty or sampling.frequency_penalty:
        out -= sampling.frequency_penalty * answer_counts_V
        out -= sampling.presence_penalty * (answer_counts_V > 0)
    return out


def distribution(logits_V: Floats, sampling: Sampling) -> tuple[npt.NDArray[np.int64], Floats]:
    """Ids that may come next, the likeliest first (equals by id), and their probabilities.

    Args:
        logits_V: Adjusted logits; the temperature must not be 0.
    """
    scaled = (logits_V - logits_V.max()) / sampling.temperature
    weight = np.exp(scaled)
    if 0 < sampling.top_k < len(weight):  # ties with the last of them are settled by the sort
        least = np.partition(weight, -sampling.top_k)[-sampling.top_k]
        ids = np.flatnonzero(weight >= least)
    else:
        ids = np.flatnonzero(weight > 0)
    ids = ids[np.argsort(-weight[ids], kind="stable")]
    if sampling.top_k:
        ids = ids[: sampling.top_k]
    probability = weight[ids] / weight[ids].sum()
    if sampling.top_p < 1:
        before = np.cumsum(probability) - probability
        ids, probability = ids[before < sampling.top_p], probability[before < sampling.top_p]
    if sampling.min_p > 0:
        kept = probability >= sampling.min_p * probability[0]
        ids, probability = ids[kept], probability[kept]
    return ids, probability / probability.sum()


def choose(logits_V: Floats, sampling: Sampling, choice: int, position: int) -> int:
    """The next token from adjusted logits: the likeliest, or the one the position's random number
    falls on."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    if sampling.filters:
        ids, probability = distribution(logits_V, sampling)
    else:  # nothing is cut off, so nothing need be sorted
        ids = np.arange(len(logits_V))
        probability = np.exp((logits_V - logits_V.max()) / sampling.temperature)
    total = np.cumsum(probability)
    place = np.searchsorted(total, uniform(sampling.seed, choice, position) * total[-1], "right")
    return int(ids[min(int(place), len(ids) - 1)])


def log_softmax(logits_V: Floats) -> Floats:
    """(V,) natural log-probabilities in float64."""
    shifted = logits_V.astype(np.float64) - logits_V.max()
    out: Floats = shifted - np.log(np.exp(shifted).sum())
    return out
