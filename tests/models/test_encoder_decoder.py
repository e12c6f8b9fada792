"""The encoder–decoder against transformers' T5, pair by pair, and token by token."""

from __future__ import annotations

import pytest
import torch

from isoflop.models.encoder_decoder import distance_bucket
from isoflop.models.hugging_face_config import architecture_of
from isoflop.models.hugging_face_tensors import links
from isoflop.models.layers import KVCache

FORMS = {
    "1.0": {},
    "1.1": {"activation": "geglu", "tie_embeddings": False},
    "1.0, gated": {"activation": "geglu"},
    "as many buckets as published": {"n_buckets": 32, "max_distance": 128},
}


@pytest.fixture(params=FORMS, ids=str)
def any_t5(request, t5_of):
    return t5_of(**FORMS[request.param])


def _pair(rows: int = 3, source: int = 40, target: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randint(97, (rows, n), generator=draw) for n in (source, target))


@torch.no_grad()
def test_logits_equal_those_of_transformers_to_ten_digits(any_t5, theirs_of):
    theirs, (source, target) = theirs_of(any_t5), _pair()
    padding = torch.zeros_like(source)
    padding[1, 33:] = 1
    expected = theirs(input_ids=source, attention_mask=1 - padding, decoder_input_ids=target).logits
    documents = (padding, torch.zeros_like(target))
    assert expected.std() > 0.1
    found = any_t5(source, target, *documents).double()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    found = any_t5.double()(source, target, *documents)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_gradients_equal_those_of_transformers_in_float64(any_t5, theirs_of):
    theirs, (source, target) = theirs_of(any_t5), _pair()
    theirs(input_ids=source, decoder_input_ids=target).logits.square().mean().backward()
    any_t5.double()(source, target).square().mean().backward()
    own, their = dict(any_t5.named_parameters()), dict(theirs.named_parameters())
    for link in links(any_t5.config, architecture_of(any_t5.config)):
        stored = link.store([own[name].grad for name in link.ours])
        for name, gradient in zip(link.theirs, stored, strict=True):
            torch.testing.assert_close(gradient, their[name].grad, atol=1e-10, rtol=1e-8)


def test_buckets_are_those_of_transformers():
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    distance = torch.arange(400)
    for buckets, most in ((32, 128), (8, 20), (16, 128)):
        theirs = modeling.T5Attention._relative_position_bucket(-distance, False, buckets, most)
        assert torch.equal(distance_bucket(distance, buckets, most), theirs)


@torch.no_grad()
def test_packed_pairs_have_the_logits_they_have_alone(any_t5):
    source, target = _pair()
    source_document = torch.tensor([[0] * 40, [0] * 13 + [1] * 27, [5] * 3 + [6] * 17 + [7] * 20])
    target_document = torch.tensor([[0] * 30, [0] * 20 + [1] * 10, [5] * 1 + [6] * 4 + [7] * 25])
    together = any_t5(source, target, source_document, target_document)
    for row in range(3):
        for index in source_document[row].unique():
            own = target_document[row] == index
            alone = any_t5(source[row, source_document[row] == index][None], target[row, own][None])
            torch.testing.assert_close(together[row, own], alone[0], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[30], [1] * 30, [7, 1, 22]])
def test_decoding_in_pieces_with_a_cache_equals_reading_at_once(any_t5, pieces):
    source, target = _pair()
    keys_values = any_t5.decoder.source(any_t5.encode(source))
    cache = KVCache(any_t5.config.n_decoder_layers)
    read = [any_t5.decode(piece, keys_values, cache) for piece in target.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(read, 1), any_t5(source, target), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_target_token_sees_the_whole_source_and_no_later_target(any_t5):
    source, target = _pair(rows=1)
    before = any_t5(source, target)[0]
    later, other = target.clone(), source.clone()
    later[0, 20] = (target[0, 20] + 1) % 97
    other[0, 39] = (source[0, 39] + 1) % 97
    moved = (any_t5(source, later)[0] - before).abs().amax(-1)
    assert not moved[:20].any()
    assert (moved[20:] > 0).all()
    assert ((any_t5(other, target)[0] - before).abs().amax(-1) > 0).all()


@torch.no_grad()
def test_padding_of_the_target_stays_finite(any_t5):
    source, target = _pair(rows=1)
    padding = torch.tensor([[0] * 25 + [-1] * 5])
    logits = any_t5(source, target, torch.zeros_like(source), padding)
    assert logits.isfinite().all()


def test_documents_of_one_side_and_too_long_sequences_are_refused(t5_of):
    model, (source, target) = t5_of(), _pair()
    with pytest.raises(ValueError, match="both sides or for neither"):
        model(source, target, source_document_BS=torch.zeros_like(source))
    with pytest.raises(ValueError, match="65 positions exceed max_seq_len = 64"):
        model(torch.zeros(1, 65, dtype=torch.long), target)
