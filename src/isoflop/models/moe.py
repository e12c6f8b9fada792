"""A mixture of experts as feed-forward part, its auxiliary losses, and how its experts are used.

Top-k routing of every token without a capacity, so that none is dropped (the form of Qwen3-MoE
and Mixtral), and optional shared experts (DeepSeekMoE). Not for the decoder around it.

Shape suffixes: B batch, T time, N = B·T rows, D model width, F width of one expert, E experts,
X = top_k choices of a token, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.models.config import ExpertsConfig

ALIGNED_BYTES = 16
"""Rows that torch's grouped product takes begin at multiples of this."""


class Routing(NamedTuple):
    """Where one layer sent the tokens of each window, summed over the window's positions."""

    assigned_BE: Tensor
    """How many choices fell on each expert; they add up to T · top_k. Without gradient."""
    probability_BE: Tensor
    """The router's probability of each expert; they add up to T."""
    z_B: Tensor
    """(log Σ exp(router logits))²."""


class Router(nn.Module):
    """A linear layer whose softmax is each expert's probability."""

    def __init__(self, d_model: int, experts: ExpertsConfig) -> None:
        super().__init__()
        self.top_k, self.normalise = experts.top_k, experts.normalise
        self.weight = nn.Parameter(torch.empty(experts.n_experts, d_model))

    def forward(self, h_BTD: Tensor) -> tuple[Tensor, Tensor, Routing]:
        """Chosen experts and their shares, (N, X) each, and what the losses need."""
        # Shares are compared and summed: float32 at least, as in every published router.
        wide = torch.promote_types(h_BTD.dtype, torch.float32)
        with torch.autocast(h_BTD.device.type, enabled=False):
            logits_BTE = F.linear(h_BTD, self.weight)
        probability_BTE = logits_BTE.softmax(-1, dtype=wide)
        share_BTX, index_BTX = probability_BTE.topk(self.top_k, dim=-1)
        if self.normalise:
            share_BTX = share_BTX / share_BTX.sum(-1, keepdim=True)
        with torch.no_grad():
            assigned_BE = torch.zeros_like(probability_BTE[:, 0])
            chosen_BN = index_BTX.flatten(1)
            assigned_BE.scatter_add_(1, chosen_BN, torch.ones_like(chosen_BN, dtype=wide))
        z_B = logits_BTE.to(wide).logsumexp(-1).square().sum(-1)
        routing = Routing(assigned_BE, probability_BTE.sum(1), z_B)
        return index_BTX.flatten(0, 1), share_BTX.flatten(0, 1).to(h_BTD.dtype), routing


