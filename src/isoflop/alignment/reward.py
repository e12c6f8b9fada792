"""The loss of a reward model and what is reported of one; not the model (a decoder with a head)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(
    chosen_B: Tensor, rejected_B: Tensor, margin_B: Tensor | None = None, centring: float = 0.0
) -> Tensor:
    """−log σ(r_chosen − r_rejected − margin) + centring·(r_chosen + r_rejected)², a mean.

    Bradley & Terry (1952); the margin of graded preferences as in Llama 2 (Touvron et al. 2023,
    equation 2); the centring of Eisenstein et al. (2023), since the first term knows rewards only
    up to a constant.

    Fixed point: differences of rewards are the log odds of the labels, plus the margin.

    Args:
        chosen_B: Scores of the preferred answers.
        margin_B: How far apart the two should be at least, in units of reward.
        centring: Weight of the pull towards a mean of 0.
    """
    difference_B = chosen_B - rejected_B
    if margin_B is not None:
        difference_B = difference_B - margin_B
    loss = -F.logsigmoid(difference_B).mean()
    return loss + centring * (chosen_B + rejected_B).square().mean() if centring else loss
