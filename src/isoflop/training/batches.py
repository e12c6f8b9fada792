"""The data of a pre-training run: its windows, alone or mixed, and what it is judged on.

Not for making windows (`isoflop.data`) nor for learning from them (`pretrain.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isoflop.core.artifact import sha256_file
from isoflop.core.errors import DataError
from isoflop.data.loader import EvalWindows, Loader, Order, eval_windows
from isoflop.data.mixture import MixtureLoader, Source, tempered
from isoflop.data.packing import PackedLoader
from isoflop.data.shards import Shards, Split, open_shards
from isoflop.laws.repetition import effective_data
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
    tokenizer_directory: Path
    warnings: tuple[str, ...]
    """Sources that are repeated so often that it hardly helps."""

    def position(self, n_windows: int) -> dict[str, float]:
        """Share and epochs of each source of a mixture after so many windows."""
        if not isinstance(self.order, MixtureLoader):
            return {}
        found: dict[str, float] = {}
        for name, realised in self.order.realised(n_windows).items():
            found |= {f"share_{name}": realised.share, f"epochs_{name}": realised.epochs}
        return found


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
    orders = [_order(shards.train, recipe) for shards in opened]
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
    return TrainingData(
        order=order,
        held_out=held_out,
        vocab_size=opened[0].vocab_size,
        eos_id=opened[0].eos_id,
        tokenizer_directory=opened[0].tokenizer_directory,
        warnings=tuple(
            _warning(name, count * train.seq_len, each.n_windows * train.seq_len)
            for name, count, each in zip(names, counts, orders, strict=True)
            if count / each.n_windows > MOST_EPOCHS
        ),
    )


def _order(split: Split, recipe: TrainRecipe) -> Order:
    if recipe.data.packing == "best-fit":
        return PackedLoader(split, recipe.train.seq_len, recipe.train.seed)
    return Loader(split, recipe.train.seq_len, recipe.train.seed)


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
