"""Attention whose keys and values go round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from isoflop.training.parallel.context import positions

EXACT = str(Path(__file__).with_name("exact.py"))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ring_attention_is_attention_of_one_rank_within_each_document(
    ranks: int, pool: Any
) -> None:
    found = pool.run(ranks, (EXACT, "ring_attention"), ranks)
    assert all(isinstance(error, float) and error < 1e-12 for error in found), found


def test_every_position_is_on_one_rank_and_work_under_the_mask_is_even() -> None:
    dealt = [positions(rank, 4, 32) for rank in range(4)]
    assert torch.cat(dealt).sort().values.tolist() == list(range(32))
    assert len({int((own + 1).sum()) for own in dealt}) == 1
