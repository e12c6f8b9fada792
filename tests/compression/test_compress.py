"""The whole of `isoflop compress` on a model that was trained a little."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import isoflop
from isoflop.cli.main import main
from isoflop.compression.average import averaged
from isoflop.compression.measure import measure, window_losses
from isoflop.compression.prune import keep_mask, prune_decoder, zero_share
from isoflop.compression.quantize import plan_bits, quantize_decoder
from isoflop.compression.sensitivity import foretell, parts_of
from isoflop.compression.texts import Texts, open_texts
from isoflop.core.errors import ArtifactError
from isoflop.core.ledger import Ledger
from isoflop.core.recipe import load_recipe
from isoflop.data.shards import Shards
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.build import build_model
from isoflop.models.convert import export_model, load_decoder, save_model
from isoflop.models.decoder import Decoder
from isoflop.training.pretrain import train
from isoflop.training.recipe import TrainRecipe

RECIPE = """
[data]
shards = "{shards}"
[model]
d_model = 32
n_layers = 2
[optimizer]
learning_rate = 1e-2
warmup_tokens = 1024
[train]
tokens = 25_600
seq_len = 32
global_batch_tokens = 512
micro_batch_tokens = 512
eval_tokens = 1024
evaluations = 1
threads = 1
tensorboard = false
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Shards) -> Path:
    folder = tmp_path_factory.mktemp("compress")
    path = folder / "train.toml"
    path.write_text(RECIPE.format(shards=tiny_shards.directory))
    train(load_recipe(path, TrainRecipe), folder / "run")
    return folder / "run" / "model"


@pytest.fixture(scope="module")
def texts(model: Path, tiny_shards: Shards) -> Texts:
    return open_texts(tiny_shards.directory, load_tokenizer(model), 32, 1024)


def test_int8_keeps_its_promise_and_loads_as_a_model(
    model: Path, tiny_shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small"
    said = ["--data", str(tiny_shards.directory), "--tokens", "2048", "--json"]
    main(["compress", str(model), "--method", "int8", "-o", str(out), *said])
    document = json.loads(capsys.readouterr().out)
    assert document["bytes"] < 0.32 * document["bytes_full"]
    measured = document["measured"]
    assert abs(measured["bits_per_byte"] / measured["bits_per_byte_full"] - 1) < 0.002
    promises = Ledger(out / "ledger.jsonl").read()
    assert [p.quantity for p in promises][:2] == ["bits_per_byte_added", "weights_bytes"]
    assert all(p.settled for p in promises)
    assert promises[1].held
    card = (out / "README.md").read_text()
    for part in ("- model model", "- shards shards", "- corpus corpus", "held-out tokens"):
        assert part in card
    # What is loaded is what was judged:
    small, full = isoflop.load(out).decoder, load_decoder(model)
    texts = open_texts(tiny_shards.directory, load_tokenizer(model), 32, 2048)
    assert measure(full, small, texts.held_out).bits_per_byte == measured["bits_per_byte"]
    # and it goes back to a directory of transformers, in float32.
    export_model(out, tmp_path / "hf")
    again = load_decoder(tmp_path / "hf")
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), small.parameters(), strict=True)
    )


