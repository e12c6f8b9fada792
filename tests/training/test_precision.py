"""Devices and formats: what is chosen, what is refused, and that narrow products train alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from isoflop.core import hardware
from isoflop.core.errors import RecipeError
from isoflop.models.config import ExpertsConfig
from isoflop.models.decoder import Decoder
from isoflop.training import precision as module
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.precision import Precision, choose_precision
from isoflop.training.pretrain import train
from isoflop.training.recipe import TrainRecipe

pytestmark = pytest.mark.usefixtures("calibrated")

FORMS: dict[str, dict[str, object]] = {
    "default": {},
    "without QK-norm": {"qk_norm": False},
    "experts": {"experts": ExpertsConfig(4, 2, 16)},
    "window": {"window": 5},
    "relative": {"positions": "relative", "qk_norm": False},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("dtype", "within"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)], ids=str
)
def test_gradients_in_narrow_products_are_those_of_float64_but_for_rounding(
    decoder_of: Callable[..., Decoder], batch_of: Callable[..., TokenBatch],
    form: str, dtype: torch.dtype, within: float,
) -> None:  # fmt: skip
    batch = batch_of(4, ends=(0, 2, 0, 1))
    found = []
    for precision in (Precision(), Precision(dtype=dtype)):
        model = decoder_of(**FORMS[form])
        if precision.dtype == torch.float32:
            model.double()
        with precision.autocast():
            loss = next_token_loss(model, batch)
        loss.backward()
        whole = torch.cat([p.grad.flatten().double() for p in model.parameters()])
        found.append((loss.item(), whole))
        assert all(p.dtype == p.grad.dtype for p in model.parameters())
    (expected, true), (narrow, rounded) = found
    assert narrow == pytest.approx(expected, rel=within)
    assert narrow != expected, "products were rounded"
    assert (rounded - true).norm() / true.norm() < 2 * within


def test_what_is_asked_for_is_taken() -> None:
    found = choose_precision("float16", "cpu")
    assert (found.device.type, found.dtype_name) == ("cpu", "float16")
    assert found.scales_loss
    assert not choose_precision("bfloat16", "cpu").scales_loss


@pytest.mark.parametrize(("narrow", "chosen"), [(129.0, "float32"), (131.0, "bfloat16")])
def test_auto_takes_the_narrow_format_where_it_measures_faster_by_enough(
    monkeypatch: pytest.MonkeyPatch, narrow: float, chosen: str
) -> None:
    dtype, _, reason = hardware.choose({"float32": {1: 100.0}, "bfloat16": {1: narrow}})
    measured = replace(hardware.calibrate(), best_dtype=dtype, reason=reason)
    monkeypatch.setattr(module, "calibrate", lambda: measured)
    found = choose_precision("auto", "cpu")
    assert (found.dtype_name, found.reason) == (chosen, reason)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match="no CUDA device"):
        choose_precision("float32", "cuda")
    assert choose_precision("float32", "auto").device.type == "cpu"


def test_the_default_run_has_the_bits_of_float32_on_a_cpu_without_recomputation(
    whole_run: Path, train_recipe: TrainRecipe, tmp_path: Path
) -> None:
    said = replace(train_recipe.train, dtype="float32", device="cpu", recompute="none")
    explicit = train(replace(train_recipe, train=replace(said, compile=False)), tmp_path / "run")
    weights = "model/model.safetensors"
    assert (explicit.run / weights).read_bytes() == (whole_run / weights).read_bytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_run_in_narrow_products_learns_what_the_float32_run_does(
    whole_run: Path, train_recipe: TrainRecipe, tmp_path: Path, dtype: str
) -> None:
    narrow = replace(train_recipe, train=replace(train_recipe.train, dtype=dtype))
    result = train(narrow, tmp_path / "run")
    expected = json.loads((whole_run / "result.json").read_text())["loss"]
    assert result.loss == pytest.approx(expected, rel=0.02)
    started = json.loads((tmp_path / "run" / "events.jsonl").read_text().splitlines()[0])
    assert (started["device"], started["dtype"], started["why"]) == ("cpu", dtype, "asked for")


def test_batches_on_the_cpu_are_not_copied(batch_of: Callable[..., TokenBatch]) -> None:
    batch = batch_of(2)
    assert Precision().moved(batch) is batch


def test_a_batch_moves_with_its_tensors_and_keeps_the_rest(
    batch_of: Callable[..., TokenBatch],
) -> None:
    moved = Precision(torch.device("meta")).moved(batch_of(2))
    assert {moved.ids_BT.device.type, moved.labels_BT.device.type} == {"meta"}
    assert moved.n_valid == 32
