"""Masked tokens and sentence pairs: losses against plain torch, chance, learning, no leakage."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isoflop.core.errors import DataError, RecipeError
from isoflop.data import tokenizer
from isoflop.data.loader import IGNORED
from isoflop.data.shards import Shards
from isoflop.models.config import EncoderConfig
from isoflop.models.convert import load_model
from isoflop.models.encoder import Encoder
from isoflop.models.initialise import initialise
from isoflop.models.recipe import ModelConfig
from isoflop.training.batches import open_data
from isoflop.training.masked import MaskedBatch, masked_loss, masked_targets, masked_task
from isoflop.training.objective_recipe import ObjectiveConfig
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.pretrain import train
from isoflop.training.recipe import DataConfig, TrainConfig, TrainRecipe
from isoflop.training.stops import Interrupted

pytestmark = pytest.mark.usefixtures("calibrated")


@pytest.fixture(scope="session")
def bert_recipe(marked_shards: Shards) -> TrainRecipe:
    """Forty steps of a tiny encoder with sentence pairs."""
    return TrainRecipe(
        data=DataConfig(shards=marked_shards.directory, packing="buckets"),
        model=ModelConfig(architecture="bert", d_model=32, n_layers=1),
        optimizer=OptimizerConfig(learning_rate=5e-3, warmup_tokens=1024),
        train=TrainConfig(
            tokens=40 * 512, seq_len=32, global_batch_tokens=512, micro_batch_tokens=256,
            eval_tokens=2048, evaluations=2, log_every=5, checkpoint_every=16, threads=1,
            sample_prompts=("loss [MASK] model",), tensorboard=False,
        ),
    )  # fmt: skip


def without_pairs(recipe: TrainRecipe, packing: str) -> TrainRecipe:
    return replace(
        recipe,
        data=replace(recipe.data, packing=packing),
        objective=ObjectiveConfig(sentence_pairs=False),
    )


def encoder(vocab_size: int, seed: int = 0, **changes: Any) -> Encoder:
    config = EncoderConfig(vocab_size, 32, 2, 2, 64, 32, **changes)
    model = Encoder(config)
    initialise(model, seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.normal_(0.0, 0.2, generator=draw)
    return model


def test_the_loss_of_a_step_is_the_mean_over_masked_tokens_plus_the_mean_over_pairs(
    bert_recipe: TrainRecipe,
) -> None:
    data = open_data(bert_recipe)
    task = masked_task(bert_recipe, data)
    model = encoder(data.vocab_size)
    batches = task.batches(0)
    assert len(batches) == 2
    total = sum(task.loss(model, batch) for batch in batches)
    count = sum(batch.n_valid for batch in batches)
    token_losses, pair_losses = [], []
    for batch in batches:  # row by row, by log-softmax over the whole output
        for row in range(len(batch.ids_BT)):
            n = int((batch.document_BT[row] == 0).sum()) if batch.document_BT is not None else None
            ids, types = batch.ids_BT[row : row + 1, :n], batch.type_BT[row : row + 1, :n]
            log_probs = model(ids, None, types)[0].log_softmax(-1)
            for place in torch.nonzero(batch.labels_BT[row] != IGNORED).ravel().tolist():
                token_losses.append(-log_probs[place, batch.labels_BT[row, place]].item())
            states = model.hidden(ids, None, types)
            pair = model.pair_logits(states[:, 0])[0].log_softmax(-1)
            pair_losses.append(-pair[batch.random_B[row]].item())
    assert len(token_losses) == count
    expected = np.mean(token_losses) + np.mean(pair_losses)
    assert (total / count).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("packing", ["stream", "best-fit", "buckets"])
def test_nothing_of_another_document_reaches_a_masked_token(
    bert_recipe: TrainRecipe, packing: str
) -> None:
    recipe = without_pairs(bert_recipe, packing)
    data = open_data(recipe)
    model = encoder(data.vocab_size)
    batch = next(b for b in masked_task(recipe, data).batches(0) if b.document_BT is not None)
    with torch.no_grad():
        states = model.hidden(batch.ids_BT, batch.document_BT)
        for number in range(2):
            changed = torch.where(batch.document_BT == number, batch.ids_BT, 5)
            again = model.hidden(changed, batch.document_BT)
            own = batch.document_BT == number
            assert torch.equal(again[own], states[own])
            assert not torch.equal(again[~own], states[~own])


def test_micro_batches_hold_the_same_rows_and_masks(bert_recipe: TrainRecipe) -> None:
    whole = replace(bert_recipe, train=replace(bert_recipe.train, micro_batch_tokens=512))
    for recipe_pair in (
        (bert_recipe, whole),
        (without_pairs(bert_recipe, "best-fit"), without_pairs(whole, "best-fit")),
    ):
        parts, (one,) = (masked_task(r, open_data(r)).batches(7) for r in recipe_pair)
        assert torch.equal(torch.cat([b.ids_BT for b in parts]), one.ids_BT)
        assert torch.equal(torch.cat([b.labels_BT for b in parts]), one.labels_BT)
        assert {b.pair_weight for b in parts} == {one.pair_weight}


def test_an_untrained_model_scores_chance(bert_recipe: TrainRecipe) -> None:
    data = open_data(bert_recipe)
    model = Encoder(EncoderConfig(data.vocab_size, 32, 1, 1, 64, 32))
    initialise(model, 0)
    with torch.no_grad():
        scores = masked_task(bert_recipe, data).evaluate(model)
    # All tokens are about as likely: ln V but for the spread of random logits.
    assert scores["masked_loss"] == pytest.approx(math.log(data.vocab_size), abs=0.5)
    # It guesses one token for all, and no such guess beats the commonest.
    assert scores["masked_accuracy"] <= scores["unigram_accuracy"] + 0.01
    # A head of zero mean is not calibrated, but knows no more than a coin.
    assert 0.35 < scores["pair_accuracy"] < 0.65
    assert scores["loss"] == pytest.approx(scores["masked_loss"] + scores["pair_loss"])
    assert scores["unigram_accuracy"] < scores["ngram_accuracy"] < 1


def test_a_tiny_model_learns_a_planted_rule() -> None:
    """Every row repeats one token, so what is visible tells what is hidden."""
    vocab, draw = 21, np.random.default_rng(0)
    model = encoder(vocab, pair_head=False)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)

    def batch() -> MaskedBatch:
        ids = np.repeat(draw.integers(0, 20, (32, 1)), 8, axis=1)
        hidden = draw.random(ids.shape) < 0.5
        hidden[:, 0], hidden[:, 1] = True, False
        labels = np.where(hidden, ids, IGNORED)
        ids = np.where(hidden, 20, ids)
        parts = (torch.from_numpy(ids), torch.from_numpy(labels))
        return MaskedBatch(*parts, None, None, None, 1.0, int(hidden.sum()))

    def mean_loss() -> torch.Tensor:
        made = batch()
        return masked_loss(model, made) / made.n_valid

    assert mean_loss().item() == pytest.approx(math.log(vocab), abs=1.0)
    for _ in range(120):
        mean_loss().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        assert mean_loss().item() < 0.3


def test_killed_and_continued_it_ends_with_the_same_bits_and_opens_in_transformers(
    bert_recipe: TrainRecipe, tmp_path: Path, content_of: Callable[[Path], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole = train(bert_recipe, tmp_path / "whole").run
    from isoflop.training import loop

    real, calls = loop.apply_gradient, []

    def dying(optimizer: torch.optim.Optimizer, lr: float) -> None:
        calls.append(lr)
        if len(calls) == 23:
            raise Interrupted(9)
        real(optimizer, lr)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "apply_gradient", dying)
        with pytest.raises(Interrupted):
            train(bert_recipe, tmp_path / "killed")
    train(bert_recipe, tmp_path / "killed")
    assert content_of(tmp_path / "killed") == content_of(whole)

    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForPreTraining.from_pretrained(whole / "model").eval()
    words = transformers.AutoTokenizer.from_pretrained(whole / "model")
    assert (words.mask_token, words.cls_token, words.sep_token) == ("[MASK]", "[CLS]", "[SEP]")
    assert words.pad_token == "[PAD]" == words.convert_ids_to_tokens(theirs.config.pad_token_id)
    ours = load_model(whole / "model")
    assert isinstance(ours, Encoder)
    ids = torch.randint(0, ours.config.vocab_size, (2, 20), generator=torch.Generator())
    types = (torch.arange(20) >= 9).long().expand(2, 20)
    with torch.no_grad():
        found = theirs(input_ids=ids, token_type_ids=types)
        states = ours.hidden(ids, None, types)
        torch.testing.assert_close(found.prediction_logits, ours.token_logits(states))
        torch.testing.assert_close(found.seq_relationship_logits, ours.pair_logits(states[:, 0]))


def test_missing_special_tokens_are_an_error_that_says_how_to_get_them(
    bert_recipe: TrainRecipe, tiny_shards: Shards
) -> None:
    recipe = replace(bert_recipe, data=replace(bert_recipe.data, shards=tiny_shards.directory))
    with pytest.raises(DataError, match=r"lacks .*\[MASK\].*--reserve '\[PAD\]' '\[CLS\]'"):
        masked_task(recipe, open_data(recipe))


def test_what_does_not_fit_is_refused_at_once(bert_recipe: TrainRecipe) -> None:
    with pytest.raises(RecipeError, match=r'data\.packing = "buckets"'):
        replace(bert_recipe, data=replace(bert_recipe.data, packing="stream"))
    with pytest.raises(RecipeError, match="bert takes masked"):
        replace(bert_recipe, objective=ObjectiveConfig(kind="causal"))


def test_targets_of_the_baselines_are_the_true_text_between_special_tokens(
    bert_recipe: TrainRecipe,
) -> None:
    data = open_data(bert_recipe)
    words = tokenizer.load(data.tokenizer_directory)
    batch = masked_task(bert_recipe, data).batches(0)[0]
    parts = list(masked_targets(batch, words.byte_lengths))
    assert sum(int(part.asked.sum()) for part in parts) == batch.n_valid
    train_text = data.shards.train.tokens.astype(np.int64).tobytes()
    for part in parts:
        assert (words.byte_lengths[part.ids] > 0).all()
        assert part.ids.astype(np.int64).tobytes() in train_text
