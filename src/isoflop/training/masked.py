"""Masked language modelling with next-sentence prediction (Devlin et al. 2019): the `Task` of an
encoder.

Not for which tokens are masked (`data.masking`), how sentences are paired (`data.sentence_pairs`)
nor for the loop (`loop.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.core.errors import RecipeError
from isoflop.data.loader import IGNORED
from isoflop.data.masking import Masker
from isoflop.data.sentence_pairs import PairLoader, PairMarks
from isoflop.data.shards import Split
from isoflop.data.tokenizer import Tokenizer
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.accounting import flops_per_token
from isoflop.models.config import EncoderConfig
from isoflop.models.encoder import Encoder
from isoflop.training.baselines import Targets, accuracies, train_ngram
from isoflop.training.batches import (
    StepRows,
    TrainingData,
    described,
    held_out_rows,
    micro_batches,
    step_rows,
)
from isoflop.training.recipe import TrainRecipe
from isoflop.training.special_tokens import CLS, MASK, PAD, SEP, special_ids
from isoflop.training.step import Task, Work


@dataclass(frozen=True)
class MaskedBatch:
    """One micro-batch of an encoder."""

    ids_BT: Tensor
    labels_BT: Tensor
    """What stood at a chosen place, or the loader's `IGNORED`."""
    document_BT: Tensor | None
    """Which document each token belongs to; None where every row is one."""
    type_BT: Tensor | None
    random_B: Tensor | None
    """Whether the second sentence is a random one; None without pairs."""
    pair_weight: float
    """Masked tokens for each pair in the global batch: with it the step's loss is the mean over
    masked tokens plus the mean over pairs, as in BERT."""
    n_valid: int
    """Masked tokens."""


@dataclass(frozen=True)
class _Rows:
    """Rows of a step or of an evaluation, not yet masked."""

    ids_BT: npt.NDArray[np.int64]
    document_BT: npt.NDArray[np.int64]
    text_BT: npt.NDArray[np.bool_]
    rows_B: npt.NDArray[np.int64]
    type_BT: npt.NDArray[np.int64] | None = None
    random_B: npt.NDArray[np.int64] | None = None


class MaskedSource:
    """Micro-batches of a split, a pure function of the step.

    Args:
        seed: Fixes pairs and masks (and, through the orders given, the rows).

    Raises:
        DataError: The tokenizer lacks special tokens, or the split is too short.
    """

    def __init__(self, recipe: TrainRecipe, tokenizer: Tokenizer, split: Split, seed: int) -> None:
        self._recipe, objective = recipe, recipe.objective
        pad_id, cls_id, sep_id, mask_id = special_ids(tokenizer, (PAD, CLS, SEP, MASK))
        self._text_V = tokenizer.byte_lengths > 0
        self._masker = Masker(
            tokenizer.token_bytes, mask_id, objective.fraction, objective.whole_words, seed
        )
        self.pairs: PairLoader | None = None
        if objective.sentence_pairs:
            train = recipe.train
            marks = PairMarks(cls_id, sep_id, pad_id)
            self.pairs = PairLoader(
                split, train.seq_len, train.global_batch_tokens, seed, marks, tokenizer.token_bytes
            )

    def step(self, data: TrainingData, step: int) -> list[MaskedBatch]:
        """The micro-batches of a training step."""
        if self.pairs is not None:
            return self._masked(self._pair_rows(step))
        train = self._recipe.train
        rows = step_rows(data.order, self._recipe.batch_ramp, train.seq_len, step)
        return self._masked(self._window_rows(rows))

    def described(self, data: TrainingData, step: int) -> Mapping[str, Any]:
        """Which documents the batch of a training step is of."""
        if self.pairs is not None:
            return data.origin({"": self.pairs.stretches(step)})
        return described(self._recipe, data, step)

    def held_out(self, split: Split) -> Iterator[list[MaskedBatch]]:
        """Micro-batches of held-out rows, the same at every call."""
        if self.pairs is None:
            for rows in held_out_rows(self._recipe, split):
                yield self._masked(self._window_rows(rows))
            return
        wanted = self._recipe.train.eval_tokens
        for index in range(self.pairs.n_batches):
            pair_rows = self._pair_rows(index)
            yield self._masked(pair_rows)
            wanted -= pair_rows.ids_BT.size
            if wanted <= 0:
                return

    def _pair_rows(self, index: int) -> _Rows:
        if self.pairs is None:
            raise ValueError("this source has no pairs")
        rows = self.pairs.batch(index)
        document_BT = rows.padding_BT.astype(np.int64)
        return _Rows(
            rows.ids_BT, document_BT, rows.text_BT, rows.rows_B, rows.type_BT, rows.random_B
        )

    def _window_rows(self, rows: StepRows) -> _Rows:
        ids_BT = rows.windows.ids_BT
        document_BT = rows.windows.document_BT.astype(np.int64)
        return _Rows(ids_BT, document_BT, self._text_V[ids_BT], rows.rows_B)

    def _masked(self, rows: _Rows) -> list[MaskedBatch]:
        masked = self._masker(rows.ids_BT, rows.rows_B, rows.text_BT)
        n_rows, width = rows.ids_BT.shape
        n_masked = int(np.count_nonzero(masked.labels_BT != IGNORED))
        batches = []
        for here in micro_batches(n_rows, width, self._recipe.train.micro_batch_tokens):
            document_BT = rows.document_BT[here]
            labels_BT = masked.labels_BT[here]
            batches.append(
                MaskedBatch(
                    ids_BT=torch.from_numpy(masked.ids_BT[here]),
                    labels_BT=torch.from_numpy(labels_BT),
                    document_BT=torch.from_numpy(document_BT) if document_BT.any() else None,
                    type_BT=None if rows.type_BT is None else torch.from_numpy(rows.type_BT[here]),
                    random_B=None
                    if rows.random_B is None
                    else torch.from_numpy(rows.random_B[here]),
                    pair_weight=n_masked / n_rows,
                    n_valid=int(np.count_nonzero(labels_BT != IGNORED)),
                )
            )
        return batches


