"""Learning a reward model from pairs: the `Task`, and what is said of one; not the run around it.

Shape suffixes: B pairs, R heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from isoflop.alignment.answers import AnswerRows, answer_rows
from isoflop.alignment.dpo_recipe import RewardRecipe
from isoflop.alignment.pairs import Pair, answers_of, batch_numbers
from isoflop.alignment.reward import bradley_terry_loss
from isoflop.alignment.reward_model import RewardModel
from isoflop.training.step import Task

CALIBRATION_BINS = 10


@dataclass(frozen=True)
class RewardBatch:
    """Pairs ready to learn from."""

    rows: AnswerRows
    """2 B answers: all chosen, then all rejected."""
    margin_B: Tensor
    """Difference that is asked for."""
    head_B: Tensor
    """Which head each pair is about."""

    @property
    def n_valid(self) -> int:
        """Pairs."""
        return len(self.rows) // 2

    def take(self, numbers: Tensor) -> RewardBatch:
        """Some of the pairs."""
        both = torch.cat((numbers, numbers + self.n_valid))
        return RewardBatch(self.rows.take(both), self.margin_B[numbers], self.head_B[numbers])


def heads_of(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """What pairs were judged by; `reward` where no row says."""
    return tuple(sorted({pair.head or "reward" for pair in pairs}))


def reward_batch(pairs: Sequence[Pair], heads: Sequence[str], use_margins: bool) -> RewardBatch:
    """Pairs as tensors."""
    margins = [(pair.margin or 0.0) if use_margins else 0.0 for pair in pairs]
    return RewardBatch(
        answer_rows(answers_of(pairs)),
        torch.tensor(margins),
        torch.tensor([heads.index(pair.head or "reward") for pair in pairs]),
    )


def reward_task(
    recipe: RewardRecipe, train: RewardBatch, held_out: RewardBatch | None
) -> Task[RewardModel, RewardBatch]:
    """Learning scores from pairs, judged by held-out ones."""
    loop, centring = recipe.train, recipe.reward.centring

    def batches(step: int) -> Sequence[RewardBatch]:
        numbers = batch_numbers(step, loop.batch_pairs, train.n_valid, loop.seed)
        whole = train.take(torch.from_numpy(numbers))
        return [whole.take(part) for part in _alike(whole, loop.micro_batch_pairs)]

    def loss(model: RewardModel, batch: RewardBatch) -> Tensor:
        chosen_B, rejected_B = _scores(model, batch)
        margin_B = batch.margin_B.to(chosen_B.dtype)
        return bradley_terry_loss(chosen_B, rejected_B, margin_B, centring) * batch.n_valid

    def evaluate(model: RewardModel) -> dict[str, float]:
        if held_out is None:
            return {}
        found = judged(model, held_out, loop.micro_batch_pairs)
        both = torch.from_numpy(found.chosen_B), torch.from_numpy(found.rejected_B)
        hits = float(np.mean(found.hits))
        return {"loss": bradley_terry_loss(*both).item(), "accuracy": hits}

    return Task(batches=batches, loss=loss, evaluate=evaluate, samples=lambda model: ())


@dataclass(frozen=True)
class JudgedPairs:
    """Scores of pairs, each by its own head; numpy arrays of float64."""

    chosen_B: npt.NDArray[np.float64]
    rejected_B: npt.NDArray[np.float64]
    longer_B: npt.NDArray[np.float64]
    """Tokens by which the chosen answer is longer."""

    @property
    def hits(self) -> npt.NDArray[np.float64]:
        """1 where the chosen answer scores higher, ½ where both score the same."""
        difference_B = self.chosen_B - self.rejected_B
        return np.where(difference_B == 0, 0.5, (difference_B > 0).astype(np.float64))


@torch.no_grad()
def judged(model: RewardModel, batch: RewardBatch, size: int) -> JudgedPairs:
    """Score pairs, some at a time."""
    chosen, rejected = np.zeros(batch.n_valid), np.zeros(batch.n_valid)
    for part in _alike(batch, size):
        up_B, down_B = _scores(model, batch.take(part))
        chosen[part.numpy()], rejected[part.numpy()] = up_B.numpy(), down_B.numpy()
    long_B, short_B = batch.rows.lengths_B.chunk(2)
    return JudgedPairs(chosen, rejected, (long_B - short_B).double().numpy())


@dataclass(frozen=True)
class RewardReport:
    """What a reward model is worth on held-out pairs."""

    pairs: int
    accuracy: float
    """Share of pairs whose chosen answer scores higher."""
    loss: float
    """Bradley–Terry, nats per pair; ln 2 = 0.693 knows nothing."""
    calibration_error: float
    """How far the share of right calls is from the probability σ(r_i − r_j), a mean over ten bins
    of equal numbers of pairs."""
    length_correlation: float
    """Of the difference of scores and of lengths, over all pairs."""
    length_accuracy: float
    """Share of pairs that "the longer one" calls right; a tie counts half."""


def report(found: JudgedPairs) -> RewardReport:
    """Accuracy, calibration and length bias of scores before they are standardised.

    A pair's call is the answer that scores higher, its probability σ(|r_i − r_j|).
    """
    difference_B = found.chosen_B - found.rejected_B
    sure_B = 1 / (1 + np.exp(-np.abs(difference_B)))
    bins = np.array_split(np.argsort(sure_B, kind="stable"), min(CALIBRATION_BINS, len(sure_B)))
    off = [len(part) * abs(sure_B[part].mean() - found.hits[part].mean()) for part in bins]
    # Each pair is looked at from either side, so that both means are 0 and only slopes count.
    product = float(np.sqrt((difference_B**2).mean() * (found.longer_B**2).mean()))
    shared = float((difference_B * found.longer_B).mean())
    longer = (found.longer_B > 0) + 0.5 * (found.longer_B == 0)
    return RewardReport(
        pairs=len(difference_B),
        accuracy=float(found.hits.mean()),
        loss=float(np.logaddexp(0, -difference_B).mean()),
        calibration_error=float(sum(off) / len(difference_B)),
        length_correlation=shared / product if product else 0.0,
        length_accuracy=float(longer.mean()),
    )


def _scores(model: RewardModel, batch: RewardBatch) -> tuple[Tensor, Tensor]:
    """(B,) of the chosen and of the rejected answers, each pair by its head."""
    scores_BR = model.scores(batch.rows)
    own_B = scores_BR.gather(1, batch.head_B.repeat(2)[:, None])[:, 0]
    chosen_B, rejected_B = own_B.chunk(2)
    return chosen_B, rejected_B


def _alike(batch: RewardBatch, size: int) -> Sequence[Tensor]:
    total = batch.rows.start_B + batch.rows.lengths_B
    longer_B = torch.maximum(*total.chunk(2))
    return torch.split(longer_B.argsort(stable=True), size)
