"""Seconds of a step, foretold from what was measured of one process and of messages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isoflop.models.config import DecoderConfig
from isoflop.training.parallel.recipe import ParallelConfig
from isoflop.training.parallel.timing import (
    Fixed,
    PassSeconds,
    RankSeconds,
    RankSpeed,
    rank_share,
    rank_step_seconds,
)

SHAPE = DecoderConfig(2048, 256, 4, 4, 2, 64, 704, 128)
ALONE = PassSeconds(layer=0.01, outer=0.004, optimizer=0.008)
FREE = RankSpeed(
    cores=64, gathered_byte=0.0, reduced_byte=0.0, sent_byte=0.0, copied_byte=0.0, hop=0.0, fixed={}
)
"""Messages that cost nothing, and a core for each rank."""


def foretold(speed: RankSpeed = FREE, passes: int = 8, **layout: int) -> RankSeconds:
    return rank_step_seconds(
        SHAPE, ParallelConfig(**layout), ALONE, speed, micro_batch_tokens=256, micro_batches=passes
    )


def test_one_process_takes_what_was_measured_of_it() -> None:
    assert foretold().total == pytest.approx(8 * (4 * 0.01 + 0.004) + 0.008)


def test_more_ranks_than_cores_take_turns() -> None:
    two, four = (foretold(replace(FREE, cores=2), dp=ranks).total for ranks in (2, 4))
    assert four == pytest.approx(2 * two)


def test_a_pipeline_of_equal_stages_takes_as_many_passes_more_as_it_has_stages_less_one() -> None:
    equal = replace(ALONE, outer=0.0, optimizer=0.0)
    found = rank_step_seconds(
        SHAPE, ParallelConfig(pp=4), equal, FREE, micro_batch_tokens=256, micro_batches=8
    )
    assert found.total == pytest.approx((8 + 3) * 0.01)
    assert found.ends == pytest.approx(3 * 0.01)


def test_stages_that_wait_leave_their_cores_to_others() -> None:
    """All work of four stages on one core: no time is lost at the ends."""
    found = foretold(replace(FREE, cores=1), pp=4)
    assert found.total == pytest.approx(8 * (4 * 0.01 + 0.004) + 4 * 0.008 / 4)


def test_sharding_moves_half_of_all_weights_twice_and_their_gradients_once_a_pass() -> None:
    slow = replace(FREE, gathered_byte=1e-9, reduced_byte=1e-9)
    layers = 4 * (4 * 256 * 192 + 3 * 256 * 704)  # weights; norms are next to nothing
    outer = 2048 * 256
    moved = 4 * (3 * layers + 2 * outer) / 2
    found = foretold(slow, passes=4, fsdp=2).total - foretold(passes=4, fsdp=2).total
    assert found == pytest.approx(4 * moved * 1e-9, rel=0.01)


def test_tensor_parallel_moves_the_stream_eight_times_a_layer() -> None:
    slow = replace(FREE, gathered_byte=1e-9, reduced_byte=1e-9)
    stream = 4 * 256 * 256
    moved = (8 * 4 * stream + 2 * 4 * 2048 * 256) / 2  # and the output matrix with its gradient
    found = foretold(slow, tp=2).total - foretold(tp=2).total
    assert found == pytest.approx(8 * moved * 1e-9)


def test_what_an_axis_costs_besides_comes_with_each_layer_and_pass() -> None:
    fixed = replace(FREE, fixed={"tp": Fixed(layer=0.002, each_pass=0.001)})
    found = foretold(fixed, tp=2).total - foretold(tp=2).total
    assert found == pytest.approx(8 * (4 * 0.002 + 0.001))


def test_a_rank_computes_its_share_of_heads_inner_width_and_positions() -> None:
    share, length = rank_share(SHAPE, ParallelConfig(tp=2, cp=2), 128)
    assert (share.n_heads, share.n_kv_heads, share.d_ff, length) == (2, 1, 352, 64)
    assert (share.d_model, share.n_layers) == (SHAPE.d_model, SHAPE.n_layers)