def masked_work(recipe: TrainRecipe, data: TrainingData) -> Work:
    """What a recipe of masked language modelling comes to.

    Raises:
        DataError: The tokenizer lacks special tokens, or the data are too short.
        RecipeError: The model is no encoder.
    """
    objective, seq_len = recipe.objective, recipe.train.seq_len
    config = recipe.model.config(data.vocab_size, seq_len)
    if not isinstance(config, EncoderConfig):
        raise RecipeError("masked tokens are for encoders", where="model.architecture")
    config = replace(config, pair_head=objective.sentence_pairs)
    count = flops_per_token(config, seq_len)
    # The output layer sees the masked tokens alone.
    output = round(count.output * objective.fraction)
    return Work(
        config=config,
        task=masked_task(recipe, data),
        tokenizer_directory=data.tokenizer_directory,
        flops_per_token=replace(count, output=output).training,
        warnings=data.warnings,
    )


def masked_task(recipe: TrainRecipe, data: TrainingData) -> Task[Encoder, MaskedBatch]:
    """Masked tokens (and sentence pairs) of the training split, judged on the held-out one.

    Raises:
        DataError: The tokenizer lacks special tokens, or a split is too short.
    """
    tokenizer = load_tokenizer(data.tokenizer_directory)
    train, held_out = data.shards.train, data.shards.held_out
    source = MaskedSource(recipe, tokenizer, train, recipe.train.seed)
    judge = MaskedSource(recipe, tokenizer, held_out, 0)

    @cache
    def baselines() -> Mapping[str, float]:
        model = train_ngram(train.tokens, train.document_starts, data.vocab_size)
        targets = (
            part
            for batches in judge.held_out(held_out)
            for batch in batches
            for part in masked_targets(batch, tokenizer.byte_lengths)
        )
        return accuracies(model, targets, np.flatnonzero(tokenizer.byte_lengths == 0))

    def evaluate(model: Encoder) -> Mapping[str, float]:
        batches = (b for rows in judge.held_out(held_out) for b in rows)
        return {**masked_scores(model, batches, tokenizer.byte_lengths), **baselines()}

    return Task(
        batches=lambda step: source.step(data, step),
        loss=masked_loss,
        evaluate=evaluate,
        samples=lambda model: [
            {"prompt": prompt, "text": fill(model, tokenizer, prompt)}
            for prompt in recipe.train.sample_prompts
        ],
        describe=lambda step: source.described(data, step),
    )


