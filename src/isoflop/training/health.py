"""Signs of how a run fares beside its loss: noise, size of updates, attention, experts.

Not for acting on them (`guard.py` judges steps by loss and gradient alone).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from isoflop.training.parallel.ranks import Ranks

_SAMPLED = 4096
"""Elements of each matrix whose change is measured: a copy of all would take as much memory as the
weights."""


@dataclass(frozen=True)
class NoiseSums:
    """Sums of the two estimates behind the gradient-noise scale; part of a checkpoint."""

    trace: float = 0.0
    """Of the per-token variance of the gradient, tr(Σ)."""
    square: float = 0.0
    """Of the true gradient's squared norm, |G|²."""

    def add(self, small: float, n_small: int, large: float, n_large: int) -> NoiseSums:
        """Take in one step: unbiased estimates from squared norms of the mean gradient over
        `n_small` and over `n_large` tokens (McCandlish et al. 2018, appendix A.1)."""
        square = (n_large * large - n_small * small) / (n_large - n_small)
        trace = (small - large) / (1 / n_small - 1 / n_large)
        return NoiseSums(self.trace + trace, self.square + square)

    @property
    def scale(self) -> float | None:
        """The noise scale tr(Σ)/|G|² in tokens: up to about this batch size, twice the batch halves
        the steps. None before there is a believable estimate."""
        return self.trace / self.square if self.trace > 0 and self.square > 0 else None


@dataclass(frozen=True)
class Sign:
    """Something an evaluation shows that its loss does not, yet."""

    event: str
    """Its name in `events.jsonl`."""
    what: str
    """In words."""
    value: float


def signs(scores: Mapping[str, float], attention_logit_bound: float) -> Sequence[Sign]:
    """What is to worry about in an evaluation's figures.

    Args:
        scores: With `attention_logit_max` and, of a mixture of experts, `experts_unused`.
        attention_logit_bound: Largest logit that is let pass in silence; 0 lets all pass.
    """
    found = []
    logit = scores.get("attention_logit_max", 0.0)
    # Written so that a logit that is no number is one to worry about.
    if attention_logit_bound and not logit <= attention_logit_bound:
        what = f"the largest attention logit is {logit:.4g}, above {attention_logit_bound:.4g}"
        found.append(Sign("attention logits", what, logit))
    if unused := scores.get("experts_unused", 0.0):
        what = f"{unused:.0f} experts, over all layers, are not chosen by any held-out token"
        found.append(Sign("dead experts", what, unused))
    return found


class UpdateSizes:
    """How far one optimizer step moves each matrix, relative to the matrix.

    About 1e-3 is usual (Karpathy 2019 gives it as a rule of thumb); 1e-1 tears a matrix down in ten
    steps, 1e-5 says that it hardly learns.

    Args:
        model: Before the step.
        ranks: The processes among which its matrices are cut.
    """

    def __init__(self, model: nn.Module, ranks: Ranks | None = None) -> None:
        self._ranks = ranks or Ranks()
        self._before = {name: part.clone() for name, part in _parts(model).items()}

    def after(self, model: nn.Module) -> Mapping[str, float]:
        """Median and largest ratio over the matrices, once the step is done."""
        squares = {}
        for name, now in _parts(model).items():
            before = self._before[name]
            squares[name] = before.norm().item() ** 2, (now - before).norm().item() ** 2
        # Ranks that hold the same part count it equally often in both: the ratio is the same.
        held = self._ranks.gathered(squares)
        names = {name for part in held for name in part}
        sums = (
            [sum(part.get(name, (0.0, 0.0))[place] for part in held) for place in (0, 1)]
            for name in sorted(names)
        )
        pairs = [(math.sqrt(size), math.sqrt(moved)) for size, moved in sums]
        # A matrix that starts at zero has no size to compare with.
        ratios = [moved / size for size, moved in pairs if size > 0]
        if not ratios:
            return {}
        return {"update_ratio": statistics.median(ratios), "update_ratio_max": max(ratios)}


def _parts(model: nn.Module) -> dict[str, Tensor]:
    """A fixed sample of every matrix: elements spread evenly over it."""
    parts = {}
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            held = parameter.detach()
            flat = (held.to_local() if isinstance(held, DTensor) else held).flatten()
            parts[name] = flat[:: max(1, len(flat) // _SAMPLED)]
    return parts


def squared_norm(model: nn.Module) -> float:
    """Squared length of the gradient that the parameters hold now."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients).item() ** 2)
