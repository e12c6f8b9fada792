"""The hand-written forms and their gradients against plain torch in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from isoflop.models import config, fused
from isoflop.models.layers import fused_applies

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


# --- products ------------------------------------------------------------------------------


@pytest.mark.skipif(fused._ONEDNN is None, reason="this build of torch has no oneDNN linear")
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_product_of_onednn_equals_that_of_float64(added: bool, transposed: bool) -> None:
    x, weight = _draw(3, 17, 40).float(), _draw(*((40, 23) if transposed else (23, 40))).float()
    weight = weight.t() if transposed else weight
    addend = _draw(3, 17, 23).float().detach() if added else None
    expected = F.linear(x.double(), weight.double()) + (0 if addend is None else addend)
    with torch.no_grad():
        before = None if addend is None else addend.clone()
        found = fused.product(x, weight, addend)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)
    if addend is not None:
        assert torch.equal(addend, before)  # the stream is still needed


def test_without_onednn_the_product_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, addend = (_draw(*shape).float().detach() for shape in ((5, 8), (6, 8), (5, 6)))
    with_onednn = fused.product(x, weight, addend)
    monkeypatch.setattr(fused, "_ONEDNN", None)
    torch.testing.assert_close(fused.product(x, weight, addend), with_onednn, rtol=0, atol=1e-5)


# --- norm ----------------------------------------------------------------------------------


def test_norm_equals_that_of_torch() -> None:
    _same(
        lambda x, gain: fused.norm(x, gain, EPS),
        lambda x, gain: F.rms_norm(x, gain.shape, gain, EPS),
        _draw(2, 3, 4),
        _draw(4),
    )
    assert gradcheck(lambda x, gain: fused.norm(x, gain, EPS), (_draw(2, 3, 4), _draw(4)))


# --- feed-forward --------------------------------------------------------------------------


def _feed_forward_inputs() -> tuple[Tensor, ...]:
    return _draw(2, 3, 4), _draw(4), _draw(6, 4), _draw(6, 4, seed=1), _draw(4, 6)


def _plain_feed_forward(x: Tensor, gain: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    h = F.rms_norm(x, gain.shape, gain, EPS)
    return x + F.linear(F.silu(F.linear(h, gate)) * F.linear(h, up), down)


def test_feed_forward_equals_norm_swiglu_and_sum_written_out() -> None:
    _same(lambda *a: fused.feed_forward(*a, EPS), _plain_feed_forward, *_feed_forward_inputs())


def test_gradients_of_feed_forward_are_those_of_differences() -> None:
    assert gradcheck(lambda *a: fused.feed_forward(*a, EPS), _feed_forward_inputs())


def test_a_gain_of_zero_still_has_its_gradient() -> None:
    x, _, *weights = _feed_forward_inputs()
    gain = torch.tensor([0.0, 1.0, 0.0, -2.0], dtype=torch.float64, requires_grad=True)
    _same(lambda *a: fused.feed_forward(*a, EPS), _plain_feed_forward, x, gain, *weights)


# --- loss ----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, 100], ids="chunks of {}".format)
def test_loss_equals_cross_entropy_of_the_logits(chunk: int) -> None:
    label = torch.tensor([1, -100, 3, 0, 2, -100, 1])

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return fused.linear_cross_entropy(x, weight, label, ignored=-100, chunk_rows=chunk)

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return F.cross_entropy(x @ weight.t(), label, ignore_index=-100, reduction="sum")

    def scaled(form: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *inputs: form(*inputs)[None] * torch.tensor([0.5, -3.0])

    _same(scaled(ours), scaled(plain), _draw(7, 4), _draw(5, 4))
    assert gradcheck(ours, (_draw(7, 4), _draw(5, 4)))


def test_loss_of_a_label_whose_share_rounds_to_zero_is_finite_and_right() -> None:
    x, weight = torch.tensor([[1000.0]]), torch.tensor([[1.0], [0.0]])
    loss = fused.linear_cross_entropy(x, weight, torch.tensor([1]), ignored=-100, chunk_rows=8)
    assert loss.item() == 1000.0


def test_without_gradients_the_loss_is_the_same() -> None:
    x, weight, label = _draw(7, 4), _draw(5, 4), torch.arange(7) % 5
    losses = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            losses.append(
                fused.linear_cross_entropy(x, weight, label, ignored=-100, chunk_rows=4).item()
            )
    assert losses[0] == losses[1]


# --- where they apply ----------------------------------------------------------------------


def test_long_windows_single_tokens_and_narrow_formats_take_the_plain_forms() -> None:
    assert fused_applies(torch.zeros(1, 256, 8))
    assert not fused_applies(torch.zeros(1, config.LONGEST_FUSED + 1, 8))
    assert not fused_applies(torch.zeros(1, 1, 8))
    assert not fused_applies(torch.zeros(1, 256, 8, dtype=torch.bfloat16))
    assert not fused_applies(torch.zeros(1, 256, 8, device="meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not fused_applies(torch.zeros(1, 256, 8))
