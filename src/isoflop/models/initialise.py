"""Initial weights, drawn per parameter name, so that no layout or order of building changes them.

Not for loading trained weights (`convert.py`).
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from isoflop.models.encoder_decoder import EncoderDecoder, UnscaledAttention

EMBEDDING_STD = 0.02
"""Standard deviation of embedding rows. A tied output layer then starts with flat predictions, but
for the token just read: blocks begin as the identity, so its own logit is 0.02 · width."""

EMBEDDINGS = ("embed_tokens", "embed_positions", "embed_types")
"""Modules whose weight is a row per token, position or token type."""
BIASES = ("bias", "distance_bias.weight")


def initialise(model: nn.Module, seed: int) -> None:
    """Fill every parameter of `model` in place from (seed, its name).

    Norm gains are 1, biases 0. Embeddings of tokens, positions and types are normal with
    `EMBEDDING_STD`; other matrices are normal with variance 1/fan_in, so that activations keep
    their size at every width; those that write into the residual stream (`o_proj`, `down_proj`)
    start at zero, so that each block begins as the identity and depth does not scale the variance.
    Experts are stacked along the first axis; each has the fan-in of its own matrix. T5's queries
    are √K smaller, for its scores are not divided by that, and a tied embedding of T5 has standard
    deviation 1, for its logits are divided by the root of the width (Raffel et al. 2020).
    """
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith(("o_proj.weight", "down_proj.weight", "down_proj", *BIASES)):
                parameter.zero_()
            elif name.rpartition(".")[0].endswith(EMBEDDINGS):
                parameter.copy_(draw_normal(seed, name, parameter.shape, EMBEDDING_STD))
            else:
                std = 1 / math.sqrt(parameter.shape[-1])
                parameter.copy_(draw_normal(seed, name, parameter.shape, std))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, UnscaledAttention):
                module.q_proj.weight.mul_(module.head_dim**-0.5)
            elif isinstance(module, EncoderDecoder) and module.config.tie_embeddings:
                module.embed_tokens.weight.div_(EMBEDDING_STD)


def draw_normal(seed: int, name: str, shape: torch.Size, std: float) -> Tensor:
    """A float32 normal sample that depends on (seed, name, shape) alone."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    sample = torch.empty(shape, dtype=torch.float32, device="cpu")
    return sample.normal_(0.0, std, generator=generator)
