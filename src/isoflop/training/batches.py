"""The data of a pre-training run: its windows, alone or mixed, and what it is judged on.

Not for making windows (`isoflop.data`) nor for learning from them (`pretrain.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from isoflop.core.artifact import sha256_file
from isoflop.core.errors import DataError
from isoflop.data.buckets import BucketLoader, in_pieces
from isoflop.data.loader import (
    EvalWindows,
    Loader,
    Order,
    StreamLoader,
    Stretches,
    Windows,
    eval_windows,
)
from isoflop.data.mixture import MixtureLoader, Source, tempered
from isoflop.data.packing import PackedLoader
from isoflop.data.shards import Shards, Split, open_shards
from isoflop.laws.repetition import effective_data
from isoflop.training.batch_ramp import BatchRamp
from isoflop.training.recipe import DataConfig, MixtureSource, TrainRecipe

MOST_EPOCHS = 1.0 + 15.4
"""1 + R_D* of Muennighoff et al. 2023: from there on a repeated token is worth less than 1/e of a
fresh one."""


@dataclass(frozen=True)
class HeldOut:
    """Windows that a source is judged on."""

    share: float
    """Of the training tokens that the source gives."""
    windows: EvalWindows


@dataclass(frozen=True)
class TrainingData:
    """Opened data of a run."""

    order: Order
    held_out: Mapping[str, HeldOut]
    """By source of the mixture; under "" alone where there is none."""
    vocab_size: int
    eos_id: int
    parts: Mapping[str, Shards]
    """The directories, by source of the mixture; under "" alone where there is none."""
    tokenizer_directory: Path
    warnings: tuple[str, ...]
    """Sources that are repeated so often that it hardly helps."""

    @property
    def shards(self) -> Shards:
        """The first directory."""
        return next(iter(self.parts.values()))

    def origin(self, found: Mapping[str, Stretches]) -> dict[str, Any]:
        """Which training documents these stretches are of: their numbers by source of the mixture,
        or by name of the only directory. Document n is row n, from 0, of the corpus's `train`."""
        documents: dict[str, list[int]] = {}
        for source, stretches in found.items():
            shards = self.parts[source]
            edges = shards.train.document_starts
            first = np.searchsorted(edges, stretches.starts_N, "right") - 1
            last = np.searchsorted(edges, stretches.starts_N + stretches.lengths_N, "left") - 1
            numbers = {n for a, b in zip(first, last, strict=True) for n in range(a, b + 1)}
            documents[source or shards.directory.name] = sorted(int(n) for n in numbers)
        return {"documents": documents}

    def position(self, n_windows: int) -> dict[str, float]:
        """Share and epochs of each source of a mixture after so many windows."""
        if not isinstance(self.order, MixtureLoader):
            return {}
        found: dict[str, float] = {}
        for name, realised in self.order.realised(n_windows).items():
            found |= {f"share_{name}": realised.share, f"epochs_{name}": realised.epochs}
        return found


@dataclass(frozen=True)
class StepRows:
    """The rows of one step."""

    windows: Windows
    rows_B: npt.NDArray[np.int64]
    """Global index of each, the same in every layout of a run."""


def step_indices(order: Order, ramp: BatchRamp, seq_len: int, step: int) -> npt.NDArray[np.int64]:
    """The global indices that an order is asked for in a step (from 0)."""
    if isinstance(order, BucketLoader):  # one batch a step, whatever it holds
        return np.array([step])
    first, count = ramp.first_token(step) // seq_len, ramp.batch_tokens(step) // seq_len
    return np.arange(first, first + count)


def step_rows(order: Order, ramp: BatchRamp, seq_len: int, step: int) -> StepRows:
    """The rows of the global batch of a step (from 0)."""
    indices = step_indices(order, ramp, seq_len, step)
    windows = order.batch(int(indices[0]), len(indices))
    if isinstance(order, BucketLoader):
        rows_B = step // order.n_windows * order.split.n_documents + order.documents(step)
        return StepRows(windows, rows_B)
    return StepRows(windows, indices)


def described(recipe: TrainRecipe, data: TrainingData, step: int) -> dict[str, Any]:
    """Which documents the batch of a step is of."""
    indices = step_indices(data.order, recipe.batch_ramp, recipe.train.seq_len, step)
    return data.origin(data.order.stretches(indices))


