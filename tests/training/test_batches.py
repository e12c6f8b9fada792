"""Data of a run: mixtures by weights, what is logged of them, what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isoflop.core.errors import DataError, RecipeError, RunError
from isoflop.core.recipe import from_dict, load_recipe, to_dict
from isoflop.data import corpus, shards, tokenizer
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.shards import Shards
from isoflop.training.batches import described, open_data, step_rows
from isoflop.training.pretrain import train
from isoflop.training.recipe import DataConfig, MixtureSource, TrainRecipe

pytestmark = pytest.mark.usefixtures("calibrated")

ContentOf = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="module")
def small(tiny_shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Word problems alone, with the tokenizer of `tiny_shards`."""
    folder = tmp_path_factory.mktemp("small")
    sources = (SourceConfig("word-problems", documents=60),)
    text = corpus.build(DataRecipe(sources=sources, held_out_fraction=0.2, seed=1), folder / "c")
    return shards.tokenize(text, tiny_shards.tokenizer_directory, folder / "shards")


@pytest.fixture(scope="module")
def mixed(train_recipe: TrainRecipe, tiny_shards: Shards, small: Shards) -> TrainRecipe:
    mixture = (
        MixtureSource("words", tiny_shards.directory, curriculum=((0.0, 1.0), (1.0, 0.0))),
        MixtureSource("problems", small.directory, curriculum=((0.0, 0.0), (1.0, 1.0))),
    )
    changed = replace(train_recipe.train, tokens=10_240, evaluations=2, sample_prompts=())
    return replace(train_recipe, data=DataConfig(mixture=mixture), train=changed)


@pytest.fixture(scope="module")
def mixed_run(
    mixed: TrainRecipe, calibrated_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(calibrated_cache))
        return train(mixed, tmp_path_factory.mktemp("mixed") / "run").run


def rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_mixture_trains_and_logs_what_it_dealt(mixed_run: Path, small: Shards) -> None:
    first, *_, last = rows(mixed_run / "metrics.jsonl")
    assert first["share_problems"] < 0.15
    assert last["share_problems"] == pytest.approx(0.5, abs=0.01)
    assert last["share_words"] + last["share_problems"] == pytest.approx(1.0)
    per_epoch = (small.train.n_tokens - 1) // 32
    assert last["epochs_problems"] == pytest.approx(last["share_problems"] * 320 / per_epoch)
    score = rows(mixed_run / "evals.jsonl")[-1]
    both = score["loss_words"], score["loss_problems"]
    weights = last["share_words"], last["share_problems"]
    assert score["loss"] == pytest.approx(np.dot(both, weights))
    assert json.loads((mixed_run / "result.json").read_text())["loss"] == score["loss"]
    assert score["share_problems"] == last["share_problems"]
    assert math.isfinite(score["bits_per_byte"])


