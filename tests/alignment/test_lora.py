from __future__ import annotations

from pathlib import Path

import pytest
import torch

from isoflop.alignment.lora import TARGETS, adapters, attach, load_adapter, merge, save_adapter
from isoflop.alignment.sft_recipe import LoraConfig
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise

CONFIG = DecoderConfig(
    vocab_size=40, d_model=32, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=16, d_ff=64,
    max_seq_len=24,
)  # fmt: skip
IDS = torch.randint(0, 40, (2, 20), generator=torch.Generator().manual_seed(0))


def fresh() -> Decoder:
    model = Decoder(CONFIG)
    initialise(model, 3)
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():  # no matrix may be zero, as those into the stream are at first
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.2, generator=draw)
    return model


def changed(dora: bool) -> Decoder:
    """A model whose adapters have left the start."""
    model = fresh()
    attach(model, 4, 8.0, dora, seed=1)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, adapter in adapters(model):
            adapter.lora_B.copy_(torch.randn(adapter.lora_B.shape, generator=draw) * 0.1)
            if adapter.magnitude is not None:
                adapter.magnitude.mul_(1.1)
    return model


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_at_the_start_an_adapter_changes_nothing(dora: bool) -> None:
    model = fresh()
    before = model(IDS)
    attach(model, 4, 8.0, dora, seed=1)
    assert (model(IDS) - before).abs().max() <= (1e-5 if dora else 0.0)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_only_the_adapters_are_trained(dora: bool) -> None:
    model = changed(dora)
    model(IDS).square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    ends = ("lora_A", "lora_B", "magnitude")
    assert trained == {name for name, _ in model.named_parameters() if name.endswith(ends)}
    assert len(trained) == 2 * 7 * (3 if dora else 2)


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_merged_it_is_the_same_model_with_its_old_names(dora: bool) -> None:
    model = changed(dora)
    before = model(IDS)
    assert (before - fresh()(IDS)).abs().max() > 1e-2
    merge(model)
    assert torch.equal(model(IDS), before)
    assert sorted(n for n, _ in model.named_parameters()) == sorted(
        n for n, _ in fresh().named_parameters()
    )


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_a_saved_adapter_comes_back(dora: bool, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "manifest.json").write_text("{}")
    model = changed(dora)
    save_adapter(model, tmp_path / "a", LoraConfig(4, 8.0, dora), tmp_path / "base")
    other = fresh()
    load_adapter(other, tmp_path / "a")
    assert torch.equal(other(IDS), model(IDS))


@pytest.mark.slow  # importing peft takes longer than all else here
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by an old name
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_peft_opens_it_and_computes_the_same(dora: bool, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    save_model(fresh(), tmp_path / "base")
    model = changed(dora)
    save_adapter(model, tmp_path / "adapter", LoraConfig(4, 8.0, dora), tmp_path / "base")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        assert (theirs(IDS).logits - model(IDS)).abs().max() <= 1e-5
        merged = theirs.merge_and_unload()
        merge(model)
        assert (merged(IDS).logits - model(IDS)).abs().max() <= 1e-5
    # And theirs opens here.
    other = fresh()
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(r=4, lora_alpha=8, use_dora=dora, target_modules=list(TARGETS))
    peft.get_peft_model(base, settings).save_pretrained(tmp_path / "theirs")
    load_adapter(other, tmp_path / "theirs")
    assert (other(IDS) - fresh()(IDS)).abs().max() <= 1e-5