def masked_loss(model: Encoder, batch: MaskedBatch) -> Tensor:
    """Summed cross-entropy in nats over masked tokens, and over pairs times `pair_weight`."""
    token_loss, pair_loss, _, _ = _losses(model, batch)
    return token_loss + batch.pair_weight * pair_loss


def _losses(model: Encoder, batch: MaskedBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(summed loss of tokens, of pairs; tokens right, pairs right)."""
    x_BTD = model.hidden(batch.ids_BT, batch.document_BT, batch.type_BT)
    asked_BT = batch.labels_BT != IGNORED
    logits_NV, labels_N = model.token_logits(x_BTD[asked_BT]), batch.labels_BT[asked_BT]
    token_loss = F.cross_entropy(logits_NV, labels_N, reduction="sum")
    right = (logits_NV.argmax(-1) == labels_N).sum()
    if batch.random_B is None:
        return token_loss, torch.zeros(()), right, torch.zeros(())
    logits_B2 = model.pair_logits(x_BTD[:, 0])
    pair_loss = F.cross_entropy(logits_B2, batch.random_B, reduction="sum")
    return token_loss, pair_loss, right, (logits_B2.argmax(-1) == batch.random_B).sum()


def masked_scores(
    model: Encoder, batches: Iterator[MaskedBatch], byte_lengths: npt.NDArray[np.int32]
) -> dict[str, float]:
    """Held-out losses in nats and accuracies.

    `loss` is what is trained: masked tokens plus pairs. `pseudo_bits_per_byte` is the loss of the
    masked tokens over the bytes they stand for: each was foretold from both sides with others
    hidden, so it is no code length and not to be compared with `bits_per_byte` of decoders.
    """
    sums = torch.zeros(4, dtype=torch.float64)
    n_tokens, n_pairs, n_bytes = 0, 0, 0
    for batch in batches:
        sums += torch.stack([part.double() for part in _losses(model, batch)])
        labels = batch.labels_BT[batch.labels_BT != IGNORED].numpy()
        n_tokens += labels.shape[0]
        n_bytes += int(byte_lengths[labels].sum())
        n_pairs += 0 if batch.random_B is None else len(batch.random_B)
    token_loss, pair_loss, tokens_right, pairs_right = sums.tolist()
    scores = {
        "loss": token_loss / n_tokens,
        "masked_loss": token_loss / n_tokens,
        "masked_accuracy": tokens_right / n_tokens,
        "pseudo_bits_per_byte": token_loss / math.log(2) / n_bytes,
    }
    if n_pairs:
        scores["loss"] += pair_loss / n_pairs
        scores |= {"pair_loss": pair_loss / n_pairs, "pair_accuracy": pairs_right / n_pairs}
    return scores


def masked_targets(batch: MaskedBatch, byte_lengths: npt.NDArray[np.int32]) -> Iterator[Targets]:
    """The batch as stretches of true text: between special tokens and ends of documents."""
    labels_BT = batch.labels_BT.numpy()
    true_BT = np.where(labels_BT == IGNORED, batch.ids_BT.numpy(), labels_BT)
    document_BT = np.zeros_like(true_BT)
    if batch.document_BT is not None:
        document_BT = batch.document_BT.numpy()
    for ids, asked, document in zip(true_BT, labels_BT != IGNORED, document_BT, strict=True):
        text = byte_lengths[ids] > 0
        new = (text[1:] != text[:-1]) | (document[1:] != document[:-1])
        edges = [0, *(np.flatnonzero(new) + 1).tolist(), len(ids)]
        for start, end in pairwise(edges):
            if text[start]:
                yield Targets(ids[start:end], asked[start:end])


def fill(model: Encoder, tokenizer: Tokenizer, prompt: str) -> str:
    """The prompt with the likeliest token in place of each [MASK]."""
    cls_id, sep_id, mask_id = special_ids(tokenizer, (CLS, SEP, MASK))
    ids: Sequence[int] = tokenizer.encode(prompt, special=True)
    if model.config.pair_head:
        ids = [cls_id, *ids, sep_id]
    read = torch.tensor([ids[: model.config.max_seq_len]])
    text_V = torch.from_numpy(tokenizer.byte_lengths > 0)
    logits_TV = model(read)[0].masked_fill(~text_V, -torch.inf)
    filled = torch.where(read[0] == mask_id, logits_TV.argmax(-1), read[0])
    return tokenizer.decode(filled.tolist())
