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
from isoflop.training.batches import open_data
from isoflop.training.pretrain import train, work_of
from isoflop.training.recipe import DataConfig, TrainRecipe
from isoflop.training.seq2seq import span_work, target_loss

pytestmark = pytest.mark.usefixtures("calibrated")


@pytest.fixture(scope="session")
def span_recipe(marked_recipe: Callable[..., TrainRecipe]) -> TrainRecipe:
    """Thirty steps of a tiny encoder-decoder on packed documents."""
    return marked_recipe("t5", "best-fit", 30, "loss <extra_id_0> model")


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


def test_the_loss_of_packed_documents_is_that_of_each_document_by_itself(
    span_recipe: TrainRecipe, randomised: Callable[..., EncoderDecoder]
) -> None:
    """Which also proves that none sees another: alone, there is none to be seen."""
    settings = replace(span_recipe.train, seq_len=128)
    work = work_of(replace(span_recipe, train=settings))
    assert isinstance(work.config, EncoderDecoderConfig)
    model = randomised(EncoderDecoder(work.config))
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
    span_recipe: TrainRecipe, content_of: Callable[[Path], dict[str, Any]],
    killed_and_continued: Callable[..., tuple[Path, Path]],
) -> None:  # fmt: skip
    whole, killed = killed_and_continued(span_recipe, 21)
    assert content_of(killed) == content_of(whole)
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


def test_the_documents_of_a_step_hold_what_its_sources_keep_and_lose(
    span_recipe: TrainRecipe,
) -> None:
    data = open_data(span_recipe)
    text = data.shards.train
    task = span_work(span_recipe, data).task
    (numbers,) = task.describe(2)["documents"].values()
    named = np.concatenate([text.tokens[slice(*text.document_starts[n : n + 2])] for n in numbers])
    is_text = tokenizer.load(data.tokenizer_directory).byte_lengths > 0
    dealt = np.concatenate(
        [part[part >= 0] for b in task.batches(2) for part in (b.source_BS, b.labels_BT)]
    )
    counts = [np.bincount(ids[is_text[ids]], minlength=len(is_text)) for ids in (dealt, named)]
    assert (counts[0] <= counts[1]).all(), "a document longer than a window is there in part"
    several = [n for n in numbers if len(text.tokens[slice(*text.document_starts[n : n + 2])]) < 33]
    assert len(several) > 3, "short documents are there whole"
    for number in several:
        start, end = text.document_starts[number : number + 2]
        whole = np.bincount(text.tokens[start : end - 1], minlength=len(is_text))
        assert (whole <= counts[0]).all()


def test_the_lines_of_a_step_are_those_of_its_pairs(pair_recipe: TrainRecipe) -> None:
    task = work_of(pair_recipe).task
    words = tokenizer.load(pair_recipe.data.tokenizer)
    file = pair_recipe.data.pairs.read_text().splitlines()
    named = [json.loads(file[line - 1])["source"] for line in task.describe(5)["lines"]]
    dealt = [
        words.decode([i for i in row.tolist() if is_text[i]])
        for is_text in [words.byte_lengths > 0]
        for batch in task.batches(5)
        for row in batch.source_BS
    ]
    assert sorted(dealt) == sorted(named)


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
    short = replace(span_recipe.train, seq_len=4, micro_batch_tokens=256)
    with pytest.raises(RecipeError, match=r"seq_len = 4, of which .* less than one token to drop"):
        replace(span_recipe, train=short)
    with pytest.raises(RecipeError, match=r"seq2seq and data\.pairs go together"):
        replace(span_recipe, objective=replace(objective, kind="seq2seq"))
