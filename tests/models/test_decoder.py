"""The decoder against transformers, a float64 definition, and document by document."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isoflop.models.decoder import Decoder
from isoflop.models.hugging_face_config import architecture_of
from isoflop.models.hugging_face_tensors import links
from isoflop.models.layers import KVCache


def _ids(decoder: Decoder, rows: int = 3, length: int = 20, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(decoder.config.vocab_size, (rows, length), generator=draw)


@torch.no_grad()
def test_logits_equal_those_of_transformers_to_ten_digits(known_form, theirs_of):
    theirs, ids = theirs_of(known_form), _ids(known_form)
    expected = theirs(ids).logits
    assert expected.std() > 0.3  # a comparison of near-zero logits would prove nothing
    torch.testing.assert_close(known_form(ids).double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(known_form.double()(ids), expected, atol=1e-10, rtol=0)


def test_gradients_equal_those_of_transformers_in_float64(known_form, theirs_of):
    theirs, ids = theirs_of(known_form), _ids(known_form)
    single = _gradients(known_form, ids)
    double = _gradients(known_form.double(), ids)
    theirs(ids).logits.square().mean().backward()
    theirs_own = dict(theirs.named_parameters())
    for link in links(known_form.config, architecture_of(known_form.config)):
        stored = link.store([double[name] for name in link.ours])
        for name, gradient in zip(link.theirs, stored, strict=True):
            expected = _by_file_name(theirs_own, name)
            torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=1e-8)
    for name, gradient in single.items():
        scale = double[name].abs().max().item()
        # Keys' biases have no gradient at all: softmax does not see them.
        bound = 1e-4 * scale + 1e-8
        torch.testing.assert_close(gradient.double(), double[name], atol=bound, rtol=0)


def _gradients(decoder: Decoder, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    decoder.zero_grad()
    decoder(ids).square().mean().backward()
    return {name: p.grad.clone() for name, p in decoder.named_parameters()}


def _by_file_name(parameters: dict[str, torch.nn.Parameter], name: str) -> torch.Tensor:
    """The gradient of theirs that a file calls by this name; experts are stacked in memory."""
    name = name.replace("block_sparse_moe", "mlp")
    if ".experts." not in name:
        return parameters[name].grad
    base, index, part, _ = name.rsplit(".", 3)
    if part in ("down_proj", "w2"):
        return parameters[f"{base}.down_proj"].grad[int(index)]
    both = parameters[f"{base}.gate_up_proj"].grad[int(index)].chunk(2)
    return both[0] if part in ("gate_proj", "w1") else both[1]


def _rms(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * gain


def _by_definition(decoder: Decoder, ids: np.ndarray) -> np.ndarray:
    """Logits (T, V) of one sequence, written from the Qwen3 report in numpy, without batches."""
    c, w = decoder.config, {n: p.detach().numpy() for n, p in decoder.named_parameters()}
    half = c.head_dim // 2
    # The decoder keeps its table of angles in float32; what is done with it is checked here.
    angle = np.arange(len(ids))[:, None] * c.rope_theta ** (-np.arange(half) / half)
    turn = np.cos(angle).astype(np.float32) + 1j * np.sin(angle).astype(np.float32)

    def heads(x: np.ndarray, n: int) -> np.ndarray:
        return x.reshape(len(ids), n, c.head_dim).transpose(1, 0, 2)

    def rotate(x: np.ndarray) -> np.ndarray:
        z = (x[..., :half] + 1j * x[..., half:]) * turn
        return np.concatenate((z.real, z.imag), -1)

    x = w["embed_tokens.weight"][ids]
    for layer in range(c.n_layers):
        p = f"layers.{layer}."
        a = p + "self_attn."
        h = _rms(x, w[p + "input_layernorm.weight"], c.norm_eps)
        q = heads(h @ w[a + "q_proj.weight"].T, c.n_heads)
        k = heads(h @ w[a + "k_proj.weight"].T, c.n_kv_heads)
        v = heads(h @ w[a + "v_proj.weight"].T, c.n_kv_heads)
        q = rotate(_rms(q, w[a + "q_norm.weight"], c.norm_eps))
        k = rotate(_rms(k, w[a + "k_norm.weight"], c.norm_eps))
        k, v = (np.repeat(t, c.n_heads // c.n_kv_heads, 0) for t in (k, v))
        score = q @ k.transpose(0, 2, 1) / np.sqrt(c.head_dim)
        score = np.where(np.tri(len(ids), dtype=bool), score, -np.inf)
        share = np.exp(score - score.max(-1, keepdims=True))
        mixed = (share / share.sum(-1, keepdims=True)) @ v
        side_by_side = mixed.transpose(1, 0, 2).reshape(len(ids), -1)
        x = x + side_by_side @ w[a + "o_proj.weight"].T
        h = _rms(x, w[p + "post_attention_layernorm.weight"], c.norm_eps)
        gate = h @ w[p + "mlp.gate_proj.weight"].T
        up = h @ w[p + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[p + "mlp.down_proj.weight"].T
    output = w.get("lm_head.weight", w["embed_tokens.weight"])
    return _rms(x, w["norm.weight"], c.norm_eps) @ output.T


@torch.no_grad()
def test_logits_equal_the_definition_in_float64(any_decoder):
    ids = _ids(any_decoder, rows=2)
    decoder = any_decoder.double()
    found = decoder(ids).numpy()
    for row in range(2):
        np.testing.assert_allclose(
            found[row], _by_definition(decoder, ids[row].numpy()), atol=1e-10, rtol=0
        )


def _packed() -> torch.Tensor:
    """Documents of a batch: boundaries everywhere, whole rows at the start, middle and end."""
    lengths = [[20], [1, 19], [7, 13], [20], [19, 1], [3, 3, 3, 11], [20]]
    return torch.stack(
        [torch.arange(len(row)).repeat_interleave(torch.tensor(row)) for row in lengths]
    )


@torch.no_grad()
def test_a_document_in_a_window_has_the_logits_it_has_alone(any_form):
    # Alone it begins at position 0, in the window later: rotations see distances only.
    document = _packed()
    ids = _ids(any_form, rows=len(document))
    together = any_form(ids, document)
    for row, column in enumerate(document):
        for index in column.unique():
            own = column == index
            alone = any_form(ids[row, own][None])[0]
            torch.testing.assert_close(together[row, own], alone, atol=2e-5, rtol=0)


@torch.no_grad()
def test_logits_do_not_move_when_other_documents_of_the_window_change(any_form):
    document = _packed()[2:3].expand(2, -1)  # 7 tokens, then 13
    ids = _ids(any_form, rows=2)
    ids[1, 7:] = ids[0, 7:]  # the second document is the same, the first another
    assert (ids[0, :7] != ids[1, :7]).any()
    logits = any_form(ids, document)
    torch.testing.assert_close(logits[0, 7:], logits[1, 7:], atol=1e-6, rtol=0)
    assert (logits[0, :7] - logits[1, :7]).abs().max() > 0.1
    without_mask = any_form(ids)
    assert (without_mask[0, 7:] - without_mask[1, 7:]).abs().max() > 0.01


@torch.no_grad()
def test_a_batch_of_rows_in_any_order_equals_the_rows_one_by_one(any_form):
    document = _packed()
    ids = _ids(any_form, rows=len(document))
    alone = torch.cat([any_form(ids[r : r + 1], document[r : r + 1]) for r in range(len(ids))])
    draw = torch.Generator().manual_seed(0)
    for order in (torch.arange(len(ids)), *(torch.randperm(len(ids), generator=draw),) * 4):
        torch.testing.assert_close(
            any_form(ids[order], document[order]), alone[order], atol=1e-5, rtol=0
        )


def test_gradients_of_a_packed_batch_equal_those_of_its_documents(decoder_of):
    decoder = decoder_of(n_kv_heads=2)
    document, ids = _packed()[1:4], _ids(decoder_of(), rows=3)
    decoder(ids, document).square().sum().backward()
    together = {name: p.grad.clone() for name, p in decoder.named_parameters()}
    decoder.zero_grad()
    for row, column in enumerate(document):
        for index in column.unique():
            decoder(ids[row, column == index][None]).square().sum().backward()
    for name, p in decoder.named_parameters():
        # Differences are of the gradient's own scale, which sums that nearly cancel fall below.
        scale = p.grad.abs().max().item()
        torch.testing.assert_close(together[name], p.grad, rtol=0, atol=1e-4 * scale)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[20], [1] * 20, [7, 1, 12], [19, 1]])
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(any_form, pieces):
    ids = _ids(any_form, rows=2)
    cache = KVCache(any_form.config.n_layers)
    read = [any_form(piece, cache=cache) for piece in ids.split(pieces, dim=1)]
    assert cache.length == 20
    torch.testing.assert_close(torch.cat(read, 1), any_form(ids), atol=1e-5, rtol=0)


def test_more_positions_than_the_model_has_are_refused(decoder_of):
    decoder = decoder_of(max_seq_len=8)
    with pytest.raises(ValueError, match="9 positions exceed max_seq_len = 8"):
        decoder(torch.zeros(1, 9, dtype=torch.long))
    cache = KVCache(2)
    decoder(torch.zeros(1, 8, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="9 positions"):
        decoder(torch.zeros(1, 1, dtype=torch.long), cache=cache)
