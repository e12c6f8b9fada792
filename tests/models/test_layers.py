"""The parts of a decoder against their definitions in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from isoflop.models.documents import DocumentMask
from isoflop.models.layers import RotaryPositions, causal_attention


def test_rotary_positions_turn_pairs_of_coordinates_as_complex_numbers():
    head_dim, theta, position = 8, 500.0, 4000
    rotary = RotaryPositions(head_dim, position + 1, theta)
    x = torch.randn(1, 1, 1, head_dim, generator=torch.Generator().manual_seed(0))
    turned = rotary(x, start=position)[0, 0, 0].numpy()
    pairs = x[0, 0, 0, :4].double().numpy() + 1j * x[0, 0, 0, 4:].double().numpy()
    expected = pairs * np.exp(1j * position * theta ** (-np.arange(4) / 4))
    np.testing.assert_allclose(turned[:4] + 1j * turned[4:], expected, atol=1e-6)


def test_rotated_products_depend_on_the_distance_alone():
    rotary = RotaryPositions(16, 64, 10_000.0).double()
    draw = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, 1, 1, 16, generator=draw, dtype=torch.float64) for _ in range(2))
    products = [(rotary(q, start + 7) * rotary(k, start)).sum().item() for start in (0, 20, 50)]
    assert products == pytest.approx([products[0]] * 3, abs=1e-6)


def _defined(q, k, v, document):
    """Attention by its definition, one token at a time, in float64."""
    rows, heads, length, width = q.shape
    group = heads // k.shape[1]
    out = np.zeros(q.shape)
    for b, h, t in np.ndindex(rows, heads, length):
        seen = [s for s in range(t + 1) if document[b, s] == document[b, t]]
        keys, values = k[b, h // group, seen].double(), v[b, h // group, seen].double()
        score = keys @ q[b, h, t].double() / math.sqrt(width)
        out[b, h, t] = score.softmax(0) @ values
    return out


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(
    "document",
    [
        [[0] * 9, [0] * 9, [0] * 9],
        [[0] * 9, [0] * 4 + [1] * 5, [0] + [1] * 7 + [2]],
        [[0, 1, 2, 3, 4, 5, 6, 7, 8], [0] * 8 + [1], [0] + [1] * 8],
        [[0] * 4 + [1] * 5, [0] * 9, [0] * 9],
    ],
    ids=["whole", "whole first", "none whole", "mixed first"],
)
def test_attention_sees_earlier_tokens_of_its_own_document(kv_heads, document):
    draw = torch.Generator().manual_seed(2)
    q = torch.randn(3, 4, 9, 8, generator=draw)
    k, v = (torch.randn(3, kv_heads, 9, 8, generator=draw) for _ in range(2))
    mask = DocumentMask(torch.tensor(document), torch.float32)
    found = causal_attention(q, k, v, mask)
    np.testing.assert_allclose(found.numpy(), _defined(q, k, v, np.array(document)), atol=1e-6)


@pytest.mark.parametrize("n_queries", [1, 3, 9])
def test_with_earlier_keys_the_queries_are_the_last_positions(n_queries):
    draw = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 4, 9, 8, generator=draw) for _ in range(3))
    whole = _defined(q, k, v, np.zeros((2, 9)))
    found = causal_attention(q[:, :, -n_queries:], k, v)
    np.testing.assert_allclose(found.numpy(), whole[:, :, -n_queries:], atol=1e-6)