def test_a_mixture_resumes_to_the_same_bits(
    mixed: TrainRecipe,
    mixed_run: Path,
    content_of: ContentOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from isoflop.training import loop

    steps = iter(range(10**6))
    real = loop.compute_gradient

    def stopped(*args: Any) -> Any:
        if next(steps) == 22:  # between two checkpoints
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(loop, "compute_gradient", stopped)
    with pytest.raises(KeyboardInterrupt):
        train(mixed, tmp_path / "broken")
    monkeypatch.setattr(loop, "compute_gradient", real)
    resumed = train(mixed, tmp_path / "broken").run
    assert content_of(resumed) == content_of(mixed_run)


def test_weights_follow_tokens_unless_given_and_temperature_flattens_them(
    train_recipe: TrainRecipe, tiny_shards: Shards, small: Shards
) -> None:
    pair = (
        MixtureSource("a", tiny_shards.directory),
        MixtureSource("b", small.directory),
    )
    sizes = np.array([tiny_shards.train.n_tokens, small.train.n_tokens], dtype=float)

    def share(data: DataConfig) -> float:
        opened = open_data(replace(train_recipe, data=data))
        return opened.position(800)["share_b"]

    assert share(DataConfig(mixture=pair)) == pytest.approx(sizes[1] / sizes.sum(), abs=2 / 800)
    roots = sizes**0.5
    flat = DataConfig(mixture=pair, temperature=2.0)
    assert share(flat) == pytest.approx(roots[1] / roots.sum(), abs=2 / 800)
    given = tuple(replace(s, weight=w) for s, w in zip(pair, (1.0, 3.0), strict=True))
    assert share(DataConfig(mixture=given)) == pytest.approx(0.75, abs=2 / 800)


def test_best_fit_packing_trains(
    train_recipe: TrainRecipe, tiny_shards: Shards, tmp_path: Path
) -> None:
    packed = replace(train_recipe, data=DataConfig(tiny_shards.directory, packing="best-fit"))
    batch = open_data(packed).order.batch(0, 8)
    assert (batch.document_BT[:, -1] > 0).any()
    short = replace(packed, train=replace(packed.train, tokens=2560, evaluations=1))
    assert math.isfinite(train(short, tmp_path / "run").loss)


def test_streams_go_on_where_the_step_before_stopped_and_train(
    train_recipe: TrainRecipe, tiny_shards: Shards, tmp_path: Path
) -> None:
    streams = replace(train_recipe, data=DataConfig(tiny_shards.directory, packing="streams"))
    rows = [
        step_rows(open_data(streams).order, streams.batch_ramp, 32, step).windows
        for step in range(3)
    ]
    assert len(rows[0].ids_BT) == 8
    for before, after in pairwise(rows):
        assert np.array_equal(before.labels_BT[:, -1], after.ids_BT[:, 0])
    short = replace(streams, train=replace(streams.train, tokens=2560, evaluations=1))
    assert math.isfinite(train(short, tmp_path / "run").loss)


def test_buckets_deal_every_token_of_an_epoch_once_and_train(
    train_recipe: TrainRecipe, tiny_shards: Shards, tmp_path: Path
) -> None:
    buckets = replace(train_recipe, data=DataConfig(tiny_shards.directory, packing="buckets"))
    order = open_data(buckets).order
    found, indices = 0, []
    for step in range(order.n_windows):
        rows = step_rows(order, buckets.batch_ramp, 32, step)
        assert rows.windows.ids_BT.size <= 256
        found += int((rows.windows.document_BT == 0).sum())
        indices += rows.rows_B.tolist()
    assert found == tiny_shards.train.n_tokens
    assert sorted(indices) == list(range(len(indices)))
    short = replace(buckets, train=replace(buckets.train, tokens=2560, evaluations=1))
    assert math.isfinite(train(short, tmp_path / "run").loss)


@pytest.mark.parametrize("packing", ["stream", "best-fit", "buckets", "streams"])
def test_the_documents_of_a_step_hold_its_tokens(
    packing: Any, train_recipe: TrainRecipe, tiny_shards: Shards
) -> None:
    recipe = replace(train_recipe, data=DataConfig(tiny_shards.directory, packing=packing))
    data, train_part = open_data(recipe), tiny_shards.train
    text = train_part.tokens.astype(np.int64)
    for step in (0, 7):
        windows = step_rows(data.order, recipe.batch_ramp, 32, step).windows
        (numbers,) = described(recipe, data, step)["documents"].values()
        cuts = [text[slice(*train_part.document_starts[n : n + 2])].tobytes() for n in numbers]
        used = set[int]()
        for ids in windows.ids_BT:
            ends = np.flatnonzero(ids == tiny_shards.eos_id).tolist()
            for a, b in pairwise([0, *(e + 1 for e in ends), len(ids)]):
                if b - a > 5:  # neither padding nor so short that it is found everywhere
                    piece = ids[a:b][ids[a:b] != tiny_shards.eos_id].tobytes()
                    holders = {n for n, cut in zip(numbers, cuts, strict=True) if piece in cut}
                    assert holders
                    used |= holders
        assert len(used) > 0.8 * len(numbers), "no others are named"


def test_the_documents_of_a_mixture_are_told_source_by_source(
    mixed: TrainRecipe, small: Shards
) -> None:
    data = open_data(mixed)
    early, late = (described(mixed, data, step)["documents"] for step in (0, 39))
    assert len(early["words"]) > len(late.get("words", ()))
    assert len(late["problems"]) > len(early.get("problems", ()))
    assert max(late["problems"]) < small.train.n_documents


def test_a_source_repeated_too_often_is_warned_of(
    mixed: TrainRecipe, tiny_shards: Shards, small: Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_data(mixed).warnings == ()
    long = replace(mixed, train=replace(mixed.train, tokens=10_240 * 100))
    (warning,) = open_data(long).warnings
    unique = (small.train.n_tokens - 1) // 32 * 32
    assert warning.startswith(f"problems: {unique:,} tokens are repeated ")
    alone = replace(long, data=DataConfig(small.directory))
    assert open_data(alone).warnings[0].startswith("the shards: ")


def test_sources_of_different_tokenizers_are_refused(mixed: TrainRecipe, tmp_path: Path) -> None:
    sources = (SourceConfig("word-problems", documents=60),)
    text = corpus.build(DataRecipe(sources=sources, held_out_fraction=0.2), tmp_path / "c")
    tokenizer.train(text, 280, tmp_path / "t")
    shards.tokenize(text, tmp_path / "t", tmp_path / "other")
    foreign = replace(mixed.data.mixture[1], shards=tmp_path / "other")
    data = DataConfig(mixture=(mixed.data.mixture[0], foreign))
    with pytest.raises(DataError, match="another tokenizer than that of"):
        open_data(replace(mixed, data=data))


def test_the_shards_of_a_mixture_may_move_and_its_weights_may_not(
    mixed: TrainRecipe, small: Shards, tmp_path: Path
) -> None:
    from isoflop.training.run_directory import claim

    (tmp_path / "run").mkdir()
    claim(tmp_path / "run", mixed)
    (tmp_path / "moved").symlink_to(small.directory)
    first, second = mixed.data.mixture
    moved = (first, replace(second, shards=tmp_path / "moved"))
    claim(tmp_path / "run", replace(mixed, data=DataConfig(mixture=moved)))
    other = (first, replace(second, curriculum=((0.0, 1.0),)))
    with pytest.raises(RunError, match=r"data\.mixture\.problems\.curriculum was .*, now"):
        claim(tmp_path / "run", replace(mixed, data=DataConfig(mixture=other)))


TOML = """
[data]
{extra}
[[data.mixture]]
name = "a"
shards = "a/shards"
{a}
[[data.mixture]]
name = "{b_name}"
shards = "b/shards"
{b}
"""


def test_a_mixture_is_written_in_toml(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    curriculum = "curriculum = [[0.0, 1.0], [0.5, 0.2]]"
    path.write_text(TOML.format(extra="", a="weight = 2", b=curriculum, b_name="b"))
    recipe = load_recipe(path, TrainRecipe)
    assert recipe.data.directories == (tmp_path / "a/shards", tmp_path / "b/shards")
    assert recipe.data.mixture[1].curriculum == ((0.0, 1.0), (0.5, 0.2))
    assert from_dict(TrainRecipe, json.loads(json.dumps(to_dict(recipe))), "x") == recipe


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"extra": 'shards = "s"'}, "either data.shards or"),
        ({"b_name": "a"}, "two sources of data.mixture are named a"),
        ({"a": "weight = 1"}, "give weights to all"),
        ({"a": "weight = 1", "b": "weight = 0"}, "weight 0.0 must be positive"),
        ({"a": "weight = 1\ncurriculum = [[0, 1]]"}, "give weight or curriculum"),
        ({"extra": "temperature = 0"}, "must be positive"),
    ],
)
def test_impossible_mixtures_are_refused(
    tmp_path: Path, parts: dict[str, str], message: str
) -> None:
    path = tmp_path / "r.toml"
    path.write_text(TOML.format(**{"extra": "", "a": "", "b": "", "b_name": "b", **parts}))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path, TrainRecipe)
    with pytest.raises(RecipeError, match="either data"):
        DataConfig()
