"""Memory by part: against hand counts, Korthikanti et al. 2022, and published peaks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isoflop.models.accounting import count_parameters
from isoflop.models.config import DecoderConfig
from isoflop.planning.layout import Layout
from isoflop.planning.memory import activation_bytes_per_token, device_memory

GIB = 2**30
LLAMA_8B = DecoderConfig(
    128256, 4096, 32, 32, 8, 128, 14336, max_seq_len=8192, tie_embeddings=False
)
GPT_LIKE = DecoderConfig(50304, 3072, 12, 24, 24, 128, 8192, max_seq_len=2048)


def test_states_of_one_device_are_the_eighteen_bytes_of_mixed_precision() -> None:
    # bfloat16 weights 2, float32 weights 4, gradients 4, two moments 8.
    memory = device_memory(GPT_LIKE, Layout(zero=1), 2048, 1)
    params = count_parameters(GPT_LIKE).params_total
    states = memory.parameters + memory.gradients + memory.optimizer
    assert states == pytest.approx(18 * params, rel=1e-6)


def test_sharding_divides_the_sixteen_bytes_of_the_states() -> None:
    params = count_parameters(LLAMA_8B).params_total
    few, many = (device_memory(LLAMA_8B, Layout(fsdp=n, micro_batch=2), 8192, 1) for n in (8, 128))
    assert few.total - many.total == pytest.approx(16 * params * (1 / 8 - 1 / 128), rel=1e-3)


def test_zero_1_shards_the_optimizer_alone() -> None:
    params = count_parameters(LLAMA_8B).params_total
    memory = device_memory(LLAMA_8B, Layout(fsdp=8, zero=1), 8192, 1)
    assert memory.gradients == 4 * params
    assert memory.optimizer == params
    assert memory.parameters == pytest.approx(2 * params + params / 2, rel=1e-6)


def test_a_block_keeps_about_the_34_sbh_of_korthikanti_without_scores() -> None:
    # Their block has dropout masks and GELU, ours a gate and normed queries and keys: 34 and 36
    # bytes per token and width.
    bytes_per_width = activation_bytes_per_token(GPT_LIKE, "none") / GPT_LIKE.d_model
    assert bytes_per_width == pytest.approx(34, rel=0.08)


def test_full_recomputation_keeps_the_2_sbh_of_korthikanti() -> None:
    assert activation_bytes_per_token(GPT_LIKE, "full") == 2 * GPT_LIKE.d_model


def test_selective_recomputation_keeps_results_of_products_and_attention() -> None:
    # Llama 3 8B by hand: residual twice 8192, q 4096, k and v 1024 each, mixed 4096, gate and up
    # 14336 each; 2 bytes. And 32 row sums of 4 bytes.
    by_hand = 2 * (2 * 4096 + 4096 + 2 * 1024 + 4096 + 2 * 14336) + 4 * 32
    assert activation_bytes_per_token(LLAMA_8B, "selective") == by_hand


@pytest.mark.parametrize(("gpus", "published_gib"), [(8, 77.0), (128, 62.0)])
def test_the_peak_of_torchtitans_llama_8b_is_foretold_to_a_tenth(
    gpus: int, published_gib: float
) -> None:
    # torchtitan, benchmarks/llama3_h100_202412: FSDP, torch.compile, bfloat16, selective
    # activation checkpointing, local batch 2 of 8,192 tokens, loss not fused.
    layout = Layout(fsdp=gpus, micro_batch=2, recompute="selective")
    memory = device_memory(LLAMA_8B, layout, 8192, 1, loss_chunk_tokens=2 * 8192)
    assert memory.total / GIB == pytest.approx(published_gib, rel=0.1)


@pytest.mark.parametrize(
    ("width", "depth", "head_dim", "micro_batch", "recompute"),
    [(2048, 24, 128, 14, "none"), (2560, 32, 128, 10, "none"), (4096, 32, 128, 6, "none"),
     (5120, 40, 128, 2, "none"), (7168, 48, 112, 3, "full"), (1536, 24, 96, 24, "none")],
)  # fmt: skip
def test_what_llm_foundry_ran_on_eight_80_gb_gpus_fits(
    width: int, depth: int, head_dim: int, micro_batch: int, recompute: str
) -> None:
    # MPT at 2,048 tokens, FSDP, the micro-batches of its benchmark table, each near the largest.
    heads = width // head_dim
    config = DecoderConfig(50368, width, depth, heads, heads, head_dim, 8 * width // 3)
    layout = Layout(fsdp=8, micro_batch=micro_batch, recompute=recompute)  # type: ignore[arg-type]
    memory = device_memory(config, layout, 2048, 2, loss_chunk_tokens=micro_batch * 2048)
    assert 0.55 * 80 <= memory.total / GIB <= 80


def test_tensor_parallel_divides_states_and_activations() -> None:
    one, four = (device_memory(LLAMA_8B, Layout(tp=n, zero=1), 8192, 1) for n in (1, 4))
    assert four.total == pytest.approx(one.total / 4, rel=0.01)


def test_context_parallel_divides_activations_and_shards_states() -> None:
    one, four = (device_memory(LLAMA_8B, Layout(cp=n), 32768, 1) for n in (1, 4))
    assert four.activations == pytest.approx(one.activations / 4, rel=0.01)
    assert four.optimizer == pytest.approx(one.optimizer / 4, rel=0.01)


def test_the_first_stage_keeps_one_pass_per_stage_in_flight() -> None:
    deep = replace(LLAMA_8B, vocab_size=1024)  # so that the last stage's logits do not weigh
    one = device_memory(deep, Layout(zero=1), 8192, 8)
    four = device_memory(deep, Layout(pp=4, zero=1), 8192, 8)
    assert four.activations == pytest.approx(one.activations, rel=0.01)
    interleaved = device_memory(deep, Layout(pp=4, zero=1, interleave=2), 8192, 8)
    assert interleaved.activations == pytest.approx(one.activations * (1 + 3 / 8), rel=0.01)


def test_fewer_passes_than_stages_keep_fewer_in_flight() -> None:
    deep = replace(LLAMA_8B, vocab_size=1024)
    many, few = (device_memory(deep, Layout(pp=4, zero=1), 8192, n) for n in (8, 2))
    assert few.activations == pytest.approx(many.activations / 2, rel=0.01)


def test_the_total_is_the_sum_of_the_parts() -> None:
    document = device_memory(LLAMA_8B, Layout(fsdp=8), 8192, 1).to_dict()
    assert document["total"] == sum(v for k, v in document.items() if k != "total")