def test_a_damaged_packed_tensor_is_named(model: Path, tiny_shards: Shards, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    out = tmp_path / "small"
    data = ["--data", str(tiny_shards.directory), "--tokens", "1024"]
    main(["compress", str(model), "--method", "int4", "-o", str(out), *data])
    tensors = load_file(out / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight.offset"
    del tensors[name]
    save_file(tensors, out / "model.safetensors")
    (out / "manifest.json").unlink()  # as from another tool, with no hash to catch it
    with pytest.raises(ArtifactError, match=name):
        load_decoder(out)


def test_the_three_uses_of_a_text_do_not_overlap(texts: Texts) -> None:
    rows = [{row.tobytes() for row in use.ids_BT} for use in (texts.calibration, texts.probe)]
    assert len(texts.held_out.ids_BT) >= 8
    assert len(rows[0] & rows[1]) <= 1  # equal sentences may repeat in the source itself


def test_measured_by_hand_on_one_window(model: Path, texts: Texts) -> None:
    full = load_decoder(model)
    plan = plan_bits(full, 4, 32)
    small = load_decoder(model)
    own = dict(small.named_parameters())
    for name, packed in quantize_decoder(full, plan).items():
        own[name].data.copy_(packed.unpack())
    found = measure(full, small, texts.held_out)
    assert measure(full, full, texts.held_out).kl == 0
    assert measure(full, full, texts.held_out).flipped == 0
    nats = window_losses(small, texts.held_out).sum()
    assert found.bits_per_byte == pytest.approx(nats / np.log(2) / texts.held_out.text_bytes, 1e-5)
    assert found.kl > 0


def test_parts_that_do_not_touch_each_other_are_foretold_exactly(model: Path, texts: Texts) -> None:
    """With one part the foretold loss on the probe is the loss itself."""
    full = load_decoder(model)
    name = "layers.0.mlp.down_proj.weight"
    changed = {name: dict(full.named_parameters())[name].detach() * 0.5}
    found = foretell(full, changed, texts.probe, 64)
    work = load_decoder(model)
    dict(work.named_parameters())[name].data.copy_(changed[name])
    bits = np.log(2) * texts.probe.text_bytes
    truth = (window_losses(work, texts.probe) - window_losses(full, texts.probe)).sum() / bits
    assert found.added == pytest.approx(truth, rel=1e-6)
    assert found.low < found.added < found.high
    assert list(parts_of(changed)) == ["layers.0.mlp"]


def test_sensitivity_leaves_the_model_as_it_was(model: Path, texts: Texts) -> None:
    full = load_decoder(model)
    before = [p.detach().clone() for p in full.parameters()]
    values = {k: p.unpack() for k, p in quantize_decoder(full, plan_bits(full, 4, 32)).items()}
    foretell(full, values, texts.probe, 64)
    assert all(torch.equal(a, b) for a, b in zip(before, full.parameters(), strict=True))


# --- pruning -------------------------------------------------------------------------------


def test_masks_keep_the_highest_scores() -> None:
    scores = torch.tensor([[4.0, 1.0, 3.0, 2.0, 9.0, 8.0, 7.0, 6.0]])
    half = keep_mask(scores, 0.5, "unstructured")
    assert half[0].tolist() == [False, False, False, False, True, True, True, True]
    fours = keep_mask(scores, 0.5, "2:4")[0].tolist()
    assert fours == [True, False, True, False, True, True, False, False]


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_wanda_removes_the_share_asked_and_hurts_less_than_chance(
    pattern: str, model: Path, texts: Texts
) -> None:
    full = load_decoder(model)

    def lost(score: str) -> float:
        values = prune_decoder(full, score, 0.5, pattern, texts.calibration)  # type: ignore[arg-type]
        assert zero_share(values) == pytest.approx(0.5, abs=0.02)
        return _replaced(model, values, texts)

    draw = torch.Generator().manual_seed(0)
    own = dict(full.named_parameters())
    at_random = {
        name: own[name].detach() * (torch.rand(own[name].shape, generator=draw) < 0.5)
        for name in prune_decoder(full, "magnitude", 0.5, "unstructured", texts.calibration)
    }
    assert lost("wanda") < _replaced(model, at_random, texts)


def _replaced(model: Path, values: dict[str, torch.Tensor], texts: Texts) -> float:
    work: Decoder = load_decoder(model)
    own = dict(work.named_parameters())
    for name, value in values.items():
        own[name].data.copy_(value)
    return float(window_losses(work, texts.held_out).sum())


# --- averaging -----------------------------------------------------------------------------


def test_the_mean_of_models_is_taken_and_drawn_beside_the_others(
    model: Path, tiny_shards: Shards, tmp_path: Path
) -> None:
    other = load_decoder(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.01)
    save_model(other, tmp_path / "other", tiny_shards.tokenizer_directory)
    data = ["--data", str(tiny_shards.directory), "--tokens", "1024"]
    out, chart = tmp_path / "mean", tmp_path / "chart.svg"
    int8 = tmp_path / "eight"
    main(["compress", str(model), "--method", "int8", "-o", str(int8), *data])
    said = ["compress", str(model), "--method", "average", "--others", str(tmp_path / "other")]
    main([*said, "-o", str(out), *data, "--plot", str(chart), "--beside", str(int8)])
    mean, full = load_decoder(out), load_decoder(model)
    for name, value in mean.named_parameters():
        torch.testing.assert_close(value, dict(full.named_parameters())[name] + 0.005)
    drawn = chart.read_text()
    assert "eight: " in drawn
    assert "mean: " in drawn


def test_a_model_of_another_shape_is_not_averaged(
    model: Path, tiny_shards: Shards, tmp_path: Path
) -> None:
    config = replace(load_decoder(model).config, n_layers=1)
    other = build_model(config)
    assert isinstance(other, Decoder)
    save_model(other, tmp_path / "other", tiny_shards.tokenizer_directory)
    with pytest.raises(ArtifactError, match="another shape"):
        averaged(load_decoder(model), [tmp_path / "other"])
