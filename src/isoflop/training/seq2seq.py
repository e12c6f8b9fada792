"""Span corruption (Raffel et al. 2020) and pairs of texts: the `Task`s of an encoder-decoder.

Not for which spans are dropped (`data.spans`), for reading pairs (`data.pairs`) nor for the loop
(`loop.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from isoflop.data.pairs import TextPair, read_pairs
from isoflop.data.spans import SpanCorruptor
from isoflop.data.tokenizer import Tokenizer
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.accounting import flops_per_pair
from isoflop.models.config import EncoderDecoderConfig
from isoflop.models.encoder_decoder import EncoderDecoder
from isoflop.models.generate_target import generate_target
from isoflop.models.ngram import NGram
from isoflop.models.output_loss import linear_cross_entropy
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
from isoflop.training.special_tokens import PAD, sentinel, special_ids, written_out
from isoflop.training.step import Task, Work

Ids = npt.NDArray[np.int64]
PADDING = -1
"""The document that padding belongs to, on both sides."""


@dataclass(frozen=True)
class Segment:
    """A source and its target, each with its end token."""

    source: Ids
    target: Ids
    text: Targets
    """Where the targets stand in their text, for the baselines."""


Row = Sequence[Segment]
"""Segments side by side in one row; each sees itself alone."""


@dataclass(frozen=True)
class SourceTargetBatch:
    """One micro-batch of an encoder-decoder."""

    source_BS: Tensor
    target_BT: Tensor
    """What the decoder is given: the labels, one place to the right."""
    labels_BT: Tensor
    """The loader's `IGNORED` in the padding."""
    source_document_BS: Tensor
    target_document_BT: Tensor
    n_valid: int
    """Labels that carry loss."""


def collate(rows: Sequence[Row], start_id: int) -> SourceTargetBatch:
    """Rows side by side, padded to the longest of either side."""
    sources = [_side_by_side([s.source for s in row]) for row in rows]
    labels = [_side_by_side([s.target for s in row]) for row in rows]
    given = [np.concatenate([np.append(start_id, s.target[:-1]) for s in row]) for row in rows]
    labels_BT = _padded([ids for ids, _ in labels], IGNORED)
    return SourceTargetBatch(
        source_BS=_padded([ids for ids, _ in sources], start_id),
        target_BT=_padded(given, start_id),
        labels_BT=labels_BT,
        source_document_BS=_padded([document for _, document in sources], PADDING),
        target_document_BT=_padded([document for _, document in labels], PADDING),
        n_valid=int((labels_BT != IGNORED).sum()),
    )


def _side_by_side(parts: Sequence[Ids]) -> tuple[Ids, Ids]:
    """(tokens, the number of the part that each belongs to)."""
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(p) for p in parts])


def _padded(rows: Sequence[Ids], value: int) -> Tensor:
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return torch.from_numpy(padded)


def target_loss(model: EncoderDecoder, batch: SourceTargetBatch) -> Tensor:
    """Summed cross-entropy in nats over the target tokens."""
    return linear_cross_entropy(
        _states(model, batch).flatten(0, 1),
        model.lm_head.weight,
        batch.labels_BT.flatten(),
        ignored=IGNORED,
    )


def _states(model: EncoderDecoder, batch: SourceTargetBatch) -> Tensor:
    return model.hidden(
        batch.source_BS, batch.target_BT, batch.source_document_BS, batch.target_document_BT
    )


def target_scores(
    model: EncoderDecoder,
    batches: Iterable[SourceTargetBatch],
    byte_lengths: npt.NDArray[np.int32],
) -> dict[str, float]:
    """Held-out loss in nats per target token, and the share of the text among them (neither
    sentinels nor ends) that is the likeliest text given the true tokens before it: like the
    baselines, the model is not asked whether the span goes on."""
    text_V = torch.from_numpy(byte_lengths > 0)
    loss, n_labels, right, n_text = 0.0, 0, 0, 0
    for batch in batches:
        labels_N = batch.labels_BT[batch.labels_BT != IGNORED]
        logits_NV = model.lm_head(_states(model, batch)[batch.labels_BT != IGNORED])
        loss += F.cross_entropy(logits_NV, labels_N, reduction="sum").item()
        n_labels += len(labels_N)
        is_text_N = text_V[labels_N]
        guess_N = logits_NV.masked_fill(~text_V, -torch.inf).argmax(-1)
        right += int((guess_N == labels_N)[is_text_N].sum())
        n_text += int(is_text_N.sum())
    return {"loss": loss / n_labels, "token_accuracy": right / max(1, n_text)}


