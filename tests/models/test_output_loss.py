"""The chunked output layer and loss against plain cross-entropy in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.models import output_loss
from isoflop.models.output_loss import linear_cross_entropy

ROWS, WIDTH, VOCAB, IGNORED = 50, 16, 37, -1


def _inputs(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, WIDTH, generator=draw, dtype=torch.float64)
    weight = torch.randn(VOCAB, WIDTH, generator=draw, dtype=torch.float64)
    label = torch.randint(VOCAB, (ROWS,), generator=draw)
    label[::7] = IGNORED
    return x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), label


def _reference(x: Tensor, weight: Tensor, label: Tensor) -> tuple[float, Tensor, Tensor]:
    x, weight = (t.detach().double().requires_grad_() for t in (x, weight))
    loss = F.cross_entropy(x @ weight.t(), label, ignore_index=IGNORED, reduction="sum")
    d_x, d_weight = torch.autograd.grad(3 * loss, (x, weight))
    return loss.item(), d_x, d_weight


def _distance(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b).norm() / b.norm()).item()


@pytest.mark.parametrize("rows", [7, 50, 512])
@pytest.mark.parametrize(
    ("autocast", "within"), [(None, 3e-7), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)]
)
def test_loss_and_gradients_are_those_of_float64(
    autocast: torch.dtype | None, within: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, label = _inputs(torch.float32)
    if autocast is None:  # the form of other devices, here
        monkeypatch.setattr(output_loss.fused, "linear_cross_entropy", _chunked)
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        loss = linear_cross_entropy(x, weight, label, ignored=IGNORED, chunk_rows=rows)
    assert loss.dtype == torch.float32
    (3 * loss).backward()
    expected, d_x, d_weight = _reference(x, weight, label)
    assert loss.item() == pytest.approx(expected, rel=within)
    assert x.grad is not None
    assert weight.grad is not None
    assert _distance(x.grad, d_x) < within
    assert _distance(weight.grad, d_weight) < within
    assert not x.grad[::7].any(), "rows without a label have no gradient"


def _chunked(x: Tensor, weight: Tensor, label: Tensor, *, ignored: int, chunk_rows: int) -> Tensor:
    return output_loss._Chunked.apply(x, weight, label, ignored, chunk_rows, x.dtype, True)


def test_weights_that_are_narrow_themselves_get_narrow_gradients() -> None:
    x, weight, label = _inputs(torch.bfloat16)
    loss = linear_cross_entropy(x, weight, label, ignored=IGNORED)
    loss.backward()
    expected, _, _ = _reference(x, weight, label)
    assert loss.item() == pytest.approx(expected, rel=2e-3)
    assert x.grad is not None
    assert weight.grad is not None
    assert x.grad.dtype == weight.grad.dtype == torch.bfloat16


def test_a_float16_gradient_below_its_range_survives_the_sum() -> None:
    """One in 2²⁰ of a batch: divided first, a float16 gradient would be zero."""
    x, weight, label = _inputs(torch.float32)
    with torch.autocast("cpu", torch.float16):
        loss = linear_cross_entropy(x, weight, label, ignored=IGNORED)
    (loss / 2**30).backward()
    _, d_x, _ = _reference(x, weight, label)
    assert x.grad is not None
    assert _distance(x.grad, d_x / 3 / 2**30) < 1e-3


def test_no_tensor_is_as_large_as_all_logits() -> None:
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple) else (out,):
                if isinstance(tensor, Tensor):
                    largest = max(largest, tensor.numel())
            return out

    x, weight, label = _inputs(torch.float32)
    with Watch(), torch.autocast("cpu", torch.bfloat16):
        linear_cross_entropy(x, weight, label, ignored=IGNORED, chunk_rows=5).backward()
    assert largest < ROWS * VOCAB / 2
