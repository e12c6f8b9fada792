"""A rank that hangs is named by those who wait for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isoflop.core.errors import RunError

EXACT = str(Path(__file__).with_name("exact.py"))


def test_a_hung_collective_names_the_rank_its_step_and_the_operation(pool: Any) -> None:
    waited, _ = pool.run(2, (EXACT, "hanging_rank"))
    assert isinstance(waited, RunError)
    assert "rank 0: waited 1 s in all_reduce, in the gradient of step 7" in str(waited)
    assert "for rank 1 (nap of step 7" in str(waited)
