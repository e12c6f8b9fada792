"""Whole layers, heads and neurons taken out of a decoder: those whose part in the stream is least.

Not for zeros among the weights (`prune.py`) nor for the training that heals it (`student.py`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from isoflop.compression.gptq import batches_of, input_moments, plain_copy, through
from isoflop.compression.measure import window_losses
from isoflop.compression.recipe import StudentConfig
from isoflop.core.errors import RecipeError
from isoflop.data.loader import Windows
from isoflop.models.build import build_model
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Attention, Decoder, FeedForward


@torch.no_grad()
def drop_parts(decoder: Decoder, student: StudentConfig, windows: Windows) -> Decoder:
    """A smaller decoder with the weights of the parts that are kept.

    A layer is judged by what the loss grows without it alone; a key–value head (with its queries)
    and a neuron by the squared norm of what it adds to the stream, over `windows`: the sum over
    tokens of ‖W x‖² of its own columns W of the output matrix and inputs x. All layers keep as many
    heads and neurons, for the shape has one number for each.

    Raises:
        RecipeError: The shape does not allow it, or a share takes everything or nothing out.
    """
    config = decoder.config
    smaller = dropped_config(config, student)
    layers = kept_layers(decoder, smaller.n_layers, windows)
    heads, neurons = part_norms(decoder, windows)
    kept = build_model(smaller)
    if not isinstance(kept, Decoder):
        raise TypeError("the shape of a decoder made another model")
    own = dict(decoder.named_parameters())
    queries = config.n_heads // config.n_kv_heads * config.head_dim
    for name, parameter in kept.named_parameters():
        words = name.split(".")
        if words[0] != "layers":
            parameter.copy_(own[name])
            continue
        layer = layers[int(words[1])]
        value = own[".".join(["layers", str(layer), *words[2:]])].detach()
        if smaller.n_kv_heads != config.n_kv_heads and words[3] in _HEAD_AXIS:
            groups = _largest(heads[layer], smaller.n_kv_heads)
            size = config.head_dim if words[3] in ("k_proj", "v_proj") else queries
            value = _parts(value, groups, size, _HEAD_AXIS[words[3]])
        if smaller.d_ff != config.d_ff and words[3] in _NEURON_AXIS:
            value = _parts(value, _largest(neurons[layer], smaller.d_ff), 1, _NEURON_AXIS[words[3]])
        parameter.copy_(value)
    return kept.eval()


_HEAD_AXIS = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1}
_NEURON_AXIS = {"gate_proj": 0, "up_proj": 0, "down_proj": 1}


def dropped_config(config: DecoderConfig, student: StudentConfig) -> DecoderConfig:
    """The shape that is left; inner widths stay multiples of 32 where they were.

    Raises:
        RecipeError: The shape does not allow it, or nothing would change.
    """
    layers = _left(config.n_layers, student.drop_layers)
    groups = _left(config.n_kv_heads, student.drop_heads)
    inner = _left(config.d_ff, student.drop_neurons)
    if config.d_ff % 32 == 0 and student.drop_neurons:
        inner = min(config.d_ff, math.ceil(inner / 32) * 32)
    problems = []
    if student.drop_heads and config.positions in ("alibi", "relative"):
        problems.append(f"heads differ by their places with positions = {config.positions}")
    if student.drop_neurons and config.experts is not None:
        problems.append("neurons of experts are not dropped: student.drop_neurons = 0")
    asked = (
        (student.drop_layers, layers, config.n_layers, "layers"),
        (student.drop_heads, groups, config.n_kv_heads, "key-value heads"),
        (student.drop_neurons, inner, config.d_ff, "neurons"),
    )
    for share, left, total, what in asked:
        if share and left == total and not problems:
            problems.append(f"a share of {share:g} takes none of the {total} {what} out")
    if problems:
        raise RecipeError("; ".join(problems), where="compress")
    return replace(
        config,
        n_layers=layers,
        n_kv_heads=groups,
        n_heads=groups * (config.n_heads // config.n_kv_heads),
        d_ff=inner,
    )


def kept_layers(decoder: Decoder, count: int, windows: Windows) -> list[int]:
    """The layers to keep, in order: taken out one by one, each time the one without which the loss
    over `windows` is least."""
    left = list(range(decoder.config.n_layers))
    while len(left) > count:
        losses = {}
        for layer in left:
            without = [other for other in left if other != layer]
            losses[layer] = float(window_losses(_with_layers(decoder, without), windows).sum())
        left.remove(min(left, key=lambda layer: losses[layer]))
    return left


def _with_layers(decoder: Decoder, layers: Sequence[int]) -> Decoder:
    """A decoder of some of the layers, which it shares."""
    view = copy.copy(decoder)
    view._modules = dict(decoder._modules)
    view.layers = nn.ModuleList(decoder.layers[layer] for layer in layers)
    return view


def part_norms(decoder: Decoder, windows: Windows) -> tuple[list[Tensor], list[Tensor]]:
    """Of each layer, (key–value heads,) and (neurons,): the squared norms of what they add to the
    stream, summed over the tokens; no neurons of experts."""
    work = plain_copy(decoder)
    config = decoder.config
    streams = [(work.embed(ids, 0, document), document) for ids, document in batches_of(windows)]
    heads: list[Tensor] = []
    neurons: list[Tensor] = []
    for block in work.layers:
        moments = input_moments(work, block, streams)
        attention, inner = block.self_attn, block.mlp
        if isinstance(attention, Attention):
            out_DC = attention.o_proj.weight.double()
            # tr(W M Wᵀ) of each head's columns W and their own moment M.
            size = config.n_heads // config.n_kv_heads * config.head_dim
            spans = [slice(at, at + size) for at in range(0, out_DC.shape[1], size)]
            moment_CC = moments["self_attn.o_proj"]
            heads.append(
                torch.stack(
                    [
                        ((out_DC[:, span] @ moment_CC[span, span]) * out_DC[:, span]).sum()
                        for span in spans
                    ]
                )
            )
        if isinstance(inner, FeedForward):
            squares_F = inner.down_proj.weight.double().square().sum(0)
            neurons.append(squares_F * moments["mlp.down_proj"].diagonal())
        streams = [(through(work, block, x, document), document) for x, document in streams]
    return heads, neurons


def _left(total: int, share: float) -> int:
    return max(1, total - round(total * share))


def _largest(scores: Tensor, count: int) -> Tensor:
    """The places of the `count` largest, in order."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values


def _parts(value: Tensor, kept: Tensor, size: int, axis: int) -> Tensor:
    """Some of the equal parts, `size` long, along an axis; an output's bias has no such."""
    if axis >= value.ndim:
        return value
    rows = (kept[:, None] * size + torch.arange(size)).flatten()
    return value.index_select(axis, rows)
