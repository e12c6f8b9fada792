"""Choosing among layouts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isoflop.core.errors import RecipeError
from isoflop.core.hardware import Calibration
from isoflop.models.config import DecoderConfig
from isoflop.planning.candidates import AS_FAST, SHOWN, rank_layouts, this_machine_choice
from isoflop.planning.gpus import get_gpu, this_machine
from isoflop.planning.memory import USABLE

H100 = get_gpu("h100-80gb")
SMALL = DecoderConfig(32768, 2048, 24, 16, 8, 128, 5632)
LLAMA_70B = DecoderConfig(128256, 8192, 80, 64, 8, 128, 28672, tie_embeddings=False)


def test_a_small_model_on_one_node_needs_no_model_parallel_axis() -> None:
    best = rank_layouts(SMALL, H100, 8, 2048, 256).best
    layout = best.layout
    assert (layout.tp, layout.pp, layout.cp, layout.recompute) == (1, 1, 1, "none")
    assert layout.micro_batch >= 8
    assert best.fits


def test_70_billion_on_64_gpus_fits_by_sharding() -> None:
    choice = rank_layouts(LLAMA_70B, H100, 64, 4096, 1024)
    assert choice.best.memory.total <= USABLE * H100.memory_bytes
    assert choice.best.layout.fsdp * choice.best.layout.tp * choice.best.layout.pp >= 32


def test_the_winner_is_about_as_fast_as_any_that_fits() -> None:
    choice = rank_layouts(SMALL, H100, 8, 2048, 256)
    fastest = min(one.time.total for one in choice.table if one.fits)
    assert choice.best is choice.table[0]
    assert choice.best.time.total <= fastest * (1 + AS_FAST)


def test_the_table_has_one_row_of_each_kind_fitting_ones_first() -> None:
    table = rank_layouts(LLAMA_70B, H100, 64, 4096, 1024).table
    kinds = [
        (one.layout.dp, one.layout.fsdp, one.layout.tp, one.layout.pp, one.layout.zero)
        for one in table
    ]
    assert len(set(kinds)) == len(kinds) <= SHOWN
    fits = [one.fits for one in table]
    assert fits == sorted(fits, reverse=True)


def test_a_kind_that_does_not_fit_is_shown_as_such() -> None:
    two = rank_layouts(replace(SMALL, n_layers=64), replace(H100, memory_bytes=50 * 2**30), 2,
                       2048, 64)  # fmt: skip
    assert any(not one.fits for one in two.table)
    assert all(one.memory.total > USABLE * 50 * 2**30 for one in two.table if not one.fits)


def test_the_speed_is_the_batch_over_the_step() -> None:
    best = rank_layouts(SMALL, H100, 8, 2048, 256).best
    assert best.tokens_per_second == pytest.approx(256 * 2048 / best.time.total)


def test_a_faster_network_never_makes_the_best_step_longer() -> None:
    slow = replace(H100, network=H100.network / 50)
    fast, slower = (rank_layouts(SMALL, gpu, 32, 2048, 256).best.time.total for gpu in (H100, slow))
    assert fast <= slower


def test_what_cannot_fit_is_refused_with_what_would() -> None:
    with pytest.raises(RecipeError) as refused:
        rank_layouts(LLAMA_70B, get_gpu("rtx-4090"), 8, 4096, 64)
    said = str(refused.value)
    assert refused.value.where == "memory"
    assert "do not fit on 8 × rtx-4090" in said
    assert "parameters fit; this model needs about" in said


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(RecipeError, match="cannot be divided over 7 devices"):
        rank_layouts(SMALL, H100, 7, 2048, 2)


def test_this_machine_takes_the_largest_pass_that_divides_the_batch() -> None:
    calibration = Calibration(
        {"float32": {2: 100.0}}, 30.0, "float32", 2, "", 1.0, "", {"cpu": "", "cores": 2}
    )
    tiny = DecoderConfig(1024, 128, 2, 4, 4, 32, 352, max_seq_len=256)
    best = this_machine_choice(tiny, this_machine(calibration, 2**33), 256, 48).best
    assert best.layout.micro_batch == 24
    assert best.layout.devices == 1
    with pytest.raises(RecipeError, match="parameters fit here"):
        this_machine_choice(tiny, this_machine(calibration, 2**24), 256, 48)
