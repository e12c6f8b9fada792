"""Memory of a rank, foretold by formulas."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from isoflop.models.config import DecoderConfig
from isoflop.models.memory import memory_bytes
from isoflop.training.parallel.memory import RankMemory, rank_memory_bytes
from isoflop.training.parallel.recipe import ParallelConfig

SHAPE = DecoderConfig(2048, 256, 4, 4, 2, 64, 704, 128)
BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "parallel_memory.py"


def foretold(**layout: int) -> RankMemory:
    return rank_memory_bytes(
        SHAPE, ParallelConfig(**layout), micro_batch_tokens=256, seq_len=128, micro_batches=4
    )


def test_one_process_holds_what_the_formulas_of_one_process_say() -> None:
    assert foretold().total == memory_bytes(SHAPE, micro_batch_tokens=256, seq_len=128).total


def test_what_is_sharded_shrinks_with_the_ranks_and_the_rest_stays() -> None:
    two, four = foretold(fsdp=2), foretold(fsdp=4)
    for part in ("parameters", "gradients", "optimizer"):
        assert getattr(two, part) == pytest.approx(2 * getattr(four, part), abs=8)
    assert (two.gathered, two.activations, two.loss) == (
        four.gathered, four.activations, four.loss,
    )  # fmt: skip


def test_tensor_parallel_cuts_weights_and_what_lies_between_its_messages() -> None:
    one, two, four = (foretold(tp=tp) for tp in (1, 2, 4))
    for part in ("parameters", "gradients", "optimizer"):
        assert getattr(one, part) == pytest.approx(2 * getattr(two, part), rel=0.01)
    # What projections read is gathered: it does not shrink with the ranks.
    gathered = 4 * 256 * SHAPE.n_layers * 2 * SHAPE.d_model
    assert two.activations - gathered > 1.8 * (four.activations - gathered)
    assert two.gathered == 0


def test_context_parallel_shares_weights_as_sharding_does_and_keeps_its_own_positions() -> None:
    cut, sharded = foretold(cp=2), foretold(fsdp=2)
    for part in ("parameters", "gathered", "gradients", "optimizer"):
        assert getattr(cut, part) == getattr(sharded, part)
    assert foretold(cp=4).activations == pytest.approx(cut.activations / 2, rel=0.02)


def test_stages_of_several_pieces_are_refused() -> None:
    with pytest.raises(ValueError, match="stages of one piece"):
        foretold(pp=2, interleave=2)


@pytest.mark.slow
def test_every_layout_measured_holds_what_was_foretold_to_a_tenth() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK)], capture_output=True, text=True, check=True
    )
    rows = re.findall(r"\| ([\d.]+) \| ([\d.]+) \| [\d.]+ \|$", done.stdout, re.MULTILINE)
    assert len(rows) >= 6
    for told, seen in rows:
        assert float(told) == pytest.approx(float(seen), rel=0.1), done.stdout
