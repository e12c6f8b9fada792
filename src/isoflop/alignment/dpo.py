"""Direct preference optimisation and its kin: the `Task` that learns from pairs, and its reference.

Not for the formulas (`preference.py`), for rows as ids (`pairs.py`) nor for the run around it
(`dpo_run.py`).

Shape suffixes: B pairs (or rated answers), A tokens of the longest answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isoflop.alignment.answers import AnswerRows, answer_logprobs, by_length
from isoflop.alignment.dpo_recipe import DpoConfig, DpoRecipe
from isoflop.alignment.pairs import batch_numbers
from isoflop.alignment.preference import (
    PairLogprobs,
    dpo_loss,
    hinge_loss,
    ipo_loss,
    kto_loss,
    simpo_loss,
)
from isoflop.models.decoder import Decoder
from isoflop.training.step import Task

_ROUNDING = 1e-4
"""Nats between two computations of the same log-probability."""


@dataclass(frozen=True)
class PairBatch:
    """Pairs, or rated answers with mismatched ones, ready to learn from."""

    rows: AnswerRows
    """2 B answers: all chosen, then all rejected; for KTO B answers, then B answers whose prompt
    is another's."""
    reference: Tensor
    """(2 B,) log π_ref of whole answers."""
    smoothing: Tensor | float = 0.0
    """Share of wrong labels, one for all or one for each, (B,)."""
    desirable_B: Tensor | None = None
    """Of KTO's answers, which were good."""

    @property
    def n_valid(self) -> int:
        """Pairs (or rated answers)."""
        return len(self.rows) // 2

    def take(self, numbers: Tensor) -> PairBatch:
        """Some of the pairs."""
        both = torch.cat((numbers, numbers + self.n_valid))
        smoothing, desirable_B = self.smoothing, self.desirable_B
        return PairBatch(
            self.rows.take(both),
            self.reference[both],
            smoothing[numbers] if isinstance(smoothing, Tensor) else smoothing,
            None if desirable_B is None else desirable_B[numbers],
        )


def preference_loss(config: DpoConfig, model: Decoder, batch: PairBatch) -> Tensor:
    """The recipe's loss, summed over the pairs (or rated answers)."""
    count = batch.n_valid
    whole = answer_logprobs(model, batch.rows).sum(-1)
    if batch.desirable_B is not None:
        drift = (whole[count:] - batch.reference[count:]).mean()
        weights = config.desirable_weight, config.undesirable_weight
        answers, reference = whole[:count], batch.reference[:count]
        loss = kto_loss(answers, reference, batch.desirable_B, drift, config.beta, weights)
        return loss * count
    lengths = batch.rows.lengths_B.to(whole.dtype)
    if config.loss == "simpo":
        both = lengths[:count], lengths[count:]
        return simpo_loss(whole[:count], whole[count:], both, config.beta, config.gamma) * count
    pairs = pair_logprobs(whole, batch.reference, lengths if config.length_normalised else None)
    if config.loss == "ipo":
        return ipo_loss(pairs, config.beta) * count
    if config.loss == "hinge":
        return hinge_loss(pairs, config.beta) * count
    return dpo_loss(pairs, config.beta, batch.smoothing) * count


def pair_logprobs(whole: Tensor, reference: Tensor, lengths: Tensor | None = None) -> PairLogprobs:
    """Chosen and rejected apart, each divided by its answer's length where that is given."""
    if lengths is not None:
        whole, reference = whole / lengths, reference / lengths
    chosen, rejected = whole.chunk(2)
    chosen_ref, rejected_ref = reference.chunk(2)
    return PairLogprobs(chosen, rejected, chosen_ref, rejected_ref)


def dpo_task(
    recipe: DpoRecipe, train: PairBatch, held_out: PairBatch | None
) -> Task[Decoder, PairBatch]:
    """Learning from pairs, judged by held-out ones.

    Args:
        train: All pairs with their reference log-probabilities.
    """
    config, loop = recipe.dpo, recipe.train

    def batches(step: int) -> Sequence[PairBatch]:
        numbers = batch_numbers(step, loop.batch_pairs, train.n_valid, loop.seed)
        return micro_batches(train, torch.from_numpy(numbers), loop.micro_batch_pairs)

    return Task(
        batches=batches,
        loss=lambda model, batch: preference_loss(config, model, batch),
        evaluate=lambda model: preference_scores(recipe, model, held_out),
        samples=lambda model: (),
    )


def micro_batches(whole: PairBatch, numbers: Tensor, size: int) -> list[PairBatch]:
    """The pairs of these numbers in parts alike in length."""
    taken = whole.take(numbers)
    return [taken.take(part) for part in _alike(taken, size)]


def _alike(batch: PairBatch, size: int) -> Sequence[Tensor]:
    total = batch.rows.start_B + batch.rows.lengths_B
    longer_B = torch.maximum(*total.chunk(2))
    return torch.split(longer_B.argsort(stable=True), size)


def preference_scores(
    recipe: DpoRecipe, model: Decoder, held_out: PairBatch | None
) -> dict[str, float]:
    """Held-out loss; of pairs also the share whose chosen answer has the larger implicit reward,
    the mean margin, and how far both answers moved."""
    if held_out is None:
        return {}
    config, count = recipe.dpo, held_out.n_valid
    parts = [held_out.take(part) for part in _alike(held_out, recipe.train.micro_batch_pairs)]
    loss = sum(preference_loss(config, model, part).item() for part in parts) / count
    if held_out.desirable_B is not None:
        return {"loss": loss}
    chosen, rejected = [], []
    for part in parts:
        moved = answer_logprobs(model, part.rows).sum(-1) - part.reference
        chosen.append(moved[: part.n_valid])
        rejected.append(moved[part.n_valid :])
    up, down = torch.cat(chosen), torch.cat(rejected)
    margin = config.beta * (up - down)
    # A pair that the policy moved no further apart than rounding does says nothing: half a hit.
    same = (up - down).abs() <= _ROUNDING
    hits = torch.where(same, 0.5, (margin > 0).double())
    return {
        "loss": loss,
        "accuracy": hits.mean().item(),
        "margin": margin.mean().item(),
        "chosen_moved": up.mean().item(),
        "rejected_moved": down.mean().item(),
    }


@torch.no_grad()
def reference_logprobs(model: Decoder, rows: AnswerRows, batch: int = 64) -> Tensor:
    """(B,) log π_ref of whole answers, some rows at a time."""
    out = torch.zeros(len(rows), dtype=model.lm_head.weight.dtype)
    for part in by_length(rows, batch):
        out[part] = answer_logprobs(model, rows.take(part)).sum(-1)
    return out


def steps_for(epochs: float, count: int, batch: int) -> int:
    """Optimizer steps of so many epochs over `count` pairs."""
    return max(1, math.ceil(epochs * count / batch))
