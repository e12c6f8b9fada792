"""Layouts that cannot be are errors that say which number does not fit."""

from __future__ import annotations

import pytest

from isoflop.core.errors import RecipeError
from isoflop.models.config import DecoderConfig, ExpertsConfig
from isoflop.planning.layout import Layout
from isoflop.training.parallel.recipe import (
    ParallelConfig,
    parallel_problems,
    require_fit,
    require_processes,
)

SHAPE = DecoderConfig(
    vocab_size=61, d_model=64, n_layers=2, n_heads=6, n_kv_heads=2, head_dim=16, d_ff=96,
    max_seq_len=32,
)  # fmt: skip


def test_every_number_that_tensor_parallel_does_not_divide_is_named() -> None:
    with pytest.raises(RecipeError) as caught:
        require_fit(ParallelConfig(tp=4), SHAPE, seq_len=30)
    for name, value in (("model.n_heads", 6), ("model.n_kv_heads", 2), ("train.seq_len", 30)):
        assert f"parallel.tp = 4 does not divide {name} = {value}" in str(caught.value)
    assert "d_ff" not in str(caught.value)


def test_experts_are_not_cut_by_tensor_parallel() -> None:
    from dataclasses import replace

    with_experts = replace(SHAPE, experts=ExpertsConfig(n_experts=4, top_k=2, d_expert=32))
    with pytest.raises(RecipeError, match="decoders without experts"):
        require_fit(ParallelConfig(tp=2), with_experts, seq_len=32)


@pytest.mark.parametrize("axis", ["pp", "ep", "cp"])
def test_axes_that_are_not_there_are_refused(axis: str) -> None:
    (problem,) = parallel_problems(ParallelConfig(**{axis: 2}))
    assert f"parallel.{axis} = 2 is not there yet" in problem


def test_a_layout_for_more_processes_than_there_are_says_how_to_start_them() -> None:
    with pytest.raises(RecipeError, match=r"fsdp 2 · tp 2.* 4 processes, and there is 1.*torchrun"):
        require_processes(ParallelConfig(fsdp=2, tp=2), started=1)


def test_processes_without_a_layout_are_asked_how_they_share_the_work() -> None:
    with pytest.raises(RecipeError, match=r"--parallel.fsdp 4"):
        require_processes(ParallelConfig(), started=4)


def test_the_axes_of_a_planned_layout_are_those_of_the_recipe() -> None:
    planned = Layout(dp=2, fsdp=4, tp=2, zero=1)
    axes = {name: getattr(planned, name) for name in ("dp", "fsdp", "tp", "pp", "ep", "cp", "zero")}
    assert ParallelConfig(**axes).devices == planned.devices
    assert ParallelConfig(**axes).data_ranks == planned.data_ranks
