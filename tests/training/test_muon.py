"""Muon against the singular value decomposition, torch's own and AdamW."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from isoflop.models.decoder import Decoder
from isoflop.training.muon import Muon, orthogonalise
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer, set_learning_rate


@pytest.mark.parametrize("shape", [(48, 48), (20, 64), (64, 20), (3, 24, 40)])
def test_singular_vectors_stay_and_each_value_follows_the_quintic(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    x = values / values.norm(dim=-1, keepdim=True)
    far = x > 0.002
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    expected = u @ torch.diag_embed(x) @ vh
    torch.testing.assert_close(orthogonalise(matrix, torch.float64), expected, rtol=0, atol=1e-6)
    assert 0.68 < x[far].min() <= x[far].max() < 1.21


def test_a_step_is_that_of_torch_up_to_the_iteration_s_format() -> None:
    """torch's Muon iterates in bfloat16, which keeps 8 bits."""
    draw = torch.Generator().manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(64, 32)) for _ in range(2))
    group = {"params": [ours], "orthogonal": True, "weight_decay": 0.1}
    mine = Muon([group], lr=0.02, momentum=0.95, betas=(0.9, 0.95), eps=1e-8)
    other = torch.optim.Muon(
        [theirs], lr=0.02, momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        ours.grad = torch.randn(64, 32, generator=draw)
        theirs.grad = ours.grad.clone()
        mine.step()
        other.step()
    moved = (theirs - 1).abs().mean()
    assert (ours - theirs).abs().mean() < 0.03 * moved


def test_what_is_no_matrix_of_a_block_is_trained_by_adamw(
    decoder_of: Callable[..., Decoder], batch_of: Callable[..., TokenBatch]
) -> None:
    models = decoder_of(), decoder_of()
    for model, name in zip(models, ("muon", "adamw"), strict=True):
        optimizer = build_optimizer(model, OptimizerConfig(name=name))  # type: ignore[arg-type]
        next_token_loss(model, batch_of(4)).backward()
        set_learning_rate(optimizer, 0.01)
        optimizer.step()
    ours, theirs = (dict(model.named_parameters()) for model in models)
    for name, parameter in ours.items():
        assert torch.equal(parameter, theirs[name]) != name.endswith("proj.weight"), name
