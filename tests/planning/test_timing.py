"""Step times: against published runs (benchmarks/published_runs.json), and hand counts of parts."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from isoflop.models.accounting import flops_per_token
from isoflop.models.config import DecoderConfig
from isoflop.planning.gpus import get_gpu
from isoflop.planning.layout import Layout
from isoflop.planning.timing import (
    LINK_SHARE,
    group_bandwidth,
    mfu,
    spread,
    step_time,
    sustained_share,
)

A100, H100 = get_gpu("a100-80gb"), get_gpu("h100-80gb")


def decoder(
    width: int, depth: int, *, vocab: int, head_dim: int = 128, kv: int = 0, inner: int = 0
) -> DecoderConfig:
    heads = width // head_dim
    # 8/3 of the width has the FLOPs of the 4 · width, ungated, of GPT-like models.
    return DecoderConfig(
        vocab, width, depth, heads, kv or heads, head_dim, inner or round(8 * width / 3),
        tie_embeddings=False,
    )  # fmt: skip


LLAMA_7B = decoder(4096, 32, vocab=32000, inner=11008)
NANOCHAT_D24 = decoder(1536, 24, vocab=32768)
BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "plan_published.py"


@pytest.fixture(scope="module")
def compared() -> dict[str, Any]:
    """Every published run beside what the planner makes of it, by name."""
    spec = importlib.util.spec_from_file_location("plan_published", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    runs = json.loads(module.RUNS.read_text(encoding="utf-8"))
    return {run["name"]: module.compare(run) for run in runs}


def test_every_published_figure_has_its_source(compared: dict[str, Any]) -> None:
    for one in compared.values():
        assert one.run["url"].startswith("https://")
        assert one.run["figure"]
        assert one.run["set"] in ("speed", "spread", "held out")


@pytest.mark.parametrize(
    "name",
    [
        "Llama 2 7B, GPU hours",
        "Llama 2 70B, GPU hours",
        "nanochat d26, 8 × h100-80gb",
        "nanochat d32, 8 × h100-80gb",
        "LLaMA 65B, steps",
        "Llama 3.1 405B, 16,384 × H100, steps",
        "Llama 3.1 405B, GPU hours",
    ],
)
def test_runs_that_no_constant_was_fitted_to_take_the_time_foretold_to_15_percent(
    compared: dict[str, Any], name: str
) -> None:
    one = compared[name]
    assert one.run["set"] == "held out"
    assert one.slower == pytest.approx(1.0, rel=0.15)


def test_nine_in_ten_held_out_runs_lie_in_their_interval(compared: dict[str, Any]) -> None:
    held = [one.held for one in compared.values() if one.run["set"] == "held out"]
    assert len(held) > 25
    assert sum(held) / len(held) >= 0.88


def test_the_constants_are_those_that_the_fitted_runs_ask_for(compared: dict[str, Any]) -> None:
    kinds: dict[tuple[str, bool], list[float]] = {}
    for one in compared.values():
        if one.run["set"] == "speed":
            kind = one.run["gpu"][:4], one.run["whole"]
            kinds.setdefault(kind, []).append(math.log(one.slower))
    assert set(kinds) == {("a100", False), ("h100", False), ("a100", True)}
    for off in kinds.values():
        assert abs(sum(off) / len(off)) < 0.02


# --- the parts -----------------------------------------------------------------------------


def test_matrix_products_take_their_flops_at_the_speed_of_a_step() -> None:
    step = step_time(LLAMA_7B, Layout(micro_batch=16, zero=1), A100, 4096, 3)
    count = flops_per_token(LLAMA_7B, 4096)
    tokens = 3 * 16 * 4096
    ideal = tokens * 3 * (count.forward - count.attention_scores) / (312e12 * 0.869 * 0.81)
    assert step.matmul == pytest.approx(ideal, rel=0.005)


def test_mfu_is_flops_over_peak() -> None:
    # Causal attention: 6 · 6.607e9 (all but the input embedding) + 6 · 32 · 4096 · 4096.
    by_hand = 6 * 6.607e9 + 6 * 32 * 4096 * 4096
    assert mfu(LLAMA_7B, A100, 4096, 3000.0) == pytest.approx(3000 * by_hand / 312e12, rel=2e-3)


def test_full_recomputation_adds_the_forward_pass() -> None:
    plain, full = (
        step_time(LLAMA_7B, Layout(micro_batch=4, zero=1, recompute=how), A100, 2048, 1)
        for how in ("none", "full")
    )
    assert full.recompute > plain.matmul / 3
    assert full.total / plain.total == pytest.approx(4 / 3, rel=0.03)


def test_selective_recomputation_costs_a_few_percent() -> None:
    plain, selective = (
        step_time(LLAMA_7B, Layout(micro_batch=4, zero=1, recompute=how), A100, 2048, 1)
        for how in ("none", "selective")
    )
    assert 1.005 < selective.total / plain.total < 1.06


def test_the_bubble_is_stages_less_one_over_passes() -> None:
    layout = Layout(pp=4, zero=1)
    step = step_time(LLAMA_7B, layout, A100, 2048, 16)
    busy = step.total - step.bubble
    assert step.bubble / busy == pytest.approx(3 / 16, rel=0.02)
    interleaved = step_time(LLAMA_7B, replace(layout, interleave=4), A100, 2048, 16)
    assert interleaved.bubble == pytest.approx(step.bubble / 4, rel=0.05)


def test_tensor_parallel_moves_four_pairs_of_activations_a_block() -> None:
    step = step_time(LLAMA_7B, Layout(tp=8, zero=1), A100, 4096, 1)
    moved = 32 * 4 * 2 * (4096 * 4096 * 2) * 7 / 8
    assert step.tensor_parallel == pytest.approx(moved / (300e9 * LINK_SHARE), rel=1e-6)


def test_a_ring_within_a_node_has_its_link_and_beyond_the_cards_of_its_members() -> None:
    assert group_bandwidth(Layout(fsdp=8), H100, "fsdp") == LINK_SHARE * 450e9
    # 8 members a node bring 8 cards of 50 GB/s.
    assert group_bandwidth(Layout(fsdp=16), H100, "fsdp") == LINK_SHARE * 400e9
    assert group_bandwidth(Layout(fsdp=16, tp=8), H100, "fsdp") == LINK_SHARE * 50e9
    assert group_bandwidth(Layout(fsdp=8, dp=4), H100, "dp") == LINK_SHARE * 50e9


def test_sharding_over_a_slow_network_is_what_a_small_batch_waits_for() -> None:
    slow = replace(A100, network=A100.network / 20)
    layout = Layout(fsdp=64, micro_batch=1)
    fast_step, slow_step = (step_time(LLAMA_7B, layout, gpu, 2048, 4) for gpu in (A100, slow))
    assert fast_step.data_parallel == 0.0
    assert slow_step.data_parallel > slow_step.matmul
    # Reducing once a step instead waits less.
    whole = step_time(LLAMA_7B, replace(layout, zero=1), slow, 2048, 4)
    assert whole.data_parallel < slow_step.data_parallel


def test_more_devices_are_never_slower_per_step_and_never_faster_than_linear() -> None:
    times = [
        step_time(NANOCHAT_D24, Layout(fsdp=n, micro_batch=256 // n), H100, 2048, 1).total
        for n in (1, 2, 4, 8)
    ]
    for before, after in pairwise(times):
        assert before / 2 * 0.999 <= after < before


def test_small_work_waits_for_its_launches() -> None:
    tiny = decoder(256, 8, vocab=1024, head_dim=64)
    step = step_time(tiny, Layout(zero=1), H100, 256, 1)
    assert step.other > step.matmul


def test_a_long_run_on_a_cluster_loses_more_than_one_on_a_node() -> None:
    shares = [sustained_share(n, A100) for n in (1, 8, 64, 512, 4096)]
    assert shares[0] == shares[1] == 0.97
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == shares[-2] == 0.79


def test_an_unmeasured_chip_widens_the_interval_to_both_sides() -> None:
    known, unknown = spread(8, get_gpu("mi300x")), spread(8, get_gpu("b200"))
    assert all(b > a for a, b in zip(known, unknown, strict=True))


def test_a_run_is_more_likely_slower_than_faster_and_a_cluster_less_certain() -> None:
    for gpu in (A100, H100):
        node, cluster = spread(8, gpu), spread(1024, gpu)
        assert node[1] >= node[0]
        assert cluster[0] > node[0]
        assert cluster[1] >= node[1]
