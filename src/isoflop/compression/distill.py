"""Learning from a larger model: its distributions and its streams as a loss for the one loop.

Not for which shape the smaller model has (`student.py`) nor for how well it does (`measure.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.data.loader import IGNORED
from isoflop.models.decoder import Decoder
from isoflop.models.moe import auxiliary_loss
from isoflop.training.objectives import TokenBatch


class Student(nn.Module):
    """A decoder that is trained, with a map from each of its layers' streams to the teacher's.

    Args:
        decoder: It is trained in place.
        teacher_width: Of the teacher's stream; None where streams are not compared.
    """

    def __init__(self, decoder: Decoder, teacher_width: int | None) -> None:
        super().__init__()
        self.decoder = decoder
        width = decoder.config.d_model
        self.maps = nn.ModuleList()
        if teacher_width is not None:
            for _ in decoder.layers:
                one = nn.Linear(width, teacher_width, bias=False)
                with torch.no_grad():  # nothing random: the same in every run
                    one.weight.copy_(torch.eye(teacher_width, width))
                self.maps.append(one)


def distillation_loss(
    teacher: Decoder, teacher_weight: float, temperature: float, hidden_weight: float
) -> Callable[[Student, TokenBatch], Tensor]:
    """The loss of a batch, summed over its N valid labels, in nats (Hinton et al. 2015):

    (1 − w) Σ −log q(label) + w T² Σ KL(p_T ‖ q_T) + h Σ ‖map(student's stream) − teacher's‖² / ‖·‖²

    with p_T and q_T the softmax of the teacher's and the student's logits over T. The last term
    (Romero et al. 2015) compares the stream after each layer of the student with that after the
    teacher's layer at the same share of its depth, relative to the teacher's mean square.
    """
    teacher = teacher.requires_grad_(False).eval()

    def loss(student: Student, batch: TokenBatch) -> Tensor:
        counted = batch.labels_BT != IGNORED
        with ExitStack() as watching:
            own: list[Tensor] = []
            theirs: list[Tensor] = []
            if hidden_weight:
                watching.callback(_keep_streams(student.decoder, own))
                watching.callback(_keep_streams(teacher, theirs))
            x_BTD, routing = student.decoder.routed(batch.ids_BT, batch.document_BT)
            with torch.no_grad():
                known_BTV = teacher(batch.ids_BT, batch.document_BT) if teacher_weight else None
                if hidden_weight and known_BTV is None:
                    teacher.hidden(batch.ids_BT, batch.document_BT)
        logits_NV = student.decoder.lm_head(x_BTD[counted]).float()
        hard = F.cross_entropy(logits_NV, batch.labels_BT[counted], reduction="sum")
        total: Tensor = (1 - teacher_weight) * hard
        if known_BTV is not None:
            wanted_NV = (known_BTV[counted].float() / temperature).log_softmax(-1)
            found_NV = (logits_NV / temperature).log_softmax(-1)
            soft = F.kl_div(found_NV, wanted_NV, reduction="sum", log_target=True)
            total = total + teacher_weight * temperature**2 * soft
        for number, one in enumerate(own):
            at = -(-(number + 1) * len(theirs) // len(own)) - 1
            total = total + hidden_weight * _distance(
                student.maps[number](one), theirs[at], counted
            )
        if student.decoder.config.experts is not None:
            auxiliary = auxiliary_loss(routing, student.decoder.config.experts)
            total = total + (auxiliary - auxiliary.detach())
        return total

    return loss


def _distance(own_BTD: Tensor, their_BTD: Tensor, counted_BT: Tensor) -> Tensor:
    own_ND, their_ND = own_BTD[counted_BT], their_BTD[counted_BT]
    return (own_ND - their_ND).square().sum() / their_ND.square().sum(1).mean()


def _keep_streams(decoder: Decoder, kept: list[Tensor]) -> Callable[[], None]:
    """Append the stream after each layer to `kept`, until the function returned is called."""

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        kept.append(output[0])

    handles = [block.register_forward_hook(keep) for block in decoder.layers]

    def stop() -> None:
        for handle in handles:
            handle.remove()

    return stop
