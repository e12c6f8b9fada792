"""Seconds of one training step under a layout: arithmetic, memory traffic, links, pipeline bubble.

A roofline with few constants, each a property of hardware or kernels; not a measurement. Three of
them (the step shares of `gpus`, SUSTAINED_CLUSTER) are fitted to published runs; how far it is off
on runs that were not is in `docs/benchmarks.md` (`benchmarks/plan_published.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from isoflop.models.accounting import count_parameters, flops_per_token
from isoflop.models.config import DecoderConfig
from isoflop.planning.gpus import Gpu
from isoflop.planning.layout import Layout
from isoflop.planning.memory import FULL, HALF, block_params

ATTENTION_SHARE = 0.50
"""Fused causal attention, both directions, against the matrix products of a step: at head width 64
to 128 about 0.6 to 0.7 forward and 0.5 backward on A100 (Dao 2023) and with kernels made for it on
H100 (Shah et al. 2024), less at short sequences."""
ATTENTION_BACKWARD = 2.5
"""Products of the fused backward pass, over those of the forward pass: it computes scores again."""
MEMORY_SHARE = 0.85
"""Of the data sheet's memory bandwidth, in a large elementwise kernel."""
LINK_SHARE = 0.80
"""Of a link's nominal bandwidth, in a large collective."""
HIDDEN_SHARE = 0.80
"""Of the computation at hand, what a gather or reduction of parameters can hide behind: the rest of
its kernels leave no room or have not started."""
HALF_SPEED_TOKENS = 256
"""Tokens of a pass on a device at which its matrix products reach half their speed."""
HOP_SECONDS = 1.5e-6
"""Latency of each step of a ring."""
LOSS_BYTES = 16
"""Bytes moved per logit, forward and backward: written and read in bfloat16, reduced in float32."""
OPTIMIZER_BYTES = 30
"""Bytes moved per parameter by AdamW: 16 read, 12 written, and 2 of the bfloat16 copy."""
SUSTAINED_NODE, SUSTAINED_CLUSTER, CLUSTER_NODES = 0.97, 0.79, 64
FASTER_NODE, FASTER_CLUSTER = 1.15, 1.20
SLOWER_NODE, SLOWER_CLUSTER = 1.15, 1.40
HOPPER, SLOWER_HOPPER = ("h100", "h200"), 1.50
SPREAD_UNMEASURED = 1.30
LAUNCH_SECONDS = 1e-4
"""Host time of one block's kernels, forward and backward, of which small work cannot hide more."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step, by what they go into."""

    matmul: float
    attention: float
    elementwise: float
    """Norms, rotations, activations, the loss: bound by memory bandwidth."""
    recompute: float
    bubble: float
    """Devices idle while the pipeline fills and drains."""
    tensor_parallel: float
    data_parallel: float
    """Gathering parameters and reducing gradients, where computation does not hide it."""
    other: float
    """The optimizer, transfers between stages and of context, launches."""

    @property
    def total(self) -> float:
        """The step."""
        return float(sum(vars(self).values()))

    def to_dict(self) -> dict[str, float]:
        """The parts and their sum."""
        return {**vars(self), "total": self.total}


def step_time(
    config: DecoderConfig, layout: Layout, gpu: Gpu, seq_len: int, micro_steps: int
) -> StepTime:
    """Seconds of one step of `micro_steps` passes on every rank.

    Args:
        seq_len: Tokens per sequence, over all context-parallel devices.
    """
    tokens = layout.micro_batch * seq_len / layout.cp
    # One device's share of a pass: its stage's blocks, and its part of the output layer.
    blocks = config.n_layers / layout.pp
    matmul, attention = _arithmetic(config, layout, gpu, seq_len, tokens)
    moved = _elementwise_bytes(config, layout, gpu.number_bytes)
    elementwise = tokens * moved / (gpu.bandwidth * MEMORY_SHARE)
    again = {"none": (0.0, 0.0), "selective": (0.0, 1 / 3), "full": (1 / 3, 1 / 3)}
    share_matmul, share_elementwise = again[layout.recompute]
    forward_attention = attention / (1 + ATTENTION_BACKWARD)
    recompute = matmul * share_matmul + elementwise * share_elementwise
    recompute += forward_attention if layout.recompute == "full" else 0.0
    compute = matmul + attention + elementwise + recompute
    launches = max(0.0, blocks * LAUNCH_SECONDS - compute)
    tensor = _tensor_parallel(config, layout, gpu, tokens, blocks)
    gathers = _each_pass(config, layout, gpu)
    exposed = max(0.0, gathers - HIDDEN_SHARE * compute)
    transfers = _transfers(config, layout, gpu, tokens, attention)
    one = compute + launches + tensor + exposed + transfers
    once = _once_a_step(config, layout, gpu)
    reduce = max(0.0, once - HIDDEN_SHARE * compute * 2 / 3)
    return StepTime(
        matmul=micro_steps * matmul,
        attention=micro_steps * attention,
        elementwise=micro_steps * elementwise,
        recompute=micro_steps * recompute,
        bubble=(layout.pp - 1) / layout.interleave * one,
        tensor_parallel=micro_steps * tensor,
        data_parallel=micro_steps * exposed + reduce,
        other=micro_steps * (launches + transfers) + _optimizer(config, layout, gpu),
    )


