"""The chunked loss equals the plain one, value and gradient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.models import output_loss
from isoflop.models.decoder import Decoder
from isoflop.training.objectives import TokenBatch, next_token_loss


def plain_loss(model: Decoder, batch: TokenBatch) -> Tensor:
    logits = model(batch.ids_BT, batch.document_BT)
    return F.cross_entropy(logits.flatten(0, 1), batch.labels_BT.flatten(), reduction="sum")


@pytest.mark.parametrize("chunk", [16, 24, 512], ids="chunks of {}".format)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_loss_and_gradient_equal_cross_entropy_on_whole_logits(
    decoder_of: Callable[..., Decoder], batch_of: Callable[..., TokenBatch],
    monkeypatch: pytest.MonkeyPatch, chunk: int, tied: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(output_loss, "CHUNK_ROWS", chunk)
    model, batch = decoder_of(tie_embeddings=tied), batch_of(5, ends=(0, 2, 0, 5, 1))
    gradients = []
    for loss in (next_token_loss(model, batch), plain_loss(model, batch)):
        model.zero_grad()
        loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
        values = loss.item()
    assert next_token_loss(model, batch).item() == pytest.approx(values, rel=1e-6)
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_ignored_labels_count_for_nothing(
    decoder_of: Callable[..., Decoder], batch_of: Callable[..., TokenBatch]
) -> None:
    model, batch = decoder_of(), batch_of(2, ends=(3, 0))
    logits = model(batch.ids_BT, batch.document_BT).double().log_softmax(-1)
    by_hand = -sum(
        logits[row, at, label].item()
        for row, labels in enumerate(batch.labels_BT.tolist())
        for at, label in enumerate(labels)
        if label >= 0
    )
    assert batch.n_valid == 2 * 16 - 3
    assert next_token_loss(model, batch).item() == pytest.approx(by_hand, rel=1e-6)
