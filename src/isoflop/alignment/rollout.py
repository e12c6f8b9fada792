"""Draws answers to prompts from a decoder, many at once, with the log-probability of each token.

Not for computing what comes next (`answer_reader.py`), for one user's text (`models/generate.py`),
for judging answers (`rewards.py`) nor for learning from them (`grpo.py`, `ppo.py`). Prompts of
equal length share a batch, so that nothing is padded and what is drawn has the distribution the
trainer sees.

Shape suffixes: A places of an answer, B answers, V vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from isoflop.alignment.answer_reader import open_reader
from isoflop.alignment.answers import Answer, AnswerRows, answer_rows
from isoflop.core.errors import DataError, RecipeError
from isoflop.models.decoder import Decoder

MOST_ROWS = 512
"""Answers drawn together; more wait."""
_SHRINK = 0.75
"""Finished answers leave the batch once no more than this share of it goes on."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn."""

    max_new_tokens: int = 64
    """Longest answer."""
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token, whose log-probability then counts as 0."""
    top_k: int | None = None
    """Draw among this many likeliest tokens only."""
    top_p: float | None = None
    """Draw among the fewest likeliest tokens that hold this much probability, after `top_k`."""

    def problems(self) -> Iterable[str]:
        """What is impossible in it, one phrase each."""
        if self.max_new_tokens < 1:
            yield f"max_new_tokens = {self.max_new_tokens} must be at least 1"
        if not 0 <= self.temperature < float("inf"):
            yield f"temperature = {self.temperature} must be at least 0"
        if self.top_k is not None and self.top_k < 1:
            yield f"top_k = {self.top_k} must be at least 1"
        if self.top_p is not None and not 0 < self.top_p <= 1:
            yield f"top_p = {self.top_p} must be above 0 and at most 1"


@dataclass(frozen=True)
class Rollouts:
    """Answers that were drawn."""

    answers: tuple[Answer, ...]
    """Prompt and answer, with the token that ended it."""
    logprobs_BA: Tensor
    """float64: log-probability of each token under the distribution it was drawn from; 0 behind
    an answer's end."""
    ended_B: Tensor
    """Booleans: whether a stop token came before the limit."""
    kept_BAV: Tensor | None
    """Booleans: ids each token was drawn from, where top-k or top-p left some out."""

    def rows(self) -> AnswerRows:
        """The answers as a trainer reads them.

        Raises:
            DataError: There is none.
        """
        return replace(answer_rows(self.answers), kept_BAV=self.kept_BAV)


