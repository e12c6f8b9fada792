"""The largest logit against the whole matrix of logits, taken out of plain attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from isoflop.models import config, layers
from isoflop.models.attention_logits import largest_attention_logits
from isoflop.models.decoder import Decoder

LENGTH = 20


def _window() -> tuple[Tensor, Tensor]:
    ids = torch.randint(97, (1, LENGTH), generator=torch.Generator().manual_seed(1))
    return ids, (torch.arange(LENGTH) // 12)[None]


def test_it_is_what_attention_is_computed_from(
    any_form: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the queries, keys and masks that torch's kernel is really given."""
    found: list[float] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def watch(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **more: object):
        k_all = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
        seen = torch.zeros(LENGTH, LENGTH) if attn_mask is None else attn_mask
        logits = torch.einsum("bhtk,bhsk->bhts", q, k_all) / q.shape[-1] ** 0.5 + seen
        found.append(logits.max().item())
        return real(q, k, v, attn_mask=attn_mask, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(config, "LONGEST_FUSED", 0)
    monkeypatch.setattr(layers.F, "scaled_dot_product_attention", watch)
    ids, document = _window()
    with torch.no_grad():
        any_form.hidden(ids, document)
    assert largest_attention_logits(any_form, ids, document).tolist() == pytest.approx(
        found[: any_form.config.n_layers], rel=1e-4
    )


@pytest.mark.parametrize("factor", [3.0, 50.0])
def test_scaled_gains_of_queries_and_keys_scale_it(
    decoder_of: Callable[..., Decoder], factor: float
) -> None:
    model, (ids, document) = decoder_of(n_layers=1), _window()
    before = largest_attention_logits(model, ids, document)
    block = model.layers[0]
    with torch.no_grad():
        block.self_attn.q_norm.weight.mul_(factor)
        block.self_attn.k_norm.weight.mul_(factor)
    after = largest_attention_logits(model, ids, document)
    assert after.item() == pytest.approx(before.item() * factor**2, rel=1e-4)