# --- span corruption -----------------------------------------------------------------------


def span_rows(rows: StepRows, corruptor: SpanCorruptor) -> list[Row]:
    """Every document of every window, corrupted by itself; padding is left out."""
    found: list[Row] = []
    windows = rows.windows
    for ids, document, row in zip(
        windows.ids_BT, windows.document_BT, rows.rows_B.tolist(), strict=True
    ):
        edges = [0, *(np.flatnonzero(np.diff(document)) + 1).tolist(), len(ids)]
        segments = []
        for start, end in pairwise(edges):
            text = ids[start:end]
            text = text[text != corruptor.end_id]
            if text.shape[0]:
                corrupted = corruptor(text, row * len(document) + start)
                asked = Targets(text, corrupted.dropped)
                segments.append(Segment(corrupted.source, corrupted.target, asked))
        if segments:
            found.append(segments)
    return found


def span_work(recipe: TrainRecipe, data: TrainingData) -> Work:
    """What a recipe of span corruption comes to.

    Raises:
        DataError: The tokenizer lacks sentinels or [PAD], or the data are too short.
        RecipeError: The model is no encoder-decoder.
    """
    tokenizer = load_tokenizer(data.tokenizer_directory)
    train, seq_len = recipe.train, recipe.train.seq_len
    corruptor, judge = (span_corruptor(recipe, tokenizer, seed) for seed in (train.seed, 0))
    splits = data.shards

    def rows(step: int) -> list[Row]:
        return span_rows(step_rows(data.order, recipe.batch_ramp, seq_len, step), corruptor)

    def held_out() -> Iterator[Row]:
        for found in held_out_rows(recipe, splits.held_out):
            yield from span_rows(found, judge)

    def baseline() -> NGram:
        return train_ngram(splits.train.tokens, splits.train.document_starts, data.vocab_size)

    dropped, spans = corruptor.n_spans(seq_len)
    return _work(
        recipe, tokenizer, rows, held_out, baseline,
        (seq_len - dropped + spans + 1, dropped + spans + 1), data.warnings,
        lambda step: described(recipe, data, step),
    )  # fmt: skip


def span_corruptor(recipe: TrainRecipe, tokenizer: Tokenizer, seed: int) -> SpanCorruptor:
    """The recipe's way to drop spans.

    Raises:
        DataError: The tokenizer lacks sentinels or [PAD].
    """
    objective = recipe.objective
    plan = SpanCorruptor((), tokenizer.eos_id, objective.fraction, objective.span_length, seed)
    # Shorter documents never have more spans than one that fills the window.
    most = max(plan.n_spans(length)[1] for length in range(recipe.train.seq_len + 1))
    names = [PAD, *(sentinel(number) for number in range(most))]
    return SpanCorruptor(
        special_ids(tokenizer, names)[1:], tokenizer.eos_id, objective.fraction,
        objective.span_length, seed,
    )  # fmt: skip


# --- pairs of texts ------------------------------------------------------------------------


