"""How a model and its batch are laid out over devices, and which layouts fit together at all.

Not for what a layout costs (`memory`, `timing`), nor for choosing one (`candidates`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
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
    layer. Pipelines only cross nodes. Of several sharding groups, all data-parallel devices and one
    node's are offered.
    """
    for tp in _divisors(min(per_node, devices), config.n_kv_heads):
        for cp in _powers(per_node // tp, config.max_seq_len // 8192):
            for pp in _divisors(devices // (tp * cp), config.n_layers):
                if devices % (tp * cp * pp) or (pp > 1 and devices <= per_node):
                    continue
                data = devices // (tp * cp * pp)
                node = max(1, per_node // (tp * cp))
                for fsdp in sorted({1, data, node if data % node == 0 else data}):
                    shape = (data // fsdp, fsdp, tp, pp, cp)
                    yield from _passes(shape, batch_sequences)


def _passes(shape: tuple[int, int, int, int, int], batch_sequences: int) -> Iterator[Layout]:
    dp, fsdp, tp, pp, cp = shape
    for micro in _powers(LARGEST_MICRO_BATCH, LARGEST_MICRO_BATCH):
        if batch_sequences % (dp * fsdp * micro) or batch_sequences < dp * fsdp * micro * pp:
            continue
        for zero in (1, 3) if fsdp * cp > 1 else (1,):
            for recompute in RECOMPUTE:
                yield Layout(dp, fsdp, tp, pp, 1, cp, micro, zero, recompute)


def _divisors(most: int, of: int) -> list[int]:
    """Powers of two (and `of`'s own divisors up to `most`) that divide `of`."""
    return [n for n in range(1, most + 1) if of % n == 0]


def _powers(most: int, limit: int) -> list[int]:
    """1, 2, 4 … up to both."""
    found = [1]
    while found[-1] * 2 <= min(most, limit):
        found.append(found[-1] * 2)
    return found
