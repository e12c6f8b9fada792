"""Which layers of a model a rank of the pipeline holds; not for passing them (`pipeline.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from isoflop.models.decoder import Decoder
from isoflop.training.parallel.recipe import ParallelConfig


def dealt_layers(parallel: ParallelConfig, rank: int, n_layers: int) -> list[range]:
    """The layers of each stage that a rank of the pipeline holds: of all stages, every pp-th."""
    stages = parallel.pp * parallel.interleave
    each = n_layers // stages
    return [range(n * each, (n + 1) * each) for n in range(rank, stages, parallel.pp)]


def keep_layers(model: Decoder, stages: Sequence[range]) -> None:
    """Leave of a model, in place, what these stages need; all names stay as they are."""
    config, kept = model.config, {number for stage in stages for number in stage}
    is_first, is_last = 0 in kept, config.n_layers - 1 in kept
    for number in range(config.n_layers):
        if number not in kept:
            model.layers[number] = nn.Identity()
    if not is_last:
        model.norm = None
        model.lm_head = nn.Identity()  # type: ignore[assignment]
    if not is_first:
        model.embed_positions = None
        if not (is_last and config.tie_embeddings):
            model.embed_tokens = nn.Identity()  # type: ignore[assignment]
