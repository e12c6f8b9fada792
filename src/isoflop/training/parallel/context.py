"""Context parallel: each rank holds some positions of every sequence, and keys and values go round.

Ring attention (Liu et al. 2023), exact: shares are merged by their log-sum-exp as blocks pass by
(Milakov & Gimelshein 2018), and the backward pass sends the gradients of keys and values along with
them. A rank holds one early and one late piece of the sequence, and pairs of pieces that the causal
mask hides are passed over, so that all have the same work (Brandon et al. 2023 have the reason).
Scores are plain matrix products, one pair of pieces at a time. Not for other axes (`apply.py`).

Shape suffixes: B batch, t positions of this rank, s those of another, H query heads, G key–value
heads, K head width, P rotary pairs, T all positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from isoflop.models.layers import RotaryPositions


def positions(rank: int, ranks: int, length: int) -> Tensor:
    """(t,) the positions of a rank: pieces `rank` and `2 · ranks − 1 − rank` of `2 · ranks`."""
    pieces = torch.arange(length).chunk(2 * ranks)
    return torch.cat((pieces[rank], pieces[2 * ranks - 1 - rank]))


@dataclass(frozen=True)
class Ring:
    """The ranks that a sequence is cut over, in the order in which blocks go round."""

    group: dist.ProcessGroup
    rank: int
    size: int

    def passed_on(self, blocks: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the rank before has, once the next one has these."""
        after = dist.get_global_rank(self.group, (self.rank + 1) % self.size)
        before = dist.get_global_rank(self.group, (self.rank - 1) % self.size)
        blocks = tuple(block.contiguous() for block in blocks)
        found = tuple(torch.empty_like(block) for block in blocks)
        sending = [dist.P2POp(dist.isend, block, after, self.group) for block in blocks]
        coming = [dist.P2POp(dist.irecv, block, before, self.group) for block in found]
        for work in dist.batch_isend_irecv([*sending, *coming]):
            work.wait()
        return found


