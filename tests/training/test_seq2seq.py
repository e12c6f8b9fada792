"""Span corruption and pairs: losses against plain torch, no leakage, resumption, learning."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isoflop.core.errors import ArtifactError, DataError, RecipeError
from isoflop.data import tokenizer
from isoflop.data.loader import IGNORED
from isoflop.data.shards import Shards
from isoflop.models.config import EncoderDecoderConfig
from isoflop.models.convert import load_model
from isoflop.models.encoder_decoder import EncoderDecoder
from isoflop.models.generate_target import generate_target
from isoflop.models.initialise import initialise
from isoflop.models.recipe import ModelConfig
from isoflop.training import loop
from isoflop.training.batches import open_data
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.pretrain import train, work_of
from isoflop.training.recipe import DataConfig, TrainConfig, TrainRecipe
from isoflop.training.seq2seq import span_work, target_loss
from isoflop.training.stops import Interrupted

pytestmark = pytest.mark.usefixtures("calibrated")


@pytest.fixture(scope="session")
def span_recipe(marked_shards: Shards) -> TrainRecipe:
    """Thirty steps of a tiny encoder-decoder on packed documents."""
    return TrainRecipe(
        data=DataConfig(shards=marked_shards.directory, packing="best-fit"),
        model=ModelConfig(architecture="t5", d_model=32, n_layers=1),
        optimizer=OptimizerConfig(learning_rate=5e-3, warmup_tokens=1024),
        train=TrainConfig(
            tokens=30 * 512, seq_len=32, global_batch_tokens=512, micro_batch_tokens=256,
            eval_tokens=2048, evaluations=2, log_every=5, checkpoint_every=16, threads=1,
            sample_prompts=("loss <extra_id_0> model",), tensorboard=False,
        ),
    )  # fmt: skip


@pytest.fixture(scope="session")
def pair_recipe(
    span_recipe: TrainRecipe, marked_shards: Shards, tmp_path_factory: pytest.TempPathFactory
) -> TrainRecipe:
    """The one letter of the source, to be written in upper case."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    draw = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        for number in range(400):
            letter = draw.choice("abcdefgh")
            pair = {"source": f"{letter} {number:03d}", "target": letter.upper()}
            file.write(json.dumps(pair) + "\n")
    data = DataConfig(pairs=path, tokenizer=marked_shards.tokenizer_directory)
    settings = replace(span_recipe.train, sample_prompts=("c 123",))
    return replace(span_recipe, data=data, train=settings)


