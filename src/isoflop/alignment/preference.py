"""Losses on preference pairs and on rated answers: the family of DPO; not where pairs come from.

All take log-probabilities of whole answers, sums over their tokens in nats, of the policy π and of
the frozen reference π_ref, and return the mean over the batch. With β·log(π/π_ref) an answer's
*implicit reward*, its difference between chosen and rejected is the *margin*.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PairLogprobs:
    """Log-probabilities of a batch of preference pairs."""

    chosen_B: Tensor
    """log π of the chosen answers, nats."""
    rejected_B: Tensor
    chosen_ref_B: Tensor
    """log π_ref of the same; computed once, without a gradient."""
    rejected_ref_B: Tensor

    def ratio_B(self) -> Tensor:
        """Chosen minus rejected log(π/π_ref): the margin over β."""
        policy = self.chosen_B - self.rejected_B
        return policy - (self.chosen_ref_B - self.rejected_ref_B)


def dpo_loss(pairs: PairLogprobs, beta: float, label_smoothing: float | Tensor = 0.0) -> Tensor:
    """Direct preference optimisation, −(1 − ε)·log σ(m) − ε·log σ(−m) with margin m.

    Rafailov et al. (2023), equation 7; with ε, "conservative" DPO (Mitchell 2023): a share ε of
    the labels is taken to be wrong.

    Fixed point: for labels drawn from rewards r by Bradley–Terry, m = r_chosen − r_rejected, whose
    policy is π* ∝ π_ref·exp(r/β). Where each pair occurs with one label only, m grows without
    bound at ε = 0 and ends at logit(1 − ε) otherwise.

    Args:
        label_smoothing: ε, one for all pairs or one for each, (B,).
    """
    margin_B = beta * pairs.ratio_B()
    agree_B, disagree_B = F.logsigmoid(margin_B), F.logsigmoid(-margin_B)
    return -((1 - label_smoothing) * agree_B + label_smoothing * disagree_B).mean()


def ipo_loss(pairs: PairLogprobs, tau: float) -> Tensor:
    """Identity preference optimisation, (h − 1/(2τ))² with h = log(π/π_ref) chosen less rejected.

    Azar et al. (2024), equation 17. Fixed point: h = 1/(2τ) for pairs with one label, so that a
    certain preference does not drive the policy away from the reference.
    """
    return (pairs.ratio_B() - 1 / (2 * tau)).square().mean()


def hinge_loss(pairs: PairLogprobs, beta: float) -> Tensor:
    """max(0, 1 − m) with margin m (SLiC-HF with a reference; Zhao et al. 2023).

    Fixed point: every margin at least 1; a pair that has one no longer pulls.
    """
    return F.relu(1 - beta * pairs.ratio_B()).mean()


def simpo_loss(
    chosen_B: Tensor, rejected_B: Tensor, lengths: tuple[Tensor, Tensor], beta: float, gamma: float
) -> Tensor:
    """Reference-free, −log σ(β·(mean log π chosen − mean log π rejected) − γ).

    Meng, Xia & Chen (2024), equation 6. The means are per token, so that length is not rewarded.
    No fixed point with one-sided labels: it is stopped by the number of steps.

    Args:
        lengths: Supervised tokens of the chosen and of the rejected answers, each (B,).
    """
    margin_B = beta * (chosen_B / lengths[0] - rejected_B / lengths[1]) - gamma
    return -F.logsigmoid(margin_B).mean()


def kto_loss(
    logprobs_B: Tensor,
    reference_B: Tensor,
    desirable_B: Tensor,
    kl: Tensor,
    beta: float,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """Kahneman–Tversky optimisation for single rated answers, λ·(1 − σ(±(β·log(π/π_ref) − β·z))).

    Ethayarajh et al. (2024), equation 8: plus for desirable answers, minus for others. z is the
    policy's divergence from the reference, estimated without a gradient on mismatched
    prompt–answer pairs of the batch and not below 0.

    Args:
        desirable_B: Booleans.
        kl: The estimate of z, nats, a scalar.
        weights: λ of desirable and of undesirable answers; the loss is balanced where they are
            inverse to their numbers.
    """
    z = kl.detach().clamp_min(0.0)
    sign_B = torch.where(desirable_B, 1.0, -1.0)
    value_B = torch.sigmoid(sign_B * beta * (logprobs_B - reference_B - z))
    weight_B = torch.where(desirable_B, weights[0], weights[1])
    return (weight_B * (1 - value_B)).mean()
