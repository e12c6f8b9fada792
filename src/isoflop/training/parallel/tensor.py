"""Tensor parallel with sequence parallel between the products (Korthikanti et al. 2022).

Columns of the matrices that read the stream and rows of those that write into it lie on different
ranks; between them each rank holds some of the positions. Not for other axes (`apply.py`).
"""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from isoflop.models.decoder import Block, Decoder

_HEADS = 1
"""The axis of heads in (B, H, T, K): each rank has its own."""


def cut_tensors(model: Decoder, mesh: DeviceMesh) -> None:
    """Cut the layers, the embedding and the output layer, those that are here, over the ranks of a
    one-axis mesh.

    Afterwards the first layer takes all positions and the others this rank's, and the loss is that
    of these positions (`stage.py`).
    """
    for number, block in enumerate(model.layers):
        if isinstance(block, Block):
            block.fuses_attention = block.fuses_feed_forward = False
            parallelize_module(block, mesh, _plan(block, first=number == 0))
    outer: dict[str, ParallelStyle] = {}
    if isinstance(model.embed_tokens, nn.Embedding):
        # Every rank embeds all positions; the first layer takes its own of them.
        outer["embed_tokens"] = RowwiseParallel(
            input_layouts=Replicate(), output_layouts=Replicate()
        )
    if isinstance(model.lm_head, nn.Linear):
        outer["lm_head"] = ColwiseParallel()
    if model.norm is not None:
        outer["norm"] = SequenceParallel(use_local_output=True)
        model.fuses_norm = False
    parallelize_module(model, mesh, outer)
    if {
        "embed_tokens",
        "lm_head",
    } <= outer.keys() and model.config.tie_embeddings:  # which the cutting has untied
        model.lm_head.weight = model.embed_tokens.weight


def _plan(block: Block, *, first: bool) -> dict[str, ParallelStyle]:
    whole, own, as_it_is = Replicate(), Shard(1), None
    plan: dict[str, ParallelStyle] = {
        "input_layernorm": SequenceParallel(use_local_output=True),
        "self_attn": PrepareModuleInput(
            input_layouts=(own, as_it_is, as_it_is),
            desired_input_layouts=(whole, as_it_is, as_it_is),
            use_local_output=True,
        ),
        "self_attn.q_proj": ColwiseParallel(),
        "self_attn.k_proj": ColwiseParallel(),
        "self_attn.v_proj": ColwiseParallel(),
        "self_attn.o_proj": RowwiseParallel(output_layouts=own),
        "post_attention_layernorm": SequenceParallel(use_local_output=True),
        "mlp": PrepareModuleInput(
            input_layouts=own, desired_input_layouts=whole, use_local_output=True
        ),
        "mlp.up_proj": ColwiseParallel(),
        "mlp.down_proj": RowwiseParallel(output_layouts=own),
    }
    if block.self_attn.q_norm is not None:
        for name in ("q_norm", "k_norm"):
            style = SequenceParallel(sequence_dim=_HEADS, use_local_output=True)
            plan[f"self_attn.{name}"] = style
    if getattr(block.mlp, "gate_proj", None) is not None:
        plan["mlp.gate_proj"] = ColwiseParallel()
    if first:
        plan[""] = PrepareModuleInput(
            input_layouts=(whole, as_it_is, as_it_is),
            desired_input_layouts=(own, as_it_is, as_it_is),
            use_local_output=True,
        )
    return plan
