"""The native library against the same formulas in float64, and in itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.models import fused, fused_attention
from isoflop.models.documents import DocumentMask
from isoflop.models.layers import RotaryPositions
from isoflop.models.native import calls
from isoflop.models.native.build import library

pytestmark = pytest.mark.skipif(
    library().functions is None, reason=f"no native library: {library().why}"
)
EPS = 1e-6


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def _gradients(out: Tensor, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    weights = torch.arange(out.numel(), dtype=torch.float64).sin().view(out.shape).to(out.dtype)
    return list(torch.autograd.grad((out * weights).sum(), inputs))


def _close(found: Tensor, expected: Tensor, relative: float) -> None:
    """To a share of the largest number: what rounding in float32 leaves of sums."""
    assert found.dtype == torch.float32
    assert expected.dtype == torch.float64
    largest = expected.abs().max().item()
    assert largest > 1e-3  # a comparison of zeros would prove nothing
    assert (found.double() - expected).abs().max().item() <= relative * largest


def _same_in_float64(form: Callable[..., Tensor], *inputs: Tensor) -> None:
    """A form in float32, natively, against itself in float64, which is plain torch."""
    narrow = tuple(x.clone().requires_grad_() for x in inputs)
    wide = tuple(x.double().requires_grad_() for x in inputs)
    assert calls.applies(narrow[0])
    assert not calls.applies(wide[0])
    found, expected = form(*narrow), form(*wide)
    _close(found, expected, 2e-6)
    for mine, theirs in zip(_gradients(found, narrow), _gradients(expected, wide), strict=True):
        _close(mine, theirs, 1e-5)


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("width", [32, 80])
def test_norm_equals_its_formula(rows: int, width: int) -> None:
    _same_in_float64(
        lambda x, gain: fused.norm(x, gain, EPS), 3 * _draw(rows, 5, width), _draw(width)
    )


@pytest.mark.parametrize("rows", [9, 8, 328], ids="{} rows, and as many".format)
@pytest.mark.parametrize("inner", [32, 96])
def test_feed_forward_equals_its_formula(inner: int, rows: int) -> None:
    def form(x: Tensor, gain: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return fused.feed_forward(x, gain, gate, up, down, EPS)

    width = 64
    weights = _draw(inner, width), _draw(inner, width, seed=1), _draw(width, inner)
    x = _draw(2, rows, width)
    assert calls.feed_forward_applies(x, *weights) == (rows % 4 == 0)
    _same_in_float64(form, x, _draw(width), *weights)


@pytest.mark.parametrize("gate", [-200.0, -87.5, -1e-4, 0.0, 1e-4, 40.0, 200.0])
def test_the_gate_is_right_at_its_ends(gate: float) -> None:
    at = torch.full((1, 32), gate)
    up = torch.full((1, 32), 3.0)
    found = fused.gated(at, up)
    expected = F.silu(at.double()) * 3
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=1e-30)
    d_gate, d_up = fused.gated_backward(torch.ones(1, 32), at, up)
    wide = at.double().requires_grad_()
    (slope,) = torch.autograd.grad((F.silu(wide) * 3).sum(), wide)
    torch.testing.assert_close(d_gate.double(), slope, rtol=5e-6, atol=1e-30)
    torch.testing.assert_close(d_up.double(), F.silu(at.double()), rtol=2e-6, atol=1e-30)


@pytest.mark.parametrize("vocabulary", [16, 50, 1024])
@pytest.mark.parametrize("size", [1.0, 60.0], ids="logits of about {}".format)
def test_cross_entropy_equals_its_formula(vocabulary: int, size: float) -> None:
    logits = size * _draw(12, vocabulary)
    label = torch.randint(0, vocabulary, (12,), generator=torch.Generator().manual_seed(0))
    label[3] = label[11] = -100
    wide = logits.double().requires_grad_()
    expected = F.cross_entropy(wide, label, ignore_index=-100, reduction="sum")
    (slope,) = torch.autograd.grad(expected, wide)
    found = fused.cross_entropy(logits, label, -100)
    assert found.item() == pytest.approx(expected.item(), rel=2e-6)
    torch.testing.assert_close(logits.double(), slope, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [8, 264])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_products_equal_their_formula(rows: int, transposed: bool, added: bool) -> None:
    x, weight = _draw(rows, 40), _draw(40, 96).t() if transposed else _draw(96, 40)
    addend = _draw(rows, 96, seed=1) if added else None
    assert calls.product_applies(x, weight, addend)
    expected = x.double() @ weight.double().t()
    _close(fused.product(x, weight, addend), expected + (0 if addend is None else addend), 2e-6)


@pytest.mark.parametrize("rows", [1, 100, 600, 5000])
def test_gradients_of_weights_equal_their_formula(rows: int) -> None:
    d_out, x = _draw(rows, 40), _draw(rows, 64)
    assert calls.weight_gradient_applies(d_out, x)
    _close(fused.weight_gradient(d_out, x), d_out.double().t() @ x.double(), 2e-6)


@pytest.mark.parametrize("rows", [1, 33, 700])
@pytest.mark.parametrize("vocabulary", [8, 72, 1000])
@pytest.mark.parametrize("size", [1.0, 30.0], ids="logits of about {}".format)
def test_the_output_layer_equals_its_formula(rows: int, vocabulary: int, size: float) -> None:
    def form(x: Tensor, weight: Tensor) -> Tensor:
        loss = fused.linear_cross_entropy(x, weight, label, ignored=-100, chunk_rows=rows)
        return torch.stack([loss, loss])  # `_gradients` multiplies the first of all by zero

    width = 96
    label = torch.randint(0, vocabulary, (rows,), generator=torch.Generator().manual_seed(rows))
    label[3:9] = -100
    x, weight = _draw(rows, width), size * _draw(vocabulary, width) / width**0.5
    assert calls.output_loss_applies(x, weight, label)
    _same_in_float64(form, x, weight)
    with torch.no_grad():  # without gradients, which take room
        assert torch.equal(form(x, weight), form(x.requires_grad_(), weight))


def test_products_of_wide_weights_are_left_to_torch() -> None:
    x = torch.ones(32, 512)
    assert not calls.product_applies(x, torch.ones(512, 512), None)
    assert not calls.weight_gradient_applies(x, x)
    label = torch.zeros(32, dtype=torch.long)
    assert not calls.output_loss_applies(x, torch.ones(2048, 512), label)


WIDTHS = {"as many key heads": (2, 2, 32), "grouped": (4, 2, 32), "wide": (3, 1, 64)}


@pytest.mark.parametrize("time", [9, 48, 100])
@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
@pytest.mark.parametrize("heads", WIDTHS.values(), ids=WIDTHS)
def test_attention_equals_its_formula(heads: tuple[int, int, int], packed: bool, time: int) -> None:
    n_heads, groups, width = heads
    stream, rows = 48, 3
    document = torch.zeros(rows, time, dtype=torch.long)
    if packed:
        starts = torch.rand(rows, time, generator=torch.Generator().manual_seed(1)) < 0.1
        document = starts.cumsum(1)
    rotary = RotaryPositions(width, time, 100.0)

    def form(x: Tensor, gain: Tensor, *rest: Tensor) -> Tensor:
        documents = DocumentMask(document, x.dtype) if packed else None
        turn = rotary.turn(0, time, x.dtype)
        return fused_attention.attention(x, gain, rest[:4], rest[4:], turn, EPS, documents)

    weights = (
        _draw(n_heads * width, stream), _draw(groups * width, stream, seed=1),
        _draw(groups * width, stream, seed=2), _draw(stream, n_heads * width),
    )  # fmt: skip
    x = _draw(rows, time, stream)
    gains = 1 + 0.1 * _draw(width), 1 + 0.1 * _draw(width, seed=1)
    _same_in_float64(form, x, _draw(stream), *(w / stream**0.5 for w in weights), *gains)


def test_documents_whose_tokens_lie_apart_are_left_to_torch() -> None:
    apart = DocumentMask(torch.tensor([[0, 1, 0]]), torch.float32)
    assert apart.first_BT is None
    risen = DocumentMask(torch.tensor([[0, 0, 2, 2, 3]]), torch.float32)
    assert risen.first_BT is not None
    assert risen.first_BT.tolist() == [[0, 0, 2, 2, 4]]


def test_the_number_of_threads_changes_no_bit() -> None:
    stream, width, time = 64, 32, 64
    rotary = RotaryPositions(width, time, 100.0)
    drawn = [
        _draw(8, time, stream), _draw(stream), _draw(64, stream), _draw(64, stream, seed=1),
        _draw(64, stream, seed=2), _draw(stream, 64), _draw(width), _draw(width, seed=1),
    ]  # fmt: skip
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            inputs = tuple(x.clone().requires_grad_() for x in drawn)
            turn = rotary.turn(0, time, torch.float32)
            documents = native_heads(inputs, turn)
            found.append(documents)
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


def test_the_number_of_threads_changes_no_bit_of_a_product() -> None:
    x, weight, d_out = _draw(1000, 64), _draw(96, 64), _draw(1000, 96)
    label = torch.arange(1000) % 96
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            loss, *gradients = calls.output_loss(x, weight, label, -100, with_gradient=True)
            found.append(
                (calls.product(x, weight, None), calls.weight_gradient(d_out, x), loss, *gradients)
            )
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*found, strict=True):
        assert one is not None
        assert torch.equal(one, two)


def native_heads(inputs: tuple[Tensor, ...], turn: tuple[Tensor, Tensor]) -> list[Tensor]:
    """What the native attention gives and its gradients, products by torch left out."""
    qkv = torch.cat([inputs[0]] * 3, dim=-1).detach()
    first = torch.zeros(qkv.shape[:2], dtype=torch.int32)
    cosine, sine = (part.t().contiguous() for part in turn)
    gains = inputs[6].detach(), inputs[7].detach()
    heads = calls.Heads(*gains, cosine, sine, first, EPS, 2, 2)
    mixed, log_sum = calls.attention(qkv, heads)
    return [mixed, log_sum, *calls.attention_backward(mixed, qkv, mixed, log_sum, heads)]


def test_plain_torch_is_used_where_it_is_asked_for() -> None:
    x = torch.ones(1, 32)
    assert calls.applies(x)
    with calls.plain_torch():
        assert not calls.applies(x)
    assert calls.applies(x)
    for other in (x.double(), torch.ones(1, 33), torch.ones(32, 2).t()):
        assert not calls.applies(other)


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("start", [0, 5])
def test_heads_that_are_read_equal_their_formula(groups: int, start: int) -> None:
    width, rows, time = 32, 3, 11
    rotary = RotaryPositions(width, start + time, 10.0)
    h = _draw(rows, time, 64)
    weights = _draw(4 * width, 64), _draw(groups * width, 64, seed=1), _draw(groups * width, 64)
    gains = _draw(width), _draw(width, seed=1)
    turn = rotary.turn(start, time, torch.float32)
    found = fused_attention.read_heads(h, weights, gains, turn, EPS)

    rotary.double()
    wide = [F.linear(h.double(), w.double()).unflatten(-1, (-1, width)) for w in weights]
    for mine, heads, gain in zip(found, wide, (*gains, None), strict=True):
        expected = heads.transpose(1, 2)
        if gain is not None:
            expected = rotary(F.rms_norm(expected, (width,), gain.double(), EPS), start)
        _close(mine, expected, 2e-6)
