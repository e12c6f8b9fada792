"""Experts that are dealt among ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

EXACT = str(Path(__file__).with_name("exact.py"))


@pytest.mark.parametrize("top_k", [2, 1], ids=["two of four", "none of the second rank"])
def test_dealt_experts_have_the_gradients_of_one_rank(top_k: int, pool: Any) -> None:
    found = pool.run(2, (EXACT, "dealt_experts"), 2, top_k)
    assert all(isinstance(error, float) and error < 1e-12 for error in found), found


def test_a_rank_that_one_token_comes_to_has_its_gradient_too(pool: Any) -> None:
    found = pool.run(2, (EXACT, "one_token_for_the_second_rank"))
    assert all(isinstance(error, float) and error < 1e-6 for error in found), found