def sustained_share(devices: int, gpu: Gpu) -> float:
    """Share of the time of a long run that goes into steps at that speed.

    One node loses some to evaluations and checkpoints. A cluster also waits for stragglers, the
    network and restarts: the GPU hours published for LLaMA 7B and 13B and for MPT-7B are 1.27 times
    the steps' own. In between, evenly per doubling of nodes.
    """
    nodes = max(1.0, devices / gpu.per_node)
    way = min(1.0, math.log2(nodes) / math.log2(CLUSTER_NODES))
    return SUSTAINED_NODE + way * (SUSTAINED_CLUSTER - SUSTAINED_NODE)


def spread(devices: int, gpu: Gpu) -> tuple[float, float]:
    """Factors (faster, slower) that the time of 9 runs in 10 stays within; from published runs.

    Rounded outwards from the runs of the sets `speed` and `spread` (published_runs.json). Slower by
    more than faster: the constants are those of tuned software on unthrottled boards, and eager
    kernels of 2023 or a lower power limit take up to half as long again on Hopper.
    """
    nodes = max(1.0, devices / gpu.per_node)
    way = min(1.0, math.log2(nodes) / math.log2(CLUSTER_NODES))
    chip = 0.0 if gpu.measured else math.log(SPREAD_UNMEASURED)
    slower_node = SLOWER_HOPPER if gpu.name.startswith(HOPPER) else SLOWER_NODE
    found = []
    for node, cluster in ((FASTER_NODE, FASTER_CLUSTER), (slower_node, SLOWER_CLUSTER)):
        known = math.log(node) + way * (math.log(max(node, cluster)) - math.log(node))
        found.append(math.exp(math.hypot(known, chip)))
    return found[0], found[1]


def mfu(config: DecoderConfig, gpu: Gpu, seq_len: int, tokens_per_second_device: float) -> float:
    """Model FLOPs utilisation: FLOPs that the model needs (causal attention, nothing computed
    twice) over the device's peak."""
    return tokens_per_second_device * flops_per_token(config, seq_len).training / gpu.flops


def _arithmetic(
    config: DecoderConfig, layout: Layout, gpu: Gpu, seq_len: int, tokens: float
) -> tuple[float, float]:
    """Seconds of a pass, forward and backward, in matrix products and in fused attention."""
    count = flops_per_token(config, seq_len)
    speed = gpu.matmul_flops * tokens / (tokens + HALF_SPEED_TOKENS)
    share = tokens / (layout.tp * layout.pp)
    products = 3 * (count.forward - count.attention_scores)
    scores = (1 + ATTENTION_BACKWARD) * count.attention_scores
    return share * products / speed, share * scores / (speed * ATTENTION_SHARE)


def _elementwise_bytes(config: DecoderConfig, layout: Layout, number_bytes: int) -> float:
    """Bytes per token and pass that fused elementwise kernels move on one device.

    Forward, in numbers: norms 4w, residual sums 5w, norm and rotation of queries and keys 2(q + k),
    gate 3f; the backward pass moves twice that.
    """
    width, inner = config.d_model, config.d_ff
    query, key = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    block = 3 * number_bytes * (9 * width + 2 * (query + key) + 3 * inner)
    loss = LOSS_BYTES * config.vocab_size
    return (config.n_layers * block + loss) / (layout.tp * layout.pp)


