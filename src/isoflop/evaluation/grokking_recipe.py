"""What a grokking run is: the sum, the model, the arms of weight decay; no torch here.

Not for training it (`grokking.py`). The attribute docstrings are the command line's help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from isoflop.core.errors import RecipeError


@dataclass(frozen=True)
class GrokkingRecipe:
    """(a + b) mod p learnt by a one-layer model, once for each weight decay."""

    modulus: int = 59
    """p; every pair (a, b) is one example."""
    train_fraction: float = 0.5
    """Share of the p² pairs that is trained on; the others judge."""
    weight_decays: tuple[float, ...] = (0.0, 0.3, 1.0)
    """One arm each: decoupled decay of all weights, embeddings included."""
    d_model: int = 64
    """Width of the model; a multiple of 32."""
    n_heads: int = 4
    """Attention heads; a divisor of the width."""
    learning_rate: float = 2e-3
    """Of AdamW, after ten steps of warm-up."""
    beta2: float = 0.98
    """Decay rate of AdamW's second moment."""
    batch_pairs: int = 512
    """Pairs of each step, drawn with replacement."""
    steps: int = 3000
    """Steps of every arm."""
    evaluations: int = 60
    """Moments at which an arm is judged, evenly spaced on a logarithmic axis."""
    seed: int = 0
    """Fixes the split, the initial weights and the order of pairs; the arms share them."""

    def __post_init__(self) -> None:
        problems = []
        if self.modulus < 3:
            problems.append(f"modulus = {self.modulus} must be at least 3")
        if not 0 < self.train_fraction < 1:
            problems.append(f"train_fraction = {self.train_fraction} must lie between 0 and 1")
        elif not 1 <= self.train_pairs < self.modulus**2:
            problems.append("train_fraction leaves no pair on one side")
        if not self.weight_decays:
            problems.append("weight_decays is empty")
        if any(decay < 0 or not math.isfinite(decay) for decay in self.weight_decays):
            problems.append("weight_decays must not be negative")
        if len(set(self.weight_decays)) < len(self.weight_decays):
            problems.append("weight_decays names one twice")
        if self.d_model < 1 or self.d_model % 32:
            problems.append(f"d_model = {self.d_model} is not a multiple of 32")
        if self.n_heads < 1 or self.d_model % max(self.n_heads, 1):
            problems.append(f"n_heads = {self.n_heads} does not divide d_model = {self.d_model}")
        if not self.learning_rate > 0:
            problems.append(f"learning_rate = {self.learning_rate} must be positive")
        if not 0 <= self.beta2 < 1:
            problems.append(f"beta2 = {self.beta2} is outside [0, 1)")
        for name in ("batch_pairs", "steps", "evaluations"):
            if getattr(self, name) < 1:
                problems.append(f"{name} = {getattr(self, name)} must be at least 1")
        if problems:
            raise RecipeError("; ".join(problems), where="grokking recipe")

    @property
    def train_pairs(self) -> int:
        """Pairs that are trained on."""
        return int(self.train_fraction * self.modulus**2)

    @property
    def moments(self) -> frozenset[int]:
        """Steps after which an arm is judged: the first, the last, and between them about as many
        as asked for, evenly spaced in the logarithm."""
        count = max(self.evaluations, 2)
        places = (self.steps ** (i / (count - 1)) for i in range(count))
        return frozenset({1, self.steps, *(min(self.steps, round(place)) for place in places)})
