"""An exponential mean of the weights over the run, evaluated and exported in their place.

Not for averaging finished checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Mean of a model's weights over steps, w̄ ← d·w̄ + (1 − d)·w, begun at the weights themselves.

    Early in a run d is (1 + t) / (10 + t) where that is smaller, so that the initial weights are
    soon forgotten.

    Args:
        model: Whose weights are averaged.
        decay: d.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay = model, decay
        self.weights = {n: p.detach().clone() for n, p in model.named_parameters()}
        """The mean, by parameter name; a checkpoint holds it."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps."""
        decay = min(self._decay, (1 + step) / (10 + step))
        mean: list[Tensor] = [self.weights[name] for name, _ in self._model.named_parameters()]
        torch._foreach_lerp_(mean, list(self._model.parameters()), 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model with the mean as its weights, for as long as the block lasts."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the model's weights and their mean."""
        for name, parameter in self._model.named_parameters():
            mine = self.weights[name]
            held = parameter.detach().clone()
            parameter.copy_(mine)
            mine.copy_(held)
