"""Expert parallel: the experts of a layer lie on different ranks, and tokens travel to them.

By all-to-all, each token to the ranks of its own experts and back (Lepikhin et al. 2021), and not
by gathering all tokens everywhere: of what a rank sends, it is top_k / ep of the tokens that others
need, and no rank holds the tokens of all. Not for routing, which each rank does for its own tokens
(`models/moe.py`).

Shape suffixes: N rows, D model width, E experts of all ranks, e of this one, X choices of a token,
M = N · X rows on their way out, R rows that came in.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from isoflop.models.moe import Experts, MixtureOfExperts, expert_products


def deal_experts(layers: nn.Module, mesh: DeviceMesh) -> None:
    """Deal the experts of every layer over the ranks of a one-axis mesh, in place."""
    for module in layers.modules():
        if isinstance(module, MixtureOfExperts) and isinstance(module.experts, Experts):
            module.experts = ExpertsOfRanks(module.experts, mesh)  # type: ignore[assignment]


class ExpertsOfRanks(nn.Module):
    """The weights of a rank's experts, under the names that those of all experts have.

    Args:
        experts: All of them, the same on all ranks.
        mesh: The ranks, in one axis.
    """

    def __init__(self, experts: Experts, mesh: DeviceMesh) -> None:
        super().__init__()
        self._mesh, self._n_experts = mesh, len(experts.gate_proj)
        for name, weight in experts.named_parameters():
            own = distribute_tensor(weight.detach(), mesh, [Shard(0)])
            setattr(self, name, nn.Parameter(own))

    def forward(self, x_ND: Tensor, index_NX: Tensor, share_NX: Tensor) -> Tensor:
        """(N, D): each token's experts, weighted by their shares."""
        chosen_M = index_NX.flatten()
        order_M = chosen_M.argsort(stable=True)  # by expert, and so by rank
        sent_E = torch.bincount(chosen_M, minlength=self._n_experts)
        group, ranks = self._mesh.get_group(), self._mesh.size()
        came_E = torch.empty_like(sent_E)
        dist.all_to_all_single(came_E, sent_E, group=group)
        sent, came = (n.view(ranks, -1).sum(1).tolist() for n in (sent_E, came_E))
        x_MD = x_ND.index_select(0, order_M // index_NX.shape[1])
        # Shares travel as one more column: weighted there, a row has the bits of one process.
        rows = torch.cat((x_MD, share_NX.flatten()[order_M, None]), dim=1)
        rows_R = _exchange(rows, sent, came, group)
        # They came rank by rank, of each by expert: now by expert.
        experts_e = torch.arange(self._n_experts // ranks, device=x_ND.device)
        expert_R = experts_e.repeat(ranks).repeat_interleave(came_E)
        order_R = expert_R.argsort(stable=True)
        counts_e = came_E.view(ranks, -1).sum(0)
        x_RD, share_R = torch.split(rows_R.index_select(0, order_R), [x_ND.shape[1], 1], dim=1)
        # Copied also where it is a single row, whose stride would still be that of the wider rows.
        x_RD = x_RD.clone(memory_format=torch.contiguous_format)
        out_RD = expert_products(x_RD, self._weights(), counts_e, share_R)
        out_MD = _exchange(out_RD.index_select(0, _inverse(order_R)), came, sent, group)
        return out_MD.index_select(0, _inverse(order_M)).view(*index_NX.shape, -1).sum(1)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        own = [getattr(self, name) for name in ("gate_proj", "up_proj", "down_proj")]
        gate, up, down = (w.to_local() if isinstance(w, DTensor) else w for w in own)
        return gate, up, down


class _Exchange(torch.autograd.Function):
    """Rows to other ranks and theirs to this one; the gradients the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: list[int], came: list[int], group: Any) -> Tensor:
        ctx.sent, ctx.came, ctx.group = sent, came, group
        return _exchanged(x, sent, came, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _exchanged(gradients[0], ctx.came, ctx.sent, ctx.group), None, None, None


def _exchange(x: Tensor, sent: list[int], came: list[int], group: Any) -> Tensor:
    found: Tensor = _Exchange.apply(x, sent, came, group)  # type: ignore[no-untyped-call]
    return found


def _exchanged(x: Tensor, sent: list[int], came: list[int], group: Any) -> Tensor:
    found = x.new_empty(sum(came), *x.shape[1:])
    dist.all_to_all_single(found, x.contiguous(), came, sent, group=group)
    return found


def _inverse(order: Tensor) -> Tensor:
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return back