def micro_batches(n_rows: int, width: int, tokens: int) -> Iterator[slice]:
    """Rows of at most so many tokens together."""
    rows = max(1, tokens // width)
    return (slice(i, min(n_rows, i + rows)) for i in range(0, n_rows, rows))


def held_out_rows(recipe: TrainRecipe, split: Split) -> Iterator[StepRows]:
    """Rows of a held-out split, dealt as the training's are, always the same: each once at most
    and about `train.eval_tokens` in all."""
    order = order_of(split, recipe, seed=0)
    if isinstance(order, BucketLoader):
        wanted = recipe.train.eval_tokens
        for index in range(order.n_windows):
            rows = step_rows(order, recipe.batch_ramp, recipe.train.seq_len, index)
            yield rows
            wanted -= rows.windows.ids_BT.size
            if wanted <= 0:
                return
        return
    wanted = min(order.n_windows, max(1, recipe.train.eval_tokens // recipe.train.seq_len))
    yield StepRows(order.batch(0, wanted), np.arange(wanted))


def open_data(recipe: TrainRecipe) -> TrainingData:
    """Open the shards of a recipe.

    Raises:
        ArtifactError: A shard directory cannot be used.
        DataError: The sources of a mixture have different tokenizers, or one is too short.
    """
    train, data = recipe.train, recipe.data
    opened = [open_shards(directory) for directory in data.directories]
    _require_one_tokenizer(opened)
    n_windows = recipe.batch_ramp.first_token(recipe.steps) // train.seq_len
    if data.packing == "buckets":  # whose index counts batches
        n_windows = recipe.steps
    orders = [order_of(shards.train, recipe, train.seed) for shards in opened]
    held_out: dict[str, HeldOut] = {}
    order: Order = orders[0]
    names, counts = ["the shards"], [n_windows]
    if data.mixture:
        points = _weights(data, opened)
        sources = [
            Source(source.name, each, weight)
            for source, each, weight in zip(data.mixture, orders, points, strict=True)
        ]
        order = mixture = MixtureLoader(sources, n_windows)
        ends = mixture.realised(n_windows)
        names = [source.name for source in sources]
        counts = [round(ends[name].share * n_windows) for name in names]
    eval_tokens = train.eval_tokens // len(opened)
    for name, shards, count in zip(names, opened, counts, strict=True):
        windows = eval_windows(shards.held_out, train.seq_len, eval_tokens)
        held_out[name if data.mixture else ""] = HeldOut(count / n_windows, windows)
    distinct = [each.n_windows * train.seq_len for each in orders]
    if data.packing == "buckets":
        distinct = [shards.train.n_tokens for shards in opened]
    return TrainingData(
        order=order,
        held_out=held_out,
        vocab_size=opened[0].vocab_size,
        eos_id=opened[0].eos_id,
        parts=dict(zip(held_out, opened, strict=True)),
        tokenizer_directory=opened[0].tokenizer_directory,
        warnings=tuple(
            _warning(name, count * unique // each.n_windows, unique)
            for name, count, each, unique in zip(names, counts, orders, distinct, strict=True)
            if count / each.n_windows > MOST_EPOCHS
        ),
    )


def order_of(split: Split, recipe: TrainRecipe, seed: int) -> Order:
    """The windows of a split as the recipe wants them dealt.

    Raises:
        DataError: The split is too short.
    """
    train, packing = recipe.train, recipe.data.packing
    if packing == "best-fit":
        return PackedLoader(split, train.seq_len, seed)
    if packing == "streams":
        return StreamLoader(split, train.seq_len, train.global_batch_tokens // train.seq_len)
    if packing == "buckets":
        pieces = in_pieces(split, train.seq_len)
        return BucketLoader(pieces, train.seq_len, train.global_batch_tokens, seed)
    return Loader(split, train.seq_len, seed)


def _weights(data: DataConfig, opened: list[Shards]) -> list[tuple[tuple[float, float], ...]]:
    if any(source.curriculum for source in data.mixture):
        return [source.curriculum or _constant(source) for source in data.mixture]
    sizes = [
        float(shards.train.n_tokens) if source.weight is None else source.weight
        for source, shards in zip(data.mixture, opened, strict=True)
    ]
    return [((0.0, weight),) for weight in tempered(sizes, data.temperature)]


def _constant(source: MixtureSource) -> tuple[tuple[float, float], ...]:
    return ((0.0, 0.0 if source.weight is None else source.weight),)


def _require_one_tokenizer(opened: list[Shards]) -> None:
    first = sha256_file(opened[0].tokenizer_directory / "tokenizer.json")
    for shards in opened[1:]:
        if sha256_file(shards.tokenizer_directory / "tokenizer.json") != first:
            raise DataError(
                f"another tokenizer than that of {opened[0].directory}",
                where=str(shards.directory),
                fix="Make all shards of a mixture with one tokenizer",
            )


def _warning(name: str, tokens: int, unique: int) -> str:
    worth = effective_data(tokens, unique)
    return (
        f"{name}: {unique:,} tokens are repeated {worth.epochs:.1f} times, which is worth "
        f"{worth.fresh:,.0f} fresh tokens of the {tokens:,} seen (Muennighoff et al. 2023; "
        f"beyond {MOST_EPOCHS:.0f} epochs repetition hardly helps)"
    )
