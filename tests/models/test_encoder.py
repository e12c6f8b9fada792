"""The encoder against transformers' BERT, and document by document."""

from __future__ import annotations

import pytest
import torch

from isoflop.models.hugging_face_config import architecture_of
from isoflop.models.hugging_face_tensors import links


def _batch(rows: int = 3, length: int = 20) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, types and padding (0 for real tokens, 1 for padding)."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(97, (rows, length), generator=draw)
    types = torch.randint(2, (rows, length), generator=draw)
    padding = torch.zeros_like(ids)
    padding[1:2, 15:], padding[2:, 3:] = 1, 1
    return ids, types, padding


@torch.no_grad()
def test_logits_of_both_heads_equal_those_of_transformers_to_ten_digits(encoder_of, theirs_of):
    encoder = encoder_of()
    theirs, (ids, types, padding) = theirs_of(encoder), _batch()
    expected = theirs(ids, attention_mask=1 - padding, token_type_ids=types)
    tokens, real = expected.prediction_logits, padding == 0
    assert tokens.std() > 0.3
    for model, bound in ((encoder, 1e-5), (encoder.double(), 1e-10)):
        states = model.hidden(ids, padding, types)
        found = model.token_logits(states).double()
        torch.testing.assert_close(found[real], tokens[real], atol=bound, rtol=0)
        pair = model.pair_logits(states[:, 0]).double()
        torch.testing.assert_close(pair, expected.seq_relationship_logits, atol=bound, rtol=0)
        assert torch.equal(model(ids, padding, types), model.token_logits(states))


@torch.no_grad()
def test_an_encoder_without_pair_head_is_their_masked_language_model(encoder_of, theirs_of):
    encoder = encoder_of(pair_head=False)
    theirs, (ids, _, _) = theirs_of(encoder), _batch()
    assert type(theirs).__name__ == "BertForMaskedLM"
    torch.testing.assert_close(encoder.double()(ids), theirs(ids).logits, atol=1e-10, rtol=0)
    with pytest.raises(ValueError, match="no head for sentence pairs"):
        encoder.pair_logits(torch.zeros(1, 32))


def test_gradients_equal_those_of_transformers_in_float64(encoder_of, theirs_of):
    encoder = encoder_of().double()
    theirs, (ids, types, padding) = theirs_of(encoder), _batch()
    out = theirs(ids, attention_mask=1 - padding, token_type_ids=types)
    keep = padding == 0
    (
        out.prediction_logits[keep].square().mean() + out.seq_relationship_logits.exp().mean()
    ).backward()
    states = encoder.hidden(ids, padding, types)
    tokens, pair = encoder.token_logits(states), encoder.pair_logits(states[:, 0])
    (tokens[keep].square().mean() + pair.exp().mean()).backward()
    own, their = dict(encoder.named_parameters()), dict(theirs.named_parameters())
    for link in links(encoder.config, architecture_of(encoder.config)):
        stored = link.store([own[name].grad for name in link.ours])
        for name, gradient in zip(link.theirs, stored, strict=True):
            torch.testing.assert_close(gradient, their[name].grad, atol=1e-10, rtol=1e-8)


@torch.no_grad()
def test_a_document_in_a_window_has_the_states_it_has_alone(encoder_of):
    encoder, (ids, types, _) = encoder_of(), _batch()
    document = torch.tensor([[0] * 20, [0] * 7 + [1] * 13, [4] * 3 + [2] * 3 + [9] * 14])
    together = encoder.hidden(ids, document, types)
    for row, column in enumerate(document):
        for index in column.unique():
            own = column == index
            alone = encoder.hidden(ids[row, own][None], type_BT=types[row, own][None])[0]
            torch.testing.assert_close(together[row, own], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_every_token_sees_the_whole_document_and_nothing_of_another(encoder_of):
    encoder, (ids, _, _) = encoder_of(), _batch(rows=1)
    document = torch.tensor([[0] * 7 + [1] * 13])
    other = ids.clone()
    other[0, 6] = (ids[0, 6] + 1) % 97
    before, after = (encoder.hidden(i, document)[0] for i in (ids, other))
    moved = (before - after).abs().amax(-1)
    assert (moved[:7] > 1e-4).all(), "earlier tokens too"
    assert torch.equal(before[7:], after[7:])


def test_more_positions_than_the_model_has_are_refused(encoder_of):
    with pytest.raises(ValueError, match="33 positions exceed max_seq_len = 32"):
        encoder_of()(torch.zeros(1, 33, dtype=torch.long))
