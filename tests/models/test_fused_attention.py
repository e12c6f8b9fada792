"""Attention written by hand, and its gradients, against its parts in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from isoflop.models import config, fused_attention
from isoflop.models.documents import DocumentMask
from isoflop.models.layers import RotaryPositions

EPS = 1e-3


def _draw(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=draw, dtype=torch.float64).requires_grad_()


def _gradients(out: Tensor, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    weights = torch.arange(out.numel(), dtype=out.dtype).sin().view(out.shape)
    return list(torch.autograd.grad((out * weights).sum(), inputs))


def _same(ours: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Values and gradients agree to float64's rounding."""
    found, expected = ours(*inputs), plain(*inputs)
    assert expected.abs().max() > 0.1  # a comparison of zeros would prove nothing
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    for mine, theirs in zip(_gradients(found, inputs), _gradients(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


WIDTH, HEADS, STREAM = 4, 4, 5


def _attention_inputs(groups: int, rows: int, time: int) -> tuple[Tensor, ...]:
    """x, gain, query, key, value and output weights, gains of queries' and keys' norms."""
    return (
        _draw(rows, time, STREAM), _draw(STREAM), _draw(HEADS * WIDTH, STREAM),
        _draw(groups * WIDTH, STREAM, seed=1), _draw(groups * WIDTH, STREAM, seed=2),
        _draw(STREAM, HEADS * WIDTH), _draw(WIDTH), _draw(WIDTH, seed=1),
    )  # fmt: skip


def _documents(rows: int, time: int, mixed: int) -> Tensor:
    """One document a row, two in the last `mixed` rows."""
    document = torch.zeros(rows, time, dtype=torch.long)
    for place in range(mixed):
        document[rows - mixed + place, 1 + (place * 3) % (time - 1) :] = 1
    return document


def _forms(
    groups: int, rows: int, time: int, mixed: int
) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    rotary = RotaryPositions(WIDTH, time, 10.0).double()
    document = _documents(rows, time, mixed)
    documents = DocumentMask(document, torch.float64) if mixed else None
    seen = (document[:, :, None] == document[:, None]) & torch.ones(time, time).tril().bool()
    bias = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, -torch.inf)

    def ours(x: Tensor, gain: Tensor, *rest: Tensor) -> Tensor:
        return fused_attention.attention(
            x, gain, rest[:4], rest[4:], rotary.turn(0, time, x.dtype), EPS, documents
        )

    def plain(
        x: Tensor, gain: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, *gains: Tensor
    ) -> Tensor:
        h = F.rms_norm(x, gain.shape, gain, EPS)
        q, k, v = (F.linear(h, w).unflatten(-1, (-1, WIDTH)) for w in (q, k, v))
        q, k = (
            rotary(F.rms_norm(y, g.shape, g, EPS).transpose(1, 2))
            for y, g in zip((q, k), gains, strict=True)
        )
        k, v = (y.repeat_interleave(HEADS // groups, 1) for y in (k, v.transpose(1, 2)))
        share = (q @ k.mT / math.sqrt(WIDTH) + bias[:, None]).softmax(-1)
        return x + F.linear((share @ v).transpose(1, 2).flatten(-2), out)

    return ours, plain


@pytest.mark.parametrize("block", [3, 64], ids="blocks of {}".format)
@pytest.mark.parametrize("cached", [1, 2**18], ids="{} scores at once".format)
@pytest.mark.parametrize("mixed", [0, 1, 3], ids="{} packed rows".format)
@pytest.mark.parametrize("groups", [4, 2, 1], ids="{} key heads".format)
def test_attention_equals_its_parts_written_out(
    monkeypatch: pytest.MonkeyPatch, groups: int, mixed: int, cached: int, block: int
) -> None:
    monkeypatch.setattr(config, "BLOCK_QUERIES", block)
    monkeypatch.setattr(fused_attention, "CACHED_SCORES", cached)
    _same(*_forms(groups, 3, 8, mixed), *_attention_inputs(groups, 3, 8))


@pytest.mark.parametrize("groups", [4, 2])
def test_gradients_of_attention_are_those_of_differences(
    monkeypatch: pytest.MonkeyPatch, groups: int
) -> None:
    monkeypatch.setattr(config, "BLOCK_QUERIES", 2)
    ours, _ = _forms(groups, 2, 3, 1)
    assert gradcheck(ours, _attention_inputs(groups, 2, 3))
