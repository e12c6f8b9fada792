"""The shape of a decoder is checked as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from isoflop.core.errors import RecipeError
from isoflop.models.config import DecoderConfig


def test_all_problems_of_a_shape_are_told_at_once():
    with pytest.raises(RecipeError) as caught:
        DecoderConfig(
            vocab_size=0, d_model=32, n_layers=2, n_heads=4, n_kv_heads=3, head_dim=7, d_ff=48,
            rope_theta=0.0,
        )  # fmt: skip
    for part in (
        "vocab_size = 0 must be at least 1",
        "n_heads = 4 is not a multiple of n_kv_heads = 3",
        "head_dim = 7 must be even",
        "rope_theta = 0.0 must be positive",
    ):
        assert part in str(caught.value)


def test_shapes_and_costs_are_known_without_torch():
    script = (
        "import sys, isoflop.models.accounting; "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
