"""Learning rate, batch, schedule."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import ArtifactError
from isoflop.laws.hyperparameters import published_law
from isoflop.planning.rates import batch_sequences, rates, schedule


def test_inside_step_laws_runs_its_rates_hold() -> None:
    found = rates(1e9, 3e10)
    assert found.learning_rate == pytest.approx(1.79 * 1e9**-0.713 * 3e10**0.307)
    assert found.batch_tokens == pytest.approx(0.58 * 3e10**0.571)
    assert "Step Law" in found.notes[0]


@pytest.mark.parametrize(
    ("params", "rate", "batch"), [(6.5e9, 4.2e-4, 2304 * 4096), (6.6e10, 3.2e-4, 4608 * 4096)]
)
def test_beyond_them_the_rates_are_those_that_deepseek_used(
    params: float, rate: float, batch: float
) -> None:
    # DeepSeek-AI 2024, table 2: 7B and 67B on 2 trillion tokens.
    found = rates(params, 2e12)
    assert found.learning_rate == pytest.approx(rate, rel=0.05)
    assert found.batch_tokens == pytest.approx(batch, rel=0.15)
    assert "DeepSeek" in found.notes[0]
    assert "lie elsewhere" in found.notes[0]


def test_a_law_of_ones_own_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    published_law("step-law").save(path)
    found = rates(1e12, 1e13, path)
    assert found.learning_rate == pytest.approx(1.79 * 1e12**-0.713 * 1e13**0.307)
    assert str(path) in found.notes[0]


def test_another_law_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_text("{}")
    with pytest.raises(ArtifactError):
        rates(1e9, 1e10, path)


@pytest.mark.parametrize("devices", [1, 3, 8, 24, 1000])
@pytest.mark.parametrize("batch", [1e3, 5e5, 3e6])
def test_the_batch_divides_over_devices_and_stays_near(devices: int, batch: float) -> None:
    sequences = batch_sequences(batch, 2048, devices)
    odd = devices // math.gcd(devices, 2**20)
    assert sequences % odd == 0
    power = sequences // odd
    assert power & (power - 1) == 0
    least = odd * 2048
    assert max(least, batch / np.sqrt(2)) * 0.999 <= sequences * 2048
    assert sequences * 2048 <= max(least, batch * np.sqrt(2)) * 1.001


def test_the_schedule_warms_up_for_a_hundredth_but_at_most_2000_steps() -> None:
    assert schedule(10_000, 1000).warmup_tokens == 100_000
    assert schedule(1_000_000, 1000).warmup_tokens == 2_000_000
    assert schedule(60, 1000).to_dict() == {
        "name": "wsd", "warmup_tokens": 1000, "decay_fraction": 0.2, "final_fraction": 0.0
    }  # fmt: skip
