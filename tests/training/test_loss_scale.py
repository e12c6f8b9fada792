"""The loss scale falls at once, rises with patience, and stays a power of two."""

from __future__ import annotations

import math

import pytest

from isoflop.training import loss_scale
from isoflop.training.loss_scale import CEILING, FLOOR, LossScale


def test_it_halves_at_an_overflow_down_to_its_floor() -> None:
    scale = LossScale(4.0)
    values = []
    for _ in range(4):
        scale = scale.halved()
        values.append(scale.value)
    assert values == [2.0, 1.0, 1.0, 1.0]
    assert scale.overflows == 4


def test_it_doubles_after_calm_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "PATIENCE", 3)
    scale = LossScale(8.0).after_good_step().after_good_step()
    assert scale.value == 8.0
    assert scale.halved().after_good_step().after_good_step().value == 4.0, "counted anew"
    assert scale.after_good_step() == LossScale(16.0)
    top = LossScale(CEILING, calm=2)
    assert top.after_good_step().value == CEILING


def test_only_an_overflow_of_the_gradient_is_the_scales_doing() -> None:
    assert LossScale().is_too_large(2.0, math.inf)
    assert LossScale().is_too_large(2.0, math.nan)
    assert not LossScale().is_too_large(math.nan, math.nan), "the loss is not scaled"
    assert not LossScale().is_too_large(2.0, 1.0)
    assert not LossScale(FLOOR).is_too_large(2.0, math.inf), "nothing is left to halve"
