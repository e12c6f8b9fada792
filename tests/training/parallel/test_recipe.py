"""Layouts that cannot be are errors that say which number does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isoflop.core.errors import RecipeError
from isoflop.models.config import DecoderConfig, ExpertsConfig
from isoflop.planning.layout import Layout
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.parallel.recipe import (
    ParallelConfig,
    parallel_problems,
    require_fit,
    require_passes,
    require_processes,
    sharded_problems,
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


EXPERTS = replace(SHAPE, experts=ExpertsConfig(n_experts=4, top_k=2, d_expert=32))


@pytest.mark.parametrize(
    ("layout", "shape", "problem"),
    [
        ({"tp": 2}, EXPERTS, "parallel.tp = 2 is for dense models of the default form"),
        ({"cp": 2}, EXPERTS, "parallel.cp = 2 is for dense models of the default form"),
        ({"cp": 3}, SHAPE, "2 · parallel.cp = 6 does not divide train.seq_len = 32"),
        ({"cp": 2, "tp": 3}, SHAPE, "parallel.cp · tp = 6 does not divide train.seq_len = 32"),
        ({"pp": 3}, SHAPE, "parallel.pp = 3 does not divide model.n_layers = 2"),
        (
            {"pp": 2, "interleave": 2},
            SHAPE,
            "parallel.pp · interleave = 4 does not divide model.n_layers = 2",
        ),
        ({"fsdp": 2, "ep": 2}, SHAPE, "parallel.ep = 2 is for mixtures of experts"),
        ({"fsdp": 3, "ep": 3}, EXPERTS, "parallel.ep = 3 does not divide model.n_experts = 4"),
    ],
)
def test_what_a_layout_does_not_divide_is_named(
    layout: dict[str, int], shape: DecoderConfig, problem: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        require_fit(ParallelConfig(**layout), shape, seq_len=32)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("layout", "problem"),
    [
        ({"fsdp": 2, "ep": 4}, "parallel.ep = 4 does not divide parallel.fsdp = 2"),
        ({"interleave": 2}, "parallel.interleave = 2 needs parallel.pp of at least 2"),
        ({"pp": 0}, "parallel.pp = 0 must be at least 1"),
        ({"zero": 4}, "parallel.zero = 4 must be 1, 2 or 3"),
    ],
)
def test_impossible_layouts_are_refused_whatever_the_model(
    layout: dict[str, int], problem: str
) -> None:
    assert problem in list(parallel_problems(ParallelConfig(**layout)))


@pytest.mark.parametrize(
    ("layout", "micro_batches", "problem"),
    [
        ({"pp": 4}, 3, "parallel.pp = 4 is more than the 3 micro-batches"),
        ({"pp": 2, "dp": 2, "interleave": 2}, 6, "parallel.pp = 2 does not divide the 3 micro"),
    ],
)
def test_a_pipeline_with_too_few_micro_batches_is_refused(
    layout: dict[str, int], micro_batches: int, problem: str
) -> None:
    with pytest.raises(RecipeError, match=problem):
        require_passes(ParallelConfig(**layout), micro_batches)


def test_fine_tuning_is_laid_out_by_sequences_alone() -> None:
    found = list(sharded_problems(ParallelConfig(fsdp=2, tp=2), OptimizerConfig(name="lamb")))
    assert found[0].startswith("parallel.tp = 2 is for pre-training")
    assert found[1] == "optimizer.name = lamb is for one process"


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