def pair_work(recipe: TrainRecipe) -> Work:
    """What a recipe of text pairs comes to.

    Raises:
        DataError: The pairs cannot be read or are too few, or the tokenizer lacks [PAD].
        RecipeError: The model is no encoder-decoder, or the recipe names no pairs.
    """
    train, data = recipe.train, recipe.data
    if data.pairs is None or data.tokenizer is None:
        raise RecipeError("seq2seq needs data.pairs and data.tokenizer", where="train recipe")
    tokenizer = load_tokenizer(data.tokenizer)
    pairs = read_pairs(data.pairs, tokenizer, train.seq_len)
    most = max(1, train.eval_tokens // train.seq_len)

    def step_pairs(step: int) -> list[TextPair]:
        ramp = recipe.batch_ramp
        first, count = ramp.first_token(step), ramp.batch_tokens(step)
        return pairs.batch(first // train.seq_len, count // train.seq_len, train.seed)

    def rows(step: int) -> list[Row]:
        return [_pair_row(pair) for pair in step_pairs(step)]

    def held_out() -> Iterator[Row]:
        return map(_pair_row, pairs.held_out[:most])

    def baseline() -> NGram:
        targets = [pair.target for pair in pairs.train]
        starts = np.cumsum([0, *(len(target) for target in targets)])
        return train_ngram(np.concatenate(targets), starts, tokenizer.vocab_size)

    warnings: tuple[str, ...] = ()
    if pairs.too_long:
        warnings = (
            f"{pairs.too_long:,} pairs are longer than {train.seq_len} tokens and were left out",
        )
    mean = [
        round(float(np.mean([len(side) for side in sides])))
        for sides in ([p.source for p in pairs.train], [p.target for p in pairs.train])
    ]
    return _work(
        recipe, tokenizer, rows, held_out, baseline, (mean[0], mean[1]), warnings,
        lambda step: {"lines": sorted(pair.line for pair in step_pairs(step))},
    )  # fmt: skip


def _pair_row(pair: TextPair) -> Row:
    asked = np.ones(len(pair.target) - 1, dtype=np.bool_)
    return [Segment(pair.source, pair.target, Targets(pair.target[:-1], asked))]


# --- both ----------------------------------------------------------------------------------


def _work(
    recipe: TrainRecipe,
    tokenizer: Tokenizer,
    rows: Callable[[int], Sequence[Row]],
    held_out: Callable[[], Iterator[Row]],
    baseline: Callable[[], NGram],
    lengths: tuple[int, int],
    warnings: tuple[str, ...],
    describe: Callable[[int], Mapping[str, Any]],
) -> Work:
    train = recipe.train
    # Twice the window: a target of many short spans is longer than its text, and the model itself
    # has no limit.
    config = recipe.model.config(tokenizer.vocab_size, 2 * train.seq_len)
    if not isinstance(config, EncoderDecoderConfig):
        raise RecipeError("spans and pairs are for encoder-decoders", where="model.architecture")
    (start_id,) = special_ids(tokenizer, (PAD,))
    speechless = np.flatnonzero(tokenizer.byte_lengths == 0)

    def batches(found: Sequence[Row]) -> list[SourceTargetBatch]:
        slices = micro_batches(len(found), train.seq_len, train.micro_batch_tokens)
        return [collate(found[here], start_id) for here in slices]

    @cache
    def baselines() -> Mapping[str, float]:
        targets = (segment.text for row in held_out() for segment in row)
        return accuracies(baseline(), targets, speechless)

    def evaluate(model: EncoderDecoder) -> Mapping[str, float]:
        judged = batches(list(held_out()))
        return {**target_scores(model, judged, tokenizer.byte_lengths), **baselines()}

    def samples(model: EncoderDecoder) -> list[Mapping[str, str]]:
        written: list[Mapping[str, str]] = []
        for prompt in train.sample_prompts:
            ids = tokenizer.encode(prompt, special=True)[: train.seq_len - 1]
            target = generate_target(
                model, [*ids, tokenizer.eos_id], train.seq_len,
                start_id=start_id, stop_ids=(tokenizer.eos_id,),
            )  # fmt: skip
            text = written_out(tokenizer, [i for i in target if i != tokenizer.eos_id])
            written.append({"prompt": prompt, "text": text})
        return written

    return Work(
        config=config,
        task=Task(
            batches=lambda step: batches(rows(step)),
            loss=target_loss,
            evaluate=evaluate,
            samples=samples,
            describe=describe,
        ),
        tokenizer_directory=tokenizer.directory,
        flops_per_token=flops_per_pair(config, *lengths).training / train.seq_len,
        warnings=warnings,
    )