def model_of(config: Any, seed: int = 0) -> EncoderDecoder:
    assert isinstance(config, EncoderDecoderConfig)
    model = EncoderDecoder(config)
    initialise(model, seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.normal_(0.0, 0.2, generator=draw)
    return model


def test_the_loss_of_packed_documents_is_that_of_each_document_by_itself(
    span_recipe: TrainRecipe,
) -> None:
    """Which also proves that none sees another: alone, there is none to be seen."""
    settings = replace(span_recipe.train, seq_len=128)
    work = work_of(replace(span_recipe, train=settings))
    model = model_of(work.config)
    several = 0
    for batch in work.task.batches(0):
        expected, n = 0.0, 0
        for row in range(len(batch.source_BS)):
            numbers = set(batch.source_document_BS[row].tolist()) - {-1}
            several += len(numbers) > 1
            for number in numbers:
                source = batch.source_BS[row][batch.source_document_BS[row] == number][None]
                here = batch.target_document_BT[row] == number
                target, labels = batch.target_BT[row][here][None], batch.labels_BT[row][here]
                assert target[0, 1:].tolist() == labels[:-1].tolist()
                logits = model(source, target)[0].log_softmax(-1)
                expected -= logits[torch.arange(len(labels)), labels].sum().item()
                n += len(labels)
        assert n == batch.n_valid
        assert target_loss(model, batch).item() == pytest.approx(expected, rel=1e-4)
    assert several >= 3, "of four rows"


def test_sources_and_targets_of_a_step_hold_every_token_of_its_windows(
    span_recipe: TrainRecipe,
) -> None:
    data = open_data(span_recipe)
    words = tokenizer.load(data.tokenizer_directory)
    windows = data.order.batch(0, 16)
    batches = span_work(span_recipe, data).task.batches(0)
    text = words.byte_lengths > 0
    kept = [b.source_BS.numpy().ravel() for b in batches]
    lost = [b.labels_BT.numpy()[b.labels_BT.numpy() != IGNORED] for b in batches]
    found = np.concatenate([*kept, *lost])
    expected = windows.ids_BT.ravel()
    assert sorted(found[text[found]]) == sorted(expected[text[expected]])


def test_killed_and_continued_it_ends_with_the_same_bits_and_opens_in_transformers(
    span_recipe: TrainRecipe, tmp_path: Path, content_of: Callable[[Path], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole = train(span_recipe, tmp_path / "whole").run
    real, calls = loop.apply_gradient, []

    def dying(optimizer: torch.optim.Optimizer, lr: float) -> None:
        calls.append(lr)
        if len(calls) == 21:
            raise Interrupted(9)
        real(optimizer, lr)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "apply_gradient", dying)
        with pytest.raises(Interrupted):
            train(span_recipe, tmp_path / "killed")
    train(span_recipe, tmp_path / "killed")
    assert content_of(tmp_path / "killed") == content_of(whole)
    last = json.loads((whole / "evals.jsonl").read_text().splitlines()[-1])
    assert {"loss", "token_accuracy", "unigram_accuracy", "ngram_accuracy"} <= last.keys()

    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(whole / "model").eval()
    ours = load_model(whole / "model")
    assert isinstance(ours, EncoderDecoder)
    draw = torch.Generator().manual_seed(0)
    source = torch.randint(0, 300, (2, 20), generator=draw)
    target = torch.randint(0, 300, (2, 9), generator=draw)
    with torch.no_grad():
        found = theirs(input_ids=source, decoder_input_ids=target).logits
        torch.testing.assert_close(found, ours(source, target))
        words = tokenizer.load(whole / "model")
        start, end = theirs.config.decoder_start_token_id, words.eos_id
        assert start == words.special_ids["[PAD]"]
        written = generate_target(ours, source[0].tolist(), 12, start_id=start, stop_ids=(end,))
        expected = theirs.generate(source[:1], max_new_tokens=12, do_sample=False)[0].tolist()
    assert [start, *written] == expected


def test_pairs_are_learnt_and_written(pair_recipe: TrainRecipe, tmp_path: Path) -> None:
    longer = replace(pair_recipe, train=replace(pair_recipe.train, tokens=150 * 512))
    result = train(longer, tmp_path / "run")
    rows = [json.loads(r) for r in (tmp_path / "run" / "evals.jsonl").read_text().splitlines()]
    assert rows[-1]["token_accuracy"] > 0.9 > 0.4 > rows[-1]["ngram_accuracy"]
    sample = json.loads((tmp_path / "run" / "samples.jsonl").read_text().splitlines()[-1])
    assert sample["prompt"] == "c 123"
    assert sample["text"] == "C"
    assert result.bits_per_byte is None


def test_pairs_that_are_missing_are_named(pair_recipe: TrainRecipe, tmp_path: Path) -> None:
    gone = replace(pair_recipe, data=replace(pair_recipe.data, pairs=tmp_path / "none.jsonl"))
    with pytest.raises(ArtifactError, match=r"none\.jsonl"):
        train(gone, tmp_path / "run")


def test_missing_sentinels_are_an_error_that_says_how_to_get_them(
    span_recipe: TrainRecipe, tiny_shards: Shards
) -> None:
    recipe = replace(span_recipe, data=replace(span_recipe.data, shards=tiny_shards.directory))
    with pytest.raises(DataError, match=r"--reserve.*<extra_id_0>"):
        work_of(recipe)


def test_what_does_not_fit_is_refused_at_once(span_recipe: TrainRecipe) -> None:
    objective = replace(span_recipe.objective, kind="masked")
    with pytest.raises(RecipeError, match="t5 takes spans or seq2seq"):
        replace(span_recipe, objective=objective)
    with pytest.raises(RecipeError, match=r"seq2seq and data\.pairs go together"):
        replace(span_recipe, objective=replace(objective, kind="seq2seq"))