class Experts(nn.Module):
    """The weights of all routed experts, stacked: expert e is a SwiGLU of its own."""

    def __init__(self, d_model: int, experts: ExpertsConfig) -> None:
        super().__init__()
        n, width = experts.n_experts, experts.d_expert
        self.gate_proj = nn.Parameter(torch.empty(n, width, d_model))
        self.up_proj = nn.Parameter(torch.empty(n, width, d_model))
        self.down_proj = nn.Parameter(torch.empty(n, d_model, width))

    def forward(self, x_ND: Tensor, index_NX: Tensor, share_NX: Tensor) -> Tensor:
        """(N, D): each token's experts, weighted by their shares."""
        chosen = index_NX.flatten()
        # Tokens side by side for each expert; among those of one expert, in their own order.
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=len(self.gate_proj))
        sorted_x = x_ND.index_select(0, order // index_NX.shape[1])
        weights = self.gate_proj, self.up_proj, self.down_proj
        out = expert_products(sorted_x, weights, counts, share_NX.flatten()[order, None])
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return out.index_select(0, back).view(*index_NX.shape, -1).sum(1)


def expert_products(
    x: Tensor, weights: tuple[Tensor, Tensor, Tensor], counts_E: Tensor, share: Tensor | None = None
) -> Tensor:
    """Rows sorted by expert, each through the SwiGLU of its own: (rows, D), times `share`.

    Args:
        weights: Gate and up (E, F, D), down (E, D, F).
    """
    gate, up, down = weights
    inner = F.silu(grouped_product(x, gate, counts_E)) * grouped_product(x, up, counts_E)
    if share is not None:
        inner = inner * share
    return grouped_product(inner, down, counts_E)


def grouped_product(x: Tensor, weight_EFD: Tensor, counts_E: Tensor) -> Tensor:
    """Rows sorted by expert, each times the weightᵀ of its own: (rows, D) → (rows, F).

    One kernel where torch has it for this format and these widths, else a loop over experts.
    """
    if torch.is_autocast_enabled(x.device.type):  # which does not know this product
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight_EFD = x.to(dtype), weight_EFD.to(dtype)
    known = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    if known and all(n * x.element_size() % ALIGNED_BYTES == 0 for n in weight_EFD.shape[1:]):
        ends_E = counts_E.cumsum(0).to(torch.int32)
        return F.grouped_mm(x, weight_EFD.transpose(1, 2), offs=ends_E)
    parts = torch.split(x, counts_E.tolist())
    return torch.cat([F.linear(a, b) for a, b in zip(parts, weight_EFD.unbind(0), strict=True)])


class MixtureOfExperts(nn.Module):
    """Routed experts, and shared ones as one SwiGLU of their common width."""

    def __init__(self, d_model: int, experts: ExpertsConfig) -> None:
        super().__init__()
        self.gate = Router(d_model, experts)
        self.experts = Experts(d_model, experts)
        self.shared: SharedExperts | None = None
        if experts.n_shared:
            self.shared = SharedExperts(d_model, experts.n_shared * experts.d_expert)

    def forward(self, h_BTD: Tensor) -> tuple[Tensor, Routing]:
        """What the normalised stream brings forth, (B, T, D), and where its tokens went."""
        index_NX, share_NX, routing = self.gate(h_BTD)
        out_BTD = self.experts(h_BTD.flatten(0, 1), index_NX, share_NX).view(h_BTD.shape)
        if self.shared is not None:
            out_BTD = out_BTD + self.shared(h_BTD)
        return out_BTD, routing


class SharedExperts(nn.Module):
    """Experts that every token goes to: side by side they are one SwiGLU."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(d_model, width, bias=False)
        self.up_proj = nn.Linear(d_model, width, bias=False)
        self.down_proj = nn.Linear(width, d_model, bias=False)

    def forward(self, h_BTD: Tensor) -> Tensor:
        """down(silu(gate(h)) · up(h))."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(h_BTD)) * self.up_proj(h_BTD))
        return out


# --- losses and statistics -----------------------------------------------------------------


def balance_loss(routing: Sequence[Routing]) -> Tensor:
    """Σ over windows of T · E · Σ_e f_e · p_e, averaged over layers (Fedus et al. 2022, eq. 4–6).

    f_e is the share of the window's T tokens that chose expert e (with X choices they add up to
    X), p_e its mean probability; a balanced router gives X per token. Taken window by window, as
    DeepSeek-V3 does, it is a sum over windows and so does not depend on how they are batched.
    """
    per_layer = []
    for layer in routing:
        n_experts = layer.assigned_BE.shape[-1]
        tokens_B = layer.probability_BE.sum(-1).detach()
        per_window_B = (layer.assigned_BE * layer.probability_BE).sum(-1) / tokens_B
        per_layer.append(n_experts * per_window_B.sum())
    return torch.stack(per_layer).mean()


def z_loss(routing: Sequence[Routing]) -> Tensor:
    """Σ over tokens of (log Σ exp(router logits))², averaged over layers (Zoph et al. 2022)."""
    return torch.stack([layer.z_B.sum() for layer in routing]).mean()


def auxiliary_loss(routing: Sequence[Routing], experts: ExpertsConfig) -> Tensor:
    """Both, with their coefficients: to be added to a loss that is summed over tokens."""
    loss: Tensor = experts.balance_coefficient * balance_loss(routing)
    return loss + experts.z_coefficient * z_loss(routing)


@dataclass(frozen=True)
class ExpertUse:
    """How evenly experts were used, the worst layer first in mind."""

    unused: int
    """Experts of all layers that no token chose."""
    largest_share: float
    """Most tokens of one expert over the layer's mean, in the worst layer; 1 is even."""
    entropy: float
    """Entropy of the shares over log E, in the worst layer; 1 is even, 0 is one expert."""


def count_assigned(routing: Sequence[Routing]) -> Tensor:
    """(L, E) choices that fell on each expert; those of several batches add up."""
    return torch.stack([layer.assigned_BE.sum(0) for layer in routing])


def expert_use(assigned_LE: Tensor) -> ExpertUse:
    """How evenly experts were used, from `count_assigned`."""
    share_LE = assigned_LE.double() / assigned_LE.double().sum(-1, keepdim=True)
    n_experts = share_LE.shape[-1]
    entropy_L = torch.special.entr(share_LE).sum(-1)
    even = torch.tensor(float(n_experts)).log().item() or 1.0
    return ExpertUse(
        unused=int((assigned_LE == 0).sum()),
        largest_share=share_LE.max().item() * n_experts,
        entropy=entropy_L.min().item() / even,
    )