# --- links ---------------------------------------------------------------------------------


def group_bandwidth(layout: Layout, gpu: Gpu, axis: str) -> float:
    """Bytes per second and direction of a ring over one axis, per device.

    An axis that leaves the node enters each node once for all of its members there, over the
    network cards of all of them; so sharding over whole nodes keeps most of the node's own speed.
    """
    order = ("tp", "cp", "fsdp", "dp", "pp")
    stride = 1
    for name in order[: order.index(axis)]:
        stride *= getattr(layout, name)
    size = getattr(layout, axis)
    if stride * size <= gpu.per_node:
        return gpu.link * LINK_SHARE
    members = max(1, min(size, gpu.per_node // stride))
    return float(min(gpu.link, members * gpu.network)) * LINK_SHARE


def _ring(n: int) -> float:
    """Share of a tensor that passes each link when n devices gather it or scatter its sum."""
    return (n - 1) / n


def _device_params(config: DecoderConfig, layout: Layout) -> float:
    """Parameters of a device's stage, before sharding."""
    matrices = count_parameters(config).params_total - config.n_layers * block_params(config)
    return (config.n_layers * block_params(config) + matrices) / (layout.tp * layout.pp)


def _tensor_parallel(
    config: DecoderConfig, layout: Layout, gpu: Gpu, tokens: float, blocks: float
) -> float:
    """Seconds of a pass in gathers and scatters of activations, which nothing hides.

    Two pairs in the forward pass of a block, two in the backward pass, and the forward's again
    under full recomputation (Korthikanti et al. 2022, figure 5).
    """
    if layout.tp == 1:
        return 0.0
    pairs = 6 if layout.recompute == "full" else 4
    size = tokens * config.d_model * HALF
    moved = blocks * pairs * 2 * size * _ring(layout.tp)
    return moved / group_bandwidth(layout, gpu, "tp")


def _each_pass(config: DecoderConfig, layout: Layout, gpu: Gpu) -> float:
    """Seconds of ZeRO-3's traffic in one pass: bfloat16 parameters twice, float32 gradients once.

    Context-parallel devices share the sharding, within their node.
    """
    shard = layout.fsdp * layout.cp
    if layout.zero != 3 or shard == 1:
        return 0.0
    axis = "fsdp" if layout.fsdp > 1 else "cp"
    size = _device_params(config, layout) * (2 * HALF + FULL)
    latency = 3 * config.n_layers / layout.pp * (shard - 1) * HOP_SECONDS
    return size * _ring(shard) / group_bandwidth(layout, gpu, axis) + latency


def _once_a_step(config: DecoderConfig, layout: Layout, gpu: Gpu) -> float:
    """Seconds of reducing gradients at the end of a step."""
    params = _device_params(config, layout)
    shard = layout.fsdp * layout.cp
    seconds = 0.0
    if layout.zero == 1 and shard > 1:  # scatter the sums, gather the new weights
        axis = "fsdp" if layout.fsdp > 1 else "cp"
        seconds += params * (FULL + HALF) * _ring(shard) / group_bandwidth(layout, gpu, axis)
    if layout.dp > 1:
        size = 2 * FULL * params / shard
        seconds += size * _ring(layout.dp) / group_bandwidth(layout, gpu, "dp")
    return seconds


def _transfers(
    config: DecoderConfig, layout: Layout, gpu: Gpu, tokens: float, attention: float
) -> float:
    """Seconds of a pass between stages and, past what attention hides, of keys and values."""
    seconds = 0.0
    if layout.pp > 1:
        size = 2 * tokens * config.d_model * HALF / layout.tp
        seconds += layout.interleave * size / group_bandwidth(layout, gpu, "pp")
    if layout.cp > 1:
        keys = 2 * config.n_kv_heads * config.head_dim * HALF * tokens / layout.tp
        moved = 3 * (layout.cp - 1) * keys * config.n_layers / layout.pp
        seconds += max(0.0, moved / group_bandwidth(layout, gpu, "cp") - attention)
    return seconds


def _optimizer(config: DecoderConfig, layout: Layout, gpu: Gpu) -> float:
    params = _device_params(config, layout) / (layout.fsdp * layout.cp)
    return params * OPTIMIZER_BYTES / (gpu.bandwidth * MEMORY_SHARE)