@torch.no_grad()
def sample(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    stop_ids: Iterable[int] = (),
    *,
    seed: int = 0,
    copies: int = 1,
) -> Rollouts:
    """Draw `copies` answers to each prompt; those to one prompt follow each other.

    Which uniform number a token is drawn with depends on (seed, place of the answer, place in the
    answer) alone.

    Raises:
        RecipeError: The sampling is impossible.
        DataError: A prompt is empty or leaves no room for an answer; it is numbered.
    """
    if problems := list(sampling.problems()):
        raise RecipeError("; ".join(problems), where="sampling")
    by_length: dict[int, list[int]] = defaultdict(list)
    limit = model.config.max_seq_len
    for number, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= limit:
            long = f"has {len(prompt)} tokens, the model's context {limit}"
            what = long if prompt else "is empty"
            raise DataError(f"the prompt {what}", where=f"prompt {number}")
        by_length[len(prompt)].append(number)
    draw = torch.Generator().manual_seed(seed)
    shape = len(prompts) * copies, sampling.max_new_tokens
    uniform = torch.rand(shape, generator=draw, dtype=torch.float64)
    stop = torch.tensor(sorted(set(stop_ids)), dtype=torch.long)
    parts: list[_Part] = []
    order: list[int] = []
    at_once = max(1, MOST_ROWS // copies)
    for length in sorted(by_length):
        numbers = by_length[length]
        for first in range(0, len(numbers), at_once):
            some = numbers[first : first + at_once]
            here = [number * copies + copy for number in some for copy in range(copies)]
            batch = _Batch(model, [tuple(prompts[n]) for n in some], copies, sampling, stop)
            parts.append(batch.run(uniform[here]))
            order += here
    return _joined(parts, order)


def filtered(logits_BV: Tensor, top_k: int | None, top_p: float | None) -> Tensor | None:
    """(B, V) booleans: the ids to draw from; None for all.

    Args:
        logits_BV: Already divided by the temperature.
    """
    if top_k is None and top_p is None:
        return None
    ordered = logits_BV.softmax(-1).sort(dim=-1, descending=True, stable=True)
    share_BV = ordered.values
    if top_k is not None:
        share_BV = share_BV.masked_fill(torch.arange(share_BV.shape[-1]) >= top_k, 0.0)
    kept_BV = share_BV > 0
    if top_p is not None:
        before_BV = share_BV.cumsum(-1) - share_BV
        kept_BV &= before_BV < top_p * share_BV.sum(-1, keepdim=True)
    return torch.zeros_like(kept_BV).scatter(-1, ordered.indices, kept_BV)


def choose(
    logits_BV: Tensor, sampling: Sampling, uniform_B: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(ids (B,), their log-probabilities (B,), ids kept (B, V) or None) by inverse transform.

    Args:
        uniform_B: Numbers in [0, 1), float64.
    """
    if sampling.temperature == 0:
        return logits_BV.argmax(-1), torch.zeros(len(logits_BV), dtype=torch.float64), None
    # float64: float32 sums over a large vocabulary miss 1 by enough to favour the last token.
    wide_BV = logits_BV.double() / sampling.temperature
    kept_BV = filtered(wide_BV, sampling.top_k, sampling.top_p)
    if kept_BV is not None:
        wide_BV = wide_BV.masked_fill(~kept_BV, -torch.inf)
    logprobs_BV = wide_BV.log_softmax(-1)
    total_BV = logprobs_BV.exp().cumsum(-1)
    place_B1 = torch.searchsorted(total_BV, (uniform_B * total_BV[:, -1])[:, None], right=True)
    chosen_B1 = place_B1.clamp_max(logits_BV.shape[-1] - 1)
    return chosen_B1[:, 0], logprobs_BV.gather(-1, chosen_B1)[:, 0], kept_BV


class _Batch:
    """Answers to prompts of one length, token by token."""

    def __init__(
        self,
        model: Decoder,
        prompts: Sequence[tuple[int, ...]],
        copies: int,
        sampling: Sampling,
        stop: Tensor,
    ) -> None:
        self._sampling, self._stop = sampling, stop
        length = len(prompts[0])
        # The last token of an answer is never read.
        self._steps = min(sampling.max_new_tokens, model.config.max_seq_len - length + 1)
        self._reader = open_reader(model, prompts, copies, length + self._steps - 1)
        self._prompts = [prompt for prompt in prompts for _ in range(copies)]
        self._logits_BV = self._reader.begin().repeat_interleave(copies, dim=0)

    def run(self, uniform: Tensor) -> _Part:
        """The answers, in the order of the prompts, drawn with (B, max_new_tokens) numbers."""
        count = len(self._prompts)
        ids = torch.zeros(count, self._steps, dtype=torch.long)
        logprobs = torch.zeros(count, self._steps, dtype=torch.float64)
        kept: Tensor | None = None
        lengths = torch.zeros(count, dtype=torch.long)
        ended = torch.zeros(count, dtype=torch.bool)
        here = torch.arange(count)  # which answer each row of the batch is
        for step in range(self._steps):
            going = ~ended[here]
            if not going.any():
                break
            if going.sum() <= _SHRINK * len(here):
                self._reader.keep(going.nonzero()[:, 0])
                self._logits_BV, here = self._logits_BV[going], here[going]
                going = going[going]
            chosen_B, logprob_B, kept_BV = choose(
                self._logits_BV, self._sampling, uniform[here, step]
            )
            if kept_BV is not None:
                if kept is None:
                    kept = kept_BV.new_ones(count, self._steps, kept_BV.shape[1])
                kept[here, step] = kept_BV
            ids[here, step] = torch.where(going, chosen_B, 0)
            logprobs[here, step] = torch.where(going, logprob_B, 0.0)
            lengths[here[going]] += 1
            ended[here] |= torch.isin(chosen_B, self._stop)
            if step + 1 < self._steps and not ended[here].all():
                self._logits_BV = self._reader.read(chosen_B)
        answers = [
            Answer(prompt, tuple(row[:length]))
            for prompt, row, length in zip(
                self._prompts, ids.tolist(), lengths.tolist(), strict=True
            )
        ]
        return _Part(answers, logprobs, ended, kept)


@dataclass(frozen=True)
class _Part:
    """Answers of one batch; tensors as long as its limit."""

    answers: list[Answer]
    logprobs_BA: Tensor
    ended_B: Tensor
    kept_BAV: Tensor | None


def _joined(parts: Sequence[_Part], order: Sequence[int]) -> Rollouts:
    """The batches' answers by their places in `order`, tensors cut to the longest answer."""
    answers = [answer for part in parts for answer in part.answers]
    longest = max((len(answer.ids) for answer in answers), default=0)
    back = torch.tensor(order, dtype=torch.long).argsort()

    def join(tensors: Sequence[Tensor], value: float) -> Tensor:
        widened = []
        for tensor in tensors:
            missing = longest - tensor.shape[1]
            shape = tensor.shape[0], max(missing, 0), *tensor.shape[2:]
            widened.append(torch.cat((tensor[:, :longest], tensor.new_full(shape, value)), 1))
        return torch.cat(widened)[back]

    kept = [part.kept_BAV for part in parts if part.kept_BAV is not None]
    return Rollouts(
        tuple(answers[place] for place in back.tolist()),
        join([part.logprobs_BA for part in parts], 0.0) if parts else torch.zeros(0, 0),
        torch.cat([part.ended_B for part in parts])[back] if parts else torch.zeros(0).bool(),
        join(kept, 1.0) if kept else None,
    )
