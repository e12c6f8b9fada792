"""How a model and its batch are laid out over devices, and which layouts fit together at all.

Not for what a layout costs (`memory`, `timing`), nor for choosing one (`candidates`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from isoflop.models.config import DecoderConfig

Recompute = Literal["none", "selective", "full"]
RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")
LARGEST_MICRO_BATCH = 64


@dataclass(frozen=True)
class Layout:
    """Devices along each axis, and what one of them works on at a time.

    Axes from the fastest link outwards: tensor, context, sharded data, replicated data, pipeline.
    """

    dp: int = 1
    """Replicas of whole (sharded) models."""
    fsdp: int = 1
    """Devices that a replica's parameters, gradients and optimizer states are sharded over."""
    tp: int = 1
    """Tensor parallel, with sequence parallel between its matrix products."""
    pp: int = 1
    """Pipeline stages, scheduled one forward, one backward."""
    ep: int = 1
    """Expert parallel; 1, for the models planned here are dense."""
    cp: int = 1
    """Context parallel: devices that one sequence is cut over (ring attention)."""
    micro_batch: int = 1
    """Sequences of one forward and backward pass on each data-parallel rank."""
    zero: int = 3
    """3: all states sharded, parameters gathered for every pass. 1: only optimizer states sharded,
    gradients reduced once a step (Rajbhandari et al. 2020)."""
    interleave: int = 1
    """Pieces of the model on each stage (interleaved schedule); divides the pipeline's bubble."""
    recompute: Recompute = "none"
    """What the backward pass computes again: nothing; all but the results of matrix products and
    attention (`selective`); the whole block from its input (`full`)."""

    @property
    def devices(self) -> int:
        """All devices."""
        return self.dp * self.fsdp * self.tp * self.pp * self.cp

    @property
    def data_ranks(self) -> int:
        """Ranks that see different sequences."""
        return self.dp * self.fsdp

    def micro_steps(self, batch_sequences: int) -> int:
        """Forward and backward passes of a step on each rank."""
        return batch_sequences // (self.data_ranks * self.micro_batch)

    def to_dict(self) -> dict[str, Any]:
        """The layout document of a plan."""
        return asdict(self)


def layouts(
    config: DecoderConfig, devices: int, per_node: int, batch_sequences: int
) -> Iterator[Layout]:
    """Every layout of these devices that divides the model and the batch.

    Tensor and context parallel stay within a node, as in practice: both wait for the link in every
    layer. Pipelines only cross nodes. Sharding groups
    are one node's data-parallel devices, 8 or 64 nodes', and all.
    """
    for tp in _divisors(min(per_node, devices), config.n_kv_heads):
        for cp in _powers(per_node // tp, config.max_seq_len // 8192):
            for pp in _divisors(devices // (tp * cp), config.n_layers):
                if devices % (tp * cp * pp) or (pp > 1 and devices <= per_node):
                    continue
                data = devices // (tp * cp * pp)
                node = max(1, per_node // (tp * cp))
                for fsdp in sorted({1, data, *_groups(node, data)}):
                    shape = Layout(dp=data // fsdp, fsdp=fsdp, tp=tp, pp=pp, cp=cp)
                    yield from _passes(shape, config.n_layers // pp, batch_sequences)


def _passes(shape: Layout, blocks: int, batch_sequences: int) -> Iterator[Layout]:
    """The layouts of one shape; `blocks` is the depth of a stage."""
    for micro in _powers(LARGEST_MICRO_BATCH, LARGEST_MICRO_BATCH):
        passes, rest = divmod(batch_sequences, shape.data_ranks * micro)
        if rest or passes < shape.pp:
            continue
        # The interleaved schedule hands out passes in rounds of all stages.
        pieces = _divisors(4, blocks) if shape.pp > 1 and passes % shape.pp == 0 else [1]
        for zero in (1, 3) if shape.fsdp * shape.cp > 1 else (1,):
            for recompute in RECOMPUTE:
                yield replace(
                    shape, micro_batch=micro, zero=zero, recompute=recompute, interleave=pieces[-1]
                )


def _groups(node: int, data: int) -> list[int]:
    """One node's data-parallel devices, and 8, 64 … nodes', where these divide all."""
    found = []
    while node < data:
        if data % node == 0:
            found.append(node)
        node *= 8
    return found


def _divisors(most: int, of: int) -> list[int]:
    """Powers of two (and `of`'s own divisors up to `most`) that divide `of`."""
    return [n for n in range(1, most + 1) if of % n == 0]


def _powers(most: int, limit: int) -> list[int]:
    """1, 2, 4 … up to both."""
    found = [1]
    while found[-1] * 2 <= min(most, limit):
        found.append(found[-1] * 2)
    return found
