"""Pre-training from recipe to result: same bits for branches, same losses for micro-batches."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isoflop.core.artifact import read_manifest
from isoflop.core.errors import ArtifactError, RunError
from isoflop.data.loader import IGNORED, Loader, eval_windows
from isoflop.data.shards import Shards
from isoflop.models.accounting import count_parameters, flops_per_token
from isoflop.models.convert import load_decoder
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training import pretrain
from isoflop.training.guard_recipe import GuardConfig
from isoflop.training.pretrain import held_out_scores, train
from isoflop.training.recipe import TrainRecipe

pytestmark = pytest.mark.usefixtures("calibrated")

ContentOf = Callable[[Path], dict[str, Any]]


def changed(recipe: TrainRecipe, **changes: object) -> TrainRecipe:
    return replace(recipe, train=replace(recipe.train, **changes))


def at_rate(recipe: TrainRecipe, **changes: object) -> TrainRecipe:
    return replace(recipe, optimizer=replace(recipe.optimizer, **changes))


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


# --- the result ----------------------------------------------------------------------------


def test_the_result_says_what_was_trained(
    whole_run: Path, train_recipe: TrainRecipe, tiny_shards: Shards
) -> None:
    result = json.loads((whole_run / "result.json").read_text())
    shape = train_recipe.model.decoder_config(tiny_shards.vocab_size, 32)
    assert result["tokens"] == 25_600
    assert result["steps"] == 100
    assert result["params"] == count_parameters(shape).params
    assert result["flops"] == pytest.approx(25_600 * flops_per_token(shape, 32).training)
    assert result["run"] == "whole", "no machine's path"
    last = json.loads((whole_run / "evals.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["loss"]) == (100, result["loss"])
    first = json.loads((whole_run / "metrics.jsonl").read_text().splitlines()[0])
    assert result["loss"] < first["loss"] - 1, "it learns"
    read_manifest(whole_run, "run", verify=True)


def test_the_saved_model_scores_what_the_run_reports(
    whole_run: Path, train_recipe: TrainRecipe, tiny_shards: Shards
) -> None:
    windows = eval_windows(tiny_shards.held_out, 32, train_recipe.train.eval_tokens)
    with torch.no_grad():
        scores = held_out_scores(load_decoder(whole_run / "model"), windows)
    result = json.loads((whole_run / "result.json").read_text())
    assert scores["loss"] == pytest.approx(result["loss"], rel=1e-6)
    assert scores["bits_per_byte"] == pytest.approx(result["bits_per_byte"], rel=1e-6)


def test_bits_per_byte_equal_a_count_by_hand(whole_run: Path, tiny_shards: Shards) -> None:
    windows = eval_windows(tiny_shards.held_out, 32, 1024)
    assert (windows.labels_BT == IGNORED).any()
    model = load_decoder(whole_run / "model")
    with torch.no_grad():
        scores = held_out_scores(model, windows)
        log_probs = model.double()(
            torch.from_numpy(windows.ids_BT), torch.from_numpy(windows.document_BT)
        ).log_softmax(-1)
    # In a byte-level vocabulary every character of a token's name stands for one byte.
    saved = json.loads((tiny_shards.tokenizer_directory / "tokenizer.json").read_text("utf-8"))
    special = {token["id"] for token in saved["added_tokens"]}
    length = {id_: len(name) for name, id_ in saved["model"]["vocab"].items()}
    nats, n_labels = dict.fromkeys(windows.kinds, 0.0), 0
    n_bytes = dict.fromkeys(windows.kinds, 0)
    for row, at in zip(*np.nonzero(windows.labels_BT != IGNORED), strict=True):
        label, kind = int(windows.labels_BT[row, at]), windows.kinds[windows.kind_BT[row, at]]
        nats[kind] -= log_probs[row, at, label].item()
        n_bytes[kind] += 0 if label in special else length[label]
        n_labels += 1
    whole = sum(nats.values())
    assert scores["loss"] == pytest.approx(whole / n_labels, rel=1e-5)
    assert scores["bits_per_byte"] == pytest.approx(
        whole / math.log(2) / sum(n_bytes.values()), rel=1e-5
    )
    for kind in windows.kinds:
        assert scores[f"bits_per_byte_{kind}"] == pytest.approx(
            nats[kind] / math.log(2) / n_bytes[kind], rel=1e-5
        )


# --- same bits, same losses ----------------------------------------------------------------


def test_training_again_gives_the_same_bits(
    whole_run: Path, train_recipe: TrainRecipe, tmp_path: Path, content_of: ContentOf
) -> None:
    train(train_recipe, tmp_path / "again")
    assert content_of(tmp_path / "again") == content_of(whole_run)


def test_another_seed_is_another_model(
    whole_run: Path, train_recipe: TrainRecipe, tmp_path: Path
) -> None:
    train(changed(train_recipe, seed=1), tmp_path / "other")
    assert weights(tmp_path / "other") != weights(whole_run)


@pytest.mark.parametrize("schedule_ends_at", [0.0, 0.3])
def test_a_cool_down_from_a_trunk_is_a_run_from_scratch_bit_by_bit(
    train_recipe: TrainRecipe, tmp_path: Path, content_of: ContentOf, schedule_ends_at: float
) -> None:
    batch, short = 256, 30
    decays_from = int(0.8 * short) * batch
    base = at_rate(changed(train_recipe, evaluations=1), final_fraction=schedule_ends_at)
    trunk = train(
        changed(base, tokens=50 * batch, keep_checkpoints_at=(decays_from,)), tmp_path / "trunk"
    ).run
    brief = changed(base, tokens=short * batch)
    branch = train(
        brief, tmp_path / "branch", branch_from=trunk / "checkpoints" / "step_00000024"
    ).run
    scratch = train(brief, tmp_path / "scratch").run
    branched, whole = content_of(branch), content_of(scratch)
    assert branched["weights"] == whole["weights"]
    assert branched["weights"] != weights(trunk)
    assert (branched["result"], branched["evals"]) == (whole["result"], whole["evals"])
    assert branched["metrics"] == [row for row in whole["metrics"] if row["step"] > 24]


def test_one_two_or_eight_micro_batches_give_one_loss_curve(
    train_recipe: TrainRecipe, tiny_shards: Shards, tmp_path: Path
) -> None:
    labels = Loader(tiny_shards.train, 32, 0).batch(0, 8).labels_BT
    assert len({int((row != IGNORED).sum()) for row in labels}) > 1, "unequal label counts"
    curves = []
    for micro in (256, 128, 32):
        run = tmp_path / str(micro)
        train(changed(train_recipe, tokens=40 * 256, micro_batch_tokens=micro, log_every=1), run)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        curves.append([row["loss"] for row in rows])
    assert len(curves[0]) == 40
    for curve in curves[1:]:
        np.testing.assert_allclose(curve, curves[0], rtol=1e-5)
    assert curves[0] != curves[1], "another order of sums, so not the same bits"


def test_tensorboard_and_samples_change_no_bit(
    whole_run: Path, train_recipe: TrainRecipe, tmp_path: Path
) -> None:
    train(changed(train_recipe, tensorboard=True, sample_prompts=(), evaluations=1), tmp_path / "b")
    assert weights(tmp_path / "b") == weights(whole_run)
    assert list((tmp_path / "b" / "tensorboard").iterdir())


# --- continuing ----------------------------------------------------------------------------


def test_a_finished_run_is_not_trained_again(whole_run: Path, train_recipe: TrainRecipe) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole_run.rglob("*") if p.name != ".lock"}
    result = train(train_recipe, whole_run)
    assert before == {p: p.stat().st_mtime_ns for p in whole_run.rglob("*") if p.name != ".lock"}
    assert result.run == whole_run
    assert result.steps == 100


def test_a_run_killed_just_before_its_seal_is_sealed(
    whole_run: Path, train_recipe: TrainRecipe
) -> None:
    (whole_run / "manifest.json").unlink()
    train(train_recipe, whole_run)
    assert read_manifest(whole_run, "run", verify=True).status == "complete"


def test_a_run_killed_after_its_last_step_still_gets_its_model(
    whole_run: Path, train_recipe: TrainRecipe, tmp_path: Path, content_of: ContentOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr("isoflop.training.pretrain.save_model", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(train_recipe, tmp_path / "run")
    train(train_recipe, tmp_path / "run")
    assert content_of(tmp_path / "run") == content_of(whole_run)


def _interrupt(*args: object, **named: object) -> None:
    raise KeyboardInterrupt


def test_a_damaged_checkpoint_stops_the_run_and_removing_it_lets_it_continue(
    whole_run: Path, train_recipe: TrainRecipe, tmp_path: Path, content_of: ContentOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr("isoflop.training.pretrain.save_model", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(train_recipe, tmp_path / "run")
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    (data,) = checkpoint.glob("*.distcp")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    with pytest.raises(ArtifactError, match="differs from the hash") as caught:
        train(train_recipe, tmp_path / "run")
    assert str(data) in str(caught.value)
    for file in checkpoint.iterdir():
        file.unlink()
    checkpoint.rmdir()
    train(train_recipe, tmp_path / "run")
    assert content_of(tmp_path / "run") == content_of(whole_run)


def test_divergence_names_the_step_and_leaves_the_last_checkpoint_whole(
    train_recipe: TrainRecipe, tmp_path: Path
) -> None:
    wild = at_rate(changed(train_recipe, checkpoint_every=1), learning_rate=1e9, warmup_tokens=0)
    wild = replace(wild, guard=GuardConfig(non_finite="stop"))
    messages = []
    for _ in range(2):  # the second attempt reads the checkpoint that the first left
        with pytest.raises(RunError, match=r"step \d+: .* is not finite") as caught:
            train(wild, tmp_path / "run")
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    failed = int(messages[0].split()[1].rstrip(":"))
    assert failed > 1
    kept = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == [f"step_{step:08d}" for step in (failed - 2, failed - 1) if step]
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [(e["event"], e["step"]) for e in events][1::2] == [("not finite", failed)] * 2
    assert not (tmp_path / "run" / "result.json").exists()


def test_the_first_loss_is_that_of_the_initial_weights(
    train_recipe: TrainRecipe, tiny_shards: Shards, tmp_path: Path
) -> None:
    train(changed(train_recipe, tokens=256, log_every=1), tmp_path / "run")
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    model = Decoder(train_recipe.model.decoder_config(tiny_shards.vocab_size, 32))
    initialise(model, train_recipe.train.seed)
    windows = Loader(tiny_shards.train, 32, train_recipe.train.seed).batch(0, 8)
    with torch.no_grad():
        logits = model(torch.from_numpy(windows.ids_BT), torch.from_numpy(windows.document_BT))
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).double(), torch.from_numpy(windows.labels_BT).flatten()
    )
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-6)
    # The middle of the first of four steps of warm-up (1024 tokens); a run of one step decays
    # over its last fifth, and its middle is before that.
    assert row["lr"] == pytest.approx(1e-2 * 128 / 1024)


# --- faults, growing batches, means of weights ---------------------------------------------

GUARD = GuardConfig(spike_z=6, window=32, max_skips=1)


def events(run: Path) -> list[tuple[str, int]]:
    lines = (run / "events.jsonl").read_text().splitlines()
    return [(row["event"], row["step"]) for row in map(json.loads, lines)]


def test_a_burst_of_the_learning_rate_is_recovered_from(
    train_recipe: TrainRecipe, whole_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    burst, clean = iter([30.0, 30.0]), pretrain._learning_rate

    def bursting(recipe: TrainRecipe) -> Callable[[int], float]:
        rate = clean(recipe)
        return lambda tokens: rate(tokens) * (next(burst, 1.0) if tokens >= 60 * 256 else 1.0)

    monkeypatch.setattr(pretrain, "_learning_rate", bursting)
    result = train(replace(train_recipe, guard=GUARD), tmp_path / "run")
    assert events(result.run) == [("started", 0), ("spike", 62), ("spike", 63), ("went back", 54)]
    assert next(burst, None) is None
    unharmed = json.loads((whole_run / "result.json").read_text())["loss"]
    assert result.loss == pytest.approx(unharmed, abs=0.05), "three seeds spread as far"


def documents_of(shards: Shards, ids_BT: np.ndarray) -> list[int]:
    """Numbers of the documents that rows are cut from, found by their tokens alone."""
    tokens = shards.train.tokens.astype(np.int64)
    number = np.cumsum(tokens == shards.eos_id) - (tokens == shards.eos_id)
    width = ids_BT.shape[1]
    places = np.lib.stride_tricks.sliding_window_view(tokens, width)
    found: set[int] = set()
    for row in ids_BT:
        (start,) = np.flatnonzero((places == row).all(axis=1))
        found |= set(number[start : start + width].tolist())
    return sorted(found)


def test_poisoned_batches_are_left_out_and_their_documents_named(
    train_recipe: TrainRecipe, whole_run: Path, tiny_shards: Shards, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    draw, rows = np.random.default_rng(0), 256 // 32
    real, spoilt = Loader.batch, []

    def poisoned(loader: Loader, first: int, count: int) -> Any:
        windows = real(loader, first, count)
        if first // rows in (50, 51):
            spoilt.append(windows.ids_BT)
            noise = draw.integers(1, 300, windows.ids_BT.shape)
            return replace(windows, ids_BT=noise, labels_BT=np.roll(noise, -1, axis=1))
        return windows

    monkeypatch.setattr(Loader, "batch", poisoned)
    result = train(replace(train_recipe, guard=replace(GUARD, max_skips=5)), tmp_path / "run")
    assert events(result.run) == [("started", 0), ("spike", 51), ("spike", 52)]
    told = [json.loads(r) for r in (result.run / "events.jsonl").read_text().splitlines()[1:]]
    assert [row["batch"] for row in told] == [50, 51]
    for row, ids_BT in zip(told, spoilt, strict=True):
        assert row["documents"] == {"shards": documents_of(tiny_shards, ids_BT)}
    unharmed = json.loads((whole_run / "result.json").read_text())["loss"]
    assert result.loss == pytest.approx(unharmed, abs=0.05)


def test_a_growing_batch_takes_every_token_once_and_in_order(
    train_recipe: TrainRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    real = Loader.batch

    def watched(loader: Loader, first: int, count: int) -> Any:
        asked.append((first, count))
        return real(loader, first, count)

    monkeypatch.setattr(Loader, "batch", watched)
    growing = changed(train_recipe, initial_batch_tokens=128, batch_ramp_tokens=6400)
    result = train(growing, tmp_path / "run")
    assert [first for first, _ in asked] == [0, *np.cumsum([n for _, n in asked])[:-1]]
    assert (asked[0][1], asked[-1][1]) == (4, 8)
    assert result.steps == len(asked) > 100
    assert result.tokens == sum(count for _, count in asked) * 32 <= 25_600


@pytest.mark.parametrize(("name", "rate"), [("muon", 1e-2), ("lamb", 0.03)])
def test_another_optimizer_is_a_word_of_the_recipe(
    train_recipe: TrainRecipe, whole_run: Path, tmp_path: Path, name: str, rate: float
) -> None:
    result = train(at_rate(train_recipe, name=name, learning_rate=rate), tmp_path / "run")
    adamw = json.loads((whole_run / "result.json").read_text())["loss"]
    assert result.loss < adamw + 0.3


def test_with_a_base_width_a_model_of_that_width_is_trained_to_the_same_bits(
    train_recipe: TrainRecipe, whole_run: Path, tmp_path: Path
) -> None:
    result = train(at_rate(train_recipe, base_width=32, base_depth=1), tmp_path / "run")
    assert weights(result.run) == weights(whole_run)
