"""Compiled layers: used where they pay, and given up with the reason where they do not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from isoflop.models.decoder import Decoder
from isoflop.training import execution
from isoflop.training.execution import arrange
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.precision import Precision
from isoflop.training.pretrain import train
from isoflop.training.recipe import TrainConfig, TrainRecipe

DecoderOf = Callable[..., Decoder]
BatchOf = Callable[..., TokenBatch]


@pytest.fixture
def once_of(batch_of: BatchOf) -> Callable[[Decoder], Callable[[], None]]:
    def build(model: Decoder) -> Callable[[], None]:
        def once() -> None:
            next_token_loss(model, batch_of(2)).backward()
            model.zero_grad()

        return once

    return build


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """torch.compile that compiles nothing; the modules it was given."""
    seen: list[nn.Module] = []

    def compiled(module: nn.Module) -> Callable[..., Any]:
        seen.append(module)
        return lambda *args: module(*args)

    monkeypatch.setattr(torch, "compile", compiled)
    return seen


def _config(**changes: object) -> TrainConfig:
    return replace(TrainConfig(seq_len=16, micro_batch_tokens=32), **changes)  # type: ignore[arg-type]


def test_by_default_nothing_is_arranged(decoder_of: DecoderOf, eager: list[nn.Module]) -> None:
    model = decoder_of()
    assert arrange(model, TrainConfig(), Precision(), lambda: None) == {}
    assert not eager
    assert not model.compiled


def test_a_compiler_that_fails_is_done_without_and_the_facts_say_why(
    decoder_of: DecoderOf, once_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(module: nn.Module) -> Callable[..., Any]:
        def call(*args: object) -> None:
            raise RuntimeError("no C++ compiler was found\nlong trace")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    model = decoder_of()
    once = once_of(model)
    facts = arrange(model, _config(compile=True), Precision(), once)
    assert facts == {
        "compiled": False,
        "compiled_why": "could not be compiled: no C++ compiler was found",
    }
    once()


@pytest.mark.parametrize(("compiled_seconds", "used"), [(0.99, False), (0.90, True)])
def test_auto_takes_what_measures_faster_by_enough_and_measures_the_loser_once(
    decoder_of: DecoderOf, once_of: Callable[..., Any], eager: list[nn.Module],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiled_seconds: float, used: bool,
) -> None:  # fmt: skip
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path))
    model = decoder_of()
    monkeypatch.setattr(
        execution, "_seconds", lambda *_: compiled_seconds if model.compiled else 1.0
    )
    facts = arrange(model, _config(compile="auto"), Precision(), once_of(model))
    assert facts["compiled"] is used
    assert bool(model.compiled) is used
    if not used:
        eager.clear()
        again = arrange(model, _config(compile="auto"), Precision(), once_of(model))
        assert again["compiled_why"] == facts["compiled_why"] + " (measured before)"
        assert not eager


def test_generation_and_evaluation_call_the_layers_themselves(
    decoder_of: DecoderOf, batch_of: BatchOf
) -> None:
    model, calls = decoder_of(), []

    def call(*args: object) -> Any:
        calls.append(1)
        return model.layers[0](*args)

    model.compiled = (call,) * len(model.layers)
    with torch.no_grad():
        model(batch_of(1).ids_BT)
    assert not calls
    next_token_loss(model, batch_of(1)).backward()
    assert len(calls) == len(model.layers)


@pytest.mark.usefixtures("calibrated")
@pytest.mark.parametrize("mode", ["selective", "full"])
def test_a_run_that_recomputes_has_the_same_bits_and_says_what_it_does(
    train_recipe: TrainRecipe, whole_run: Path, tmp_path: Path, mode: str
) -> None:
    recipe = replace(train_recipe, train=replace(train_recipe.train, recompute=mode))
    run = train(recipe, tmp_path / "run").run
    weights = "model/model.safetensors"
    assert (run / weights).read_bytes() == (whole_run / weights).read_bytes()
    started = json.loads((run / "events.jsonl").read_text().splitlines()[0])
    what = {"selective": "attention", "full": "block"}[mode]
    assert started["recomputed"] == {what: train_recipe.model.n_layers}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
@pytest.mark.filterwarnings("default")
def test_compiled_layers_compute_the_same_but_for_the_last_bits(
    decoder_of: DecoderOf, batch_of: BatchOf, once_of: Callable[..., Any]
) -> None:
    batch, found = batch_of(4, ends=(0, 0, 1, 2)), []
    for compiled in (False, True):
        model = decoder_of()
        facts = arrange(model, _config(compile=compiled), Precision(), once_of(model))
        assert facts.get("compiled", False) is compiled, facts
        next_token_loss(model, batch).backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (found[0] - found[1]).norm() / found[0].norm() < 1e-5
