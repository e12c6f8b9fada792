"""Money and energy."""

from __future__ import annotations

import pytest

from isoflop.planning.cost import run_cost
from isoflop.planning.gpus import get_gpu


@pytest.mark.parametrize(
    ("gpu_hours", "megawatt_hours"), [(82_432, 36), (135_168, 59), (530_432, 233), (1_022_362, 449)]
)
def test_energy_is_that_of_llamas_carbon_table(gpu_hours: float, megawatt_hours: float) -> None:
    # Touvron et al. 2023, table 15: 400 W boards, PUE 1.1.
    cost = run_cost(get_gpu("a100-80gb"), gpu_hours)
    assert cost.kilowatt_hours == pytest.approx(1000 * megawatt_hours, rel=0.01)


def test_money_is_price_times_hours() -> None:
    assert run_cost(get_gpu("h100-80gb"), 192, 3.0).usd == pytest.approx(576)
    listed = run_cost(get_gpu("h100-80gb"), 192)
    assert listed.usd == pytest.approx(192 * 3.95)
    assert "2026" in listed.price_source


def test_no_price_is_said_and_not_guessed() -> None:
    cost = run_cost(get_gpu("rtx-4090"), 10)
    assert cost.usd is None
    assert "--price" in cost.price_source
    assert run_cost(get_gpu("rtx-4090"), 10, 0.4).usd == pytest.approx(4)
