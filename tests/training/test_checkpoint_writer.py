"""Checkpoints are written while the run goes on, and a write that fails ends the run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from isoflop.models.decoder import Decoder
from isoflop.training import checkpoint, checkpoint_writer
from isoflop.training.average import WeightAverage
from isoflop.training.checkpoint import (
    LoopState,
    begun_checkpoints,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
)
from isoflop.training.checkpoint_writer import CheckpointWriter
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.parallel.ranks import Ranks


class Gate:
    """Holds the writing thread back until it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.opened, write = threading.Event(), checkpoint.write_parts

        def held(*args: Any) -> None:
            assert self.opened.wait(60)
            write(*args)

        patch.setattr(checkpoint_writer, "write_parts", held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


def trained(decoder_of: Callable[..., Decoder]) -> tuple[Decoder, torch.optim.Optimizer]:
    model = decoder_of()
    optimizer = build_optimizer(model, OptimizerConfig())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return model, optimizer


def test_what_is_written_is_what_was_there_when_the_step_ended(
    gate: Gate, decoder_of: Callable[..., Decoder], tmp_path: Path
) -> None:
    model, optimizer = trained(decoder_of)
    average = WeightAverage(model, 0.9)
    writer = CheckpointWriter(tmp_path, Ranks())
    before = [p.detach().clone() for p in model.parameters()]
    moments = [s["exp_avg_sq"].clone() for s in optimizer.state.values()]
    writer.begin(model, optimizer, LoopState(step=1), average, lambda: None)
    optimizer.step()  # the run goes on while the thread still has everything to write
    average.update(1)
    assert not checkpoints(tmp_path)
    assert begun_checkpoints(tmp_path) == {1}
    gate.opened.set()
    writer.wait()
    writer.close()
    other, fresh = trained(decoder_of)
    mean = WeightAverage(other, 0.9)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    load_checkpoint(found, other, fresh, mean)
    for ours, theirs, own in zip(other.parameters(), before, mean.weights.values(), strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(own, theirs)
    for state, moment in zip(fresh.state.values(), moments, strict=True):
        assert torch.equal(state["exp_avg_sq"], moment)


def test_one_is_written_at_a_time_and_what_comes_then_comes_once_it_is_whole(
    gate: Gate, decoder_of: Callable[..., Decoder], tmp_path: Path
) -> None:
    model, optimizer = trained(decoder_of)
    writer = CheckpointWriter(tmp_path, Ranks())
    seen: list[set[int]] = []
    for step in (1, 2):
        writer.begin(
            model,
            optimizer,
            LoopState(step=step),
            None,
            lambda: seen.append({*checkpoints(tmp_path)}),
        )
        gate.opened.set()
    writer.wait()
    writer.close()
    assert seen == [{1}, {1, 2}]