class Context:
    """The positions that this rank holds, and attention over all of them.

    Args:
        mesh: The ranks, in one axis.
        rotary: The angles of all positions.
        length: Positions of a sequence; 2 · ranks divides it.
    """

    def __init__(self, mesh: DeviceMesh, rotary: RotaryPositions, length: int) -> None:
        self.ring = Ring(mesh.get_group(), mesh.get_local_rank(), mesh.size())
        device = rotary.cos_PT.device
        self._at = [positions(r, mesh.size(), length).to(device) for r in range(mesh.size())]
        self.own_t = self._at[self.ring.rank]
        self.rotary = _Turns(rotary.cos_PT[:, self.own_t], rotary.sin_PT[:, self.own_t])

    def attention(self, document_BT: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        """Attention of each token to itself and earlier tokens of its document."""
        masks: dict[int, Tensor] = {}

        def hidden(rank: int) -> Tensor:
            """(B, 1, 1, t, s) what the own tokens must not look at among those of a rank."""
            if rank not in masks:
                own_t, other_s = self.own_t, self._at[rank]
                later_ts = other_s[None, :] > own_t[:, None]
                apart_Bts = document_BT[:, own_t, None] != document_BT[:, None, other_s]
                masks[rank] = (later_ts | apart_Bts)[:, None, None]
            return masks[rank]

        def attend(q_BHtK: Tensor, k_BGtK: Tensor, v_BGtK: Tensor) -> Tensor:
            wide = torch.promote_types(q_BHtK.dtype, torch.float32)  # sums of shares
            q, k, v = (x.to(wide) for x in (q_BHtK, k_BGtK, v_BGtK))
            with torch.autocast(q.device.type, enabled=False):
                mixed: Tensor = _RingAttention.apply(  # type: ignore[no-untyped-call]
                    q, k, v, hidden, self.ring
                )
            return mixed.to(v_BGtK.dtype)

        return attend


class _Turns(RotaryPositions):
    """The angles of some positions, as if they were the first ones."""

    def __init__(self, cos_Pt: Tensor, sin_Pt: Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.cos_PT, self.sin_PT = cos_Pt, sin_Pt


class _RingAttention(torch.autograd.Function):
    """Own queries over the keys and values of all ranks; those of one rank at a time lie here."""

    @staticmethod
    def forward(
        ctx: Any, q_BHtK: Tensor, k_BGtK: Tensor, v_BGtK: Tensor, hidden: Any, ring: Ring
    ) -> Tensor:
        q = _by_group(q_BHtK, k_BGtK.shape[1])
        passing: tuple[Tensor, ...] = (k_BGtK, v_BGtK)
        # What each query's shares are measured against, their sum, and what they weigh so far.
        top = q.new_full((*q.shape[:-1], 1), -torch.inf)
        total, mixed = torch.zeros_like(top), torch.zeros_like(q)
        for step in range(ring.size):
            k, v = (block[:, :, None] for block in passing)
            other = (ring.rank - step) % ring.size
            for own, theirs in _pairs(ring, other, q.shape[-2]):
                mask = hidden(other)[..., own, theirs]
                scores = _scores(q[..., own, :], k[..., theirs, :], mask)
                # Of its own piece, which comes first, a token sees itself: a number from there on.
                before = top[..., own, :]
                higher = torch.maximum(before, scores.amax(-1, keepdim=True))
                share, shrink = (scores - higher).exp_(), (before - higher).exp_()
                total[..., own, :] = total[..., own, :] * shrink + share.sum(-1, keepdim=True)
                mixed[..., own, :] = mixed[..., own, :] * shrink + share @ v[..., theirs, :]
                top[..., own, :] = higher
            if step + 1 < ring.size:
                passing = ring.passed_on(passing)
        mixed = mixed / total
        ctx.save_for_backward(q, k_BGtK, v_BGtK, mixed, top + total.log())
        ctx.hidden, ctx.ring = hidden, ring
        return mixed.flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k_BGtK, v_BGtK, mixed, norm = ctx.saved_tensors
        ring: Ring = ctx.ring
        d_mixed = gradients[0].view_as(mixed)
        inner = (d_mixed * mixed).sum(-1, keepdim=True)
        scale, d_q = 1 / math.sqrt(q.shape[-1]), torch.zeros_like(q)
        passing: tuple[Tensor, ...] = (
            k_BGtK, v_BGtK, torch.zeros_like(k_BGtK), torch.zeros_like(v_BGtK),
        )  # fmt: skip
        for step in range(ring.size):
            k, v = (block[:, :, None] for block in passing[:2])
            d_k, d_v = passing[2:]
            other = (ring.rank - step) % ring.size
            for own, theirs in _pairs(ring, other, q.shape[-2]):
                query, d_out = q[..., own, :], d_mixed[..., own, :]
                mask = ctx.hidden(other)[..., own, theirs]
                share = _scores(query, k[..., theirs, :], mask)
                share = (share - norm[..., own, :]).exp_()
                d_scores = share * (d_out @ v[..., theirs, :].mT - inner[..., own, :]) * scale
                d_q[..., own, :] += d_scores @ k[..., theirs, :]
                d_k[..., theirs, :] += (d_scores.mT @ query).sum(2)
                d_v[..., theirs, :] += (share.mT @ d_out).sum(2)
            # Once more than the keys and values went on: their gradients come home.
            passing = ring.passed_on((*passing[:2], d_k, d_v))
        return d_q.flatten(1, 2), passing[2], passing[3], None, None


def _pairs(ring: Ring, other: int, length: int) -> Iterator[tuple[slice, slice]]:
    """Pieces of the own positions, each with those of another rank of which it sees something; its
    own piece before earlier ones."""
    half, last = length // 2, 2 * ring.size - 1
    parts = slice(0, half), slice(half, length)
    for own, number in zip(parts, (ring.rank, last - ring.rank), strict=True):
        for theirs, their_number in zip(parts[::-1], (last - other, other), strict=True):
            if their_number <= number:
                yield own, theirs


def _by_group(x_BHtK: Tensor, groups: int) -> Tensor:
    """(B, G, H/G, t, K): queries by the key–value head that they read."""
    return torch.unflatten(x_BHtK, 1, (groups, -1))


def _scores(q: Tensor, k: Tensor, hidden: Tensor) -> Tensor:
    """(B, G, H/G, t, s)."""
    return (q @ k.mT).mul_(1 / math.sqrt(q.shape[-1])).masked_fill_(hidden, -torch.inf)
