"""Checkpoints hold every bit of weights and moments, and know when they do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from isoflop.core.errors import ArtifactError
from isoflop.models.decoder import Decoder
from isoflop.training.checkpoint import (
    LoopState,
    checkpoint_path,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    remove_checkpoints,
    save_checkpoint,
)
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer

STATE = LoopState(step=3, tokens=768, flops=1.5e9, seconds=2.5, loss_sum=12.25, loss_count=40,
                  log_bytes={"metrics.jsonl": 100})  # fmt: skip


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def trained(
    request: pytest.FixtureRequest,
    decoder_of: Callable[..., Decoder],
    batch_of: Callable[..., TokenBatch],
) -> tuple[Decoder, torch.optim.AdamW]:
    model = decoder_of(tie_embeddings=request.param)
    optimizer = build_optimizer(model, OptimizerConfig())
    for seed in range(3):
        next_token_loss(model, batch_of(2, seed=seed)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def test_weights_moments_and_state_come_back_to_the_last_bit(
    trained: tuple[Decoder, torch.optim.AdamW], decoder_of: Callable[..., Decoder], tmp_path: Path
) -> None:
    model, optimizer = trained
    saved = save_checkpoint(tmp_path, model, optimizer, STATE)
    fresh = decoder_of(seed=9, tie_embeddings=model.config.tie_embeddings)
    fresh_optimizer = build_optimizer(fresh, OptimizerConfig())
    assert load_checkpoint(saved, fresh, fresh_optimizer) == STATE
    for ours, theirs in zip(fresh.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        mine, other = fresh_optimizer.state[ours], optimizer.state[theirs]
        assert mine.keys() == other.keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(mine[key], other[key]) for key in mine)


def test_loading_goes_on_exactly_where_saving_left(
    trained: tuple[Decoder, torch.optim.AdamW],
    decoder_of: Callable[..., Decoder],
    batch_of: Callable[..., TokenBatch],
    tmp_path: Path,
) -> None:
    model, optimizer = trained
    saved = save_checkpoint(tmp_path, model, optimizer, STATE)
    fresh = decoder_of(seed=9, tie_embeddings=model.config.tie_embeddings)
    other = build_optimizer(fresh, OptimizerConfig())
    load_checkpoint(saved, fresh, other)
    for m, o in ((model, optimizer), (fresh, other)):
        next_token_loss(m, batch_of(2, seed=7)).backward()
        o.step()
    for ours, theirs in zip(fresh.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_one_changed_byte_in_any_file_is_found_and_the_file_named(
    decoder_of: Callable[..., Decoder], tmp_path: Path
) -> None:
    model = decoder_of()
    optimizer = build_optimizer(model, OptimizerConfig())
    saved = save_checkpoint(tmp_path, model, optimizer, STATE)
    names = sorted(p.name for p in saved.iterdir())
    assert ".metadata" in names
    assert "loop.json" in names
    for name in names:
        content = (saved / name).read_bytes()
        # For the state, a digit of the step count: still JSON, still the right types.
        at = content.index(b'"step": 3') + 8 if name == "loop.json" else len(content) // 2
        (saved / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ArtifactError, match="differs from the hash") as caught:
            load_checkpoint(saved, model, optimizer)
        assert str(caught.value).startswith(str(saved / name))
        assert f"Remove {saved}" in str(caught.value)
        (saved / name).write_bytes(content)
    assert load_checkpoint(saved, model, optimizer) == STATE


@pytest.mark.parametrize("damage", ["remove the weights", "another format", "not JSON"])
def test_a_checkpoint_that_cannot_be_used_says_why(
    decoder_of: Callable[..., Decoder], tmp_path: Path, damage: str
) -> None:
    model = decoder_of()
    optimizer = build_optimizer(model, OptimizerConfig())
    saved = save_checkpoint(tmp_path, model, optimizer, STATE)
    state = saved / "loop.json"
    if damage == "remove the weights":
        next(saved.glob("*.distcp")).unlink()
        message = "the file is missing"
    elif damage == "another format":
        state.write_text(json.dumps({**json.loads(state.read_text()), "format": 99}))
        message = "the checkpoint's format is not 4"
    else:
        state.write_text("{")
        message = "not valid JSON"
    with pytest.raises(ArtifactError, match=message):
        load_checkpoint(saved, model, optimizer)


def test_the_newest_whole_checkpoint_is_found_and_half_written_ones_are_removed(
    tmp_path: Path,
) -> None:
    for name in ("step_00000002", "step_00000010", ".step_00000012.77.partial", "step_x"):
        (tmp_path / name).mkdir()
    assert latest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 10)
    assert set(checkpoints(tmp_path)) == {2, 10}
    assert not list(tmp_path.glob(".step_*"))
    assert latest_checkpoint(tmp_path / "none") is None


def test_removing_keeps_the_ones_to_keep(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        (checkpoint_path(tmp_path, step)).mkdir()
        (checkpoint_path(tmp_path, step) / "file").write_text("")
    remove_checkpoints(tmp_path, keep={4, 6})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000004", "step_00000006"]
