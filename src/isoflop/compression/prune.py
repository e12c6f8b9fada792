"""Weights set to zero: by magnitude or Wanda, row by row or two of every four.

Not for taking whole layers, heads or neurons out (`drop.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from isoflop.compression.gptq import batches_of, input_moments, plain_copy, through
from isoflop.compression.recipe import Pattern, Score
from isoflop.data.loader import Windows
from isoflop.models.decoder import Decoder


def keep_mask(score_RC: Tensor, sparsity: float, pattern: Pattern) -> Tensor:
    """(R, C) bool, False where a weight goes: in each row the `sparsity` share with the lowest
    scores, or with `2:4` the lower two of every four neighbours.

    Raises:
        ValueError: The columns do not part into fours.
    """
    if pattern == "2:4":
        if score_RC.shape[-1] % 4:
            raise ValueError(f"{score_RC.shape[-1]} columns do not part into fours")
        fours = torch.unflatten(score_RC, -1, (-1, 4))
        kept = fours.argsort(dim=-1, descending=True, stable=True)[..., :2]
        return torch.zeros_like(fours, dtype=torch.bool).scatter_(-1, kept, True).flatten(-2)
    n_gone = int(score_RC.shape[-1] * sparsity)
    gone = score_RC.argsort(dim=-1, stable=True)[..., :n_gone]
    return torch.ones_like(score_RC, dtype=torch.bool).scatter_(-1, gone, False)


@torch.no_grad()
def prune_decoder(
    decoder: Decoder, score: Score, sparsity: float, pattern: Pattern, windows: Windows
) -> dict[str, Tensor]:
    """Linear layer's weight → its values with the pruned ones at zero; embeddings, output layer,
    norms, routers and experts are left.

    Args:
        score: `magnitude`: |w|. `wanda`: |w| times the norm of its input over `windows` (Sun et
            al. 2024), each layer's inputs taken after the layers before it were pruned.
    """
    work = plain_copy(decoder)
    found: dict[str, Tensor] = {}
    streams = [(work.embed(ids, 0, document), document) for ids, document in batches_of(windows)]
    for number, block in enumerate(work.layers):
        norms = _input_norms(work, block, streams) if score == "wanda" else {}
        for name, module in block.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            scores = module.weight.abs() * norms.get(name, torch.ones(()))
            module.weight.mul_(keep_mask(scores, sparsity, pattern))
            found[f"layers.{number}.{name}.weight"] = module.weight.detach().clone()
        if score == "wanda":
            streams = [(through(work, block, x, document), document) for x, document in streams]
    return found


def zero_share(parameters: Mapping[str, Tensor]) -> float:
    """Share of weights that are zero."""
    total = sum(p.numel() for p in parameters.values())
    return sum(int((p == 0).sum()) for p in parameters.values()) / total


def _input_norms(
    decoder: Decoder, block: nn.Module, streams: list[tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    moments = input_moments(decoder, block, streams)
    return {name: moment.diagonal().sqrt().float() for name, moment in moments.items()}
