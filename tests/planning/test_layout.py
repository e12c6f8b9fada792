"""Layouts: what divides, what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isoflop.models.config import DecoderConfig
from isoflop.planning.layout import Layout, layouts

LLAMA_7B = DecoderConfig(
    32000, 4096, 32, 32, 32, 128, 11008, max_seq_len=4096, tie_embeddings=False
)


@pytest.mark.parametrize("devices", [1, 2, 6, 8, 16, 24, 128])
def test_every_layout_uses_all_devices_and_divides_model_and_batch(devices: int) -> None:
    found = list(layouts(LLAMA_7B, devices, 8, 384))
    assert found
    for layout in found:
        assert layout.devices == devices
        assert LLAMA_7B.n_kv_heads % layout.tp == 0
        assert LLAMA_7B.n_layers % (layout.pp * layout.interleave) == 0
        assert 384 % (layout.data_ranks * layout.micro_batch) == 0
        assert layout.micro_steps(384) * layout.data_ranks * layout.micro_batch == 384
        assert layout.tp * layout.cp <= 8
    assert len(set(found)) == len(found)


def test_one_device_has_nothing_to_shard() -> None:
    assert {(one.dp, one.fsdp, one.tp, one.pp, one.zero) for one in layouts(LLAMA_7B, 1, 8, 4)} == {
        (1, 1, 1, 1, 1)
    }


def test_one_node_offers_data_sharded_and_tensor_parallel_but_no_pipeline() -> None:
    shapes = {(one.dp, one.fsdp, one.tp, one.pp) for one in layouts(LLAMA_7B, 8, 8, 64)}
    assert {(8, 1, 1, 1), (1, 8, 1, 1), (1, 4, 2, 1), (1, 1, 8, 1)} <= shapes
    assert all(pp == 1 for *_, pp in shapes)


def test_a_cluster_also_offers_pipelines_and_sharding_within_a_node() -> None:
    shapes = {(one.dp, one.fsdp, one.tp, one.pp) for one in layouts(LLAMA_7B, 64, 8, 512)}
    assert {(1, 64, 1, 1), (8, 8, 1, 1), (1, 8, 4, 2)} <= shapes


def test_tensor_parallel_stops_at_the_number_of_key_heads() -> None:
    grouped = replace(LLAMA_7B, n_kv_heads=4)
    assert max(one.tp for one in layouts(grouped, 8, 8, 64)) == 4


def test_only_long_sequences_are_cut_over_devices() -> None:
    assert {one.cp for one in layouts(LLAMA_7B, 8, 8, 64)} == {1}
    assert {one.cp for one in layouts(replace(LLAMA_7B, max_seq_len=65536), 8, 8, 64)} > {1, 2}


def test_a_batch_smaller_than_the_data_ranks_leaves_only_model_parallel_layouts() -> None:
    assert min(one.tp for one in layouts(LLAMA_7B, 8, 8, 2)) == 4


def test_the_interleaved_schedule_needs_whole_rounds_of_passes() -> None:
    for one in layouts(LLAMA_7B, 64, 8, 96):
        if one.interleave > 1:
            assert one.micro_steps(96) % one.pp == 0


def test_the_document_has_the_axes_of_the_contract() -> None:
    assert {"dp", "fsdp", "tp", "pp", "ep", "cp", "micro_batch"} <= set(Layout().to_dict())
