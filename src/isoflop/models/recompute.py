"""Activations that are computed again in the backward pass instead of kept (Chen et al. 2016).

Which of a decoder's parts do so; not how much memory that saves (`memory.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

from isoflop.models.config import Recompute

T = TypeVar("T")


def again_in_backward(part: Callable[..., T], *inputs: Any) -> T:
    """`part(*inputs)`, of which only the inputs are kept; the same bits, once more.

    Without a gradient to come it is called as it is. Nothing here draws random numbers.
    """
    if not torch.is_grad_enabled():
        return part(*inputs)
    found: T = checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
    return found


def plan_recompute(
    mode: Literal["none", "selective", "full"],
    n_layers: int,
    activation_bytes: int | None,
    bytes_if_first: Callable[[int], int],
) -> Sequence[Recompute]:
    """What each block computes again.

    `selective` takes the attention of every block, or, under a budget, as few whole blocks as fit
    it: the first ones, whose activations would be kept the longest.

    Args:
        activation_bytes: The budget of `selective`.
        bytes_if_first: Number of leading blocks that are recomputed → bytes of activations.
    """
    if mode == "none":
        return ["none"] * n_layers
    if mode == "full":
        return ["block"] * n_layers
    if activation_bytes is None:
        return ["attention"] * n_layers
    fits = (n for n in range(n_layers + 1) if bytes_if_first(n) <= activation_bytes)
    first = next(fits, n_layers)
    return [("block" if layer < first else "none") for layer in range(n_layers)]
