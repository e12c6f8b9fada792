"""Losses as (sum, count) pairs, so that a step divides once by the global number of valid tokens.

Not for the loop that divides, nor for where batches come from (`pretrain.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from isoflop.data.loader import IGNORED
from isoflop.models.decoder import Decoder
from isoflop.models.moe import auxiliary_loss
from isoflop.models.output_loss import linear_cross_entropy


@dataclass(frozen=True)
class TokenBatch:
    """One micro-batch of next-token prediction."""

    ids_BT: Tensor
    labels_BT: Tensor
    """The token after each one, or the loader's `IGNORED`."""
    document_BT: Tensor
    """Counter of the document each token belongs to."""
    n_valid: int
    """Labels that carry loss."""


def next_token_loss(model: Decoder, batch: TokenBatch) -> Tensor:
    """Summed cross-entropy in nats over the batch's valid labels (a scalar).

    The logits are never kept whole: `models.output_loss` computes the output layer and the loss
    chunk by chunk. A mixture of experts also gets the gradient of its auxiliary losses;
    the value stays the cross-entropy, so that it compares with that of dense models.
    """
    x_BTD, routing = model.routed(batch.ids_BT, batch.document_BT)
    loss = linear_cross_entropy(
        x_BTD.flatten(0, 1),
        model.lm_head.weight,
        batch.labels_BT.flatten(),
        ignored=IGNORED,
    )
    if model.config.experts is None:
        return loss
    auxiliary = auxiliary_loss(routing, model.config.experts)
    return loss + (auxiliary - auxiliary.detach())
