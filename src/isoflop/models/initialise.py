"""Initial weights, drawn per parameter name, so that no layout or order of building changes them.

Not for loading trained weights (`convert.py`).
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

EMBEDDING_STD = 0.02
"""Standard deviation of embedding rows. A tied output layer then starts with flat predictions, but
for the token just read: blocks begin as the identity, so its own logit is 0.02 · width."""


def initialise(model: nn.Module, seed: int) -> None:
    """Fill every parameter of `model` in place from (seed, its name).

    Norm gains are 1. Matrices are normal with variance 1/fan_in, so that activations keep their
    size at every width; those that write into the residual stream (`o_proj`, `down_proj`) start
    at zero, so that each block begins as the identity and depth does not scale the variance.
    """
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
            elif name.endswith("embed_tokens.weight"):
                parameter.copy_(draw_normal(seed, name, parameter.shape, EMBEDDING_STD))
            else:
                std = 1 / math.sqrt(parameter.shape[-1])
                parameter.copy_(draw_normal(seed, name, parameter.shape, std))


def draw_normal(seed: int, name: str, shape: torch.Size, std: float) -> Tensor:
    """A float32 normal sample that depends on (seed, name, shape) alone."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    sample = torch.empty(shape, dtype=torch.float32, device="cpu")
    return sample.normal_(0.0, std, generator=generator)
