"""Answers to prompts as padded rows of ids, and a model's log-probabilities of them.

Not for drawing answers (`rollout.py`) nor for what is made of the numbers (`preference.py`,
`policy.py`). What belongs to an answer is known by its place alone: no id, padding and the end of a
text included, means anything by itself.

Shape suffixes: B answers, T positions of a row, A tokens of the longest answer, V vocabulary,
N = all answer tokens of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from isoflop.core.errors import DataError
from isoflop.models.decoder import Decoder


@dataclass(frozen=True)
class Answer:
    """A prompt and what follows it."""

    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    """The answer, with the token that ends it."""


@dataclass(frozen=True)
class AnswerRows:
    """Answers as tensors, one a row."""

    ids_BT: Tensor
    """Prompt and answer, then padding."""
    start_B: Tensor
    """Place of each row's last prompt token, which foretells the answer's first."""
    answer_BA: Tensor
    """The answers' ids; any id outside the mask."""
    mask_BA: Tensor
    """Booleans: which of them belong to the answer."""
    kept_BAV: Tensor | None = None
    """Booleans: ids the sampler drew from, where top-k or top-p left some out."""

    def __len__(self) -> int:
        return len(self.ids_BT)

    @property
    def n_tokens(self) -> int:
        """Answer tokens of all rows."""
        return int(self.mask_BA.sum())

    @property
    def lengths_B(self) -> Tensor:
        """Answer tokens of each row."""
        return self.mask_BA.sum(-1)

    def take(self, rows: Tensor) -> AnswerRows:
        """Some of the rows, cut to the longest of them."""
        mask_BA = self.mask_BA[rows]
        lengths_B, start_B = mask_BA.sum(-1), self.start_B[rows]
        most, longest = int((start_B + 1 + lengths_B).max()), int(lengths_B.max())
        kept_BAV = self.kept_BAV
        return AnswerRows(
            self.ids_BT[rows, :most],
            start_B,
            self.answer_BA[rows, :longest],
            mask_BA[:, :longest],
            None if kept_BAV is None else kept_BAV[rows, :longest],
        )


def answer_rows(answers: Sequence[Answer], pad_id: int = 0) -> AnswerRows:
    """Lay answers out as rows, padded behind.

    Args:
        pad_id: Fills the rows; answers may hold it too.

    Raises:
        DataError: There is none, or an answer or a prompt is empty; it is numbered.
    """
    if not answers:
        raise DataError("there are no answers")
    for number, answer in enumerate(answers):
        if not answer.prompt or not answer.ids:
            what = "the prompt" if not answer.prompt else "the answer"
            raise DataError(f"{what} is empty: nothing can be learnt", where=f"answer {number}")
    lengths_B = torch.tensor([len(answer.ids) for answer in answers])
    prompts_B = torch.tensor([len(answer.prompt) for answer in answers])
    whole = chain.from_iterable(answer.prompt + answer.ids for answer in answers)
    ids_BT, _ = _laid_out(whole, prompts_B + lengths_B, pad_id)
    alone = chain.from_iterable(answer.ids for answer in answers)
    return AnswerRows(ids_BT, prompts_B - 1, *_laid_out(alone, lengths_B, pad_id))


def _laid_out(flat: Iterable[int], lengths_B: Tensor, pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows of these lengths out of one run of ids, and which places hold one."""
    mask = torch.arange(int(lengths_B.max())) < lengths_B[:, None]
    ids = torch.full(mask.shape, pad_id)
    ids[mask] = torch.from_numpy(np.fromiter(flat, np.int64))
    return ids, mask


@dataclass(frozen=True)
class Scored:
    """What a model says of the answers' tokens, (B, A), 0 outside the mask."""

    logprobs_BA: Tensor
    """log π of each token in nats, by the distribution that it is drawn from."""
    entropy_BA: Tensor | None
    """Of that distribution, nats."""


def score_answers(
    model: Decoder, rows: AnswerRows, temperature: float = 1.0, entropy: bool = False
) -> Scored:
    """Log-probabilities of answers under softmax(logits / temperature) over the ids kept.

    Args:
        temperature: Of the sampler; a policy drawn at another temperature is another policy.
        entropy: Also give the entropy of every distribution.
    """
    # The last id of a row foretells nothing.
    hidden_BTD = model.hidden(rows.ids_BT[:, :-1])
    logits_NV = model.lm_head(_before_answers(hidden_BTD, rows)) / temperature
    if rows.kept_BAV is not None:
        logits_NV = logits_NV.masked_fill(~rows.kept_BAV[rows.mask_BA], -torch.inf)
    logprobs_NV = logits_NV.log_softmax(-1)
    taken_N = logprobs_NV.gather(-1, rows.answer_BA[rows.mask_BA][:, None])[:, 0]
    entropy_BA = None
    if entropy:
        finite_NV = logprobs_NV.masked_fill(logprobs_NV == -torch.inf, 0.0)
        entropy_BA = spread(-(logprobs_NV.exp() * finite_NV).sum(-1), rows)
    return Scored(spread(taken_N, rows), entropy_BA)


def answer_logprobs(model: Decoder, rows: AnswerRows, temperature: float = 1.0) -> Tensor:
    """(B, A) log π of every answer token, as `score_answers`."""
    return score_answers(model, rows, temperature).logprobs_BA


@torch.no_grad()
def frozen_logprobs(
    model: Decoder, rows: AnswerRows, temperature: float = 1.0, batch: int = 64
) -> Tensor:
    """`answer_logprobs` without a gradient, some rows at a time, alike in length."""
    out_BA = torch.zeros(rows.mask_BA.shape, dtype=model.lm_head.weight.dtype)
    for part in by_length(rows, batch):
        some = answer_logprobs(model, rows.take(part), temperature)
        out_BA[part, : some.shape[1]] = some
    return out_BA


def by_length(rows: AnswerRows, batch: int, among: Tensor | None = None) -> Sequence[Tensor]:
    """The rows' numbers (those `among`, or all) in parts of at most `batch`, short rows first, so
    that little is padding."""
    numbers = torch.arange(len(rows)) if among is None else among
    total_B = rows.start_B[numbers] + rows.lengths_B[numbers]
    return torch.split(numbers[total_B.argsort(stable=True)], batch)


def spread(values_N: Tensor, rows: AnswerRows) -> Tensor:
    """Values of all answer tokens, one after the other, as (B, A) with 0 outside the mask."""
    zeros_BA = values_N.new_zeros(rows.mask_BA.shape)
    return zeros_BA.masked_scatter(rows.mask_BA, values_N)


def _before_answers(hidden_BTD: Tensor, rows: AnswerRows) -> Tensor:
    """(N, D) the states that foretell the answers' tokens."""
    row_N, place_N = rows.mask_BA.nonzero(as_tuple=True)
    return hidden_BTD[row_N, rows.start_B[row_N] + place_N]


def states_before(hidden_BTD: Tensor, rows: AnswerRows) -> Tensor:
    """(B, A, D) of states before each answer token; 0 outside the mask."""
    out = hidden_BTD.new_zeros(*rows.mask_BA.shape, hidden_BTD.shape[-1])
    return out.masked_scatter(rows.mask_BA[..., None], _before_answers(hidden_BTD, rows))
