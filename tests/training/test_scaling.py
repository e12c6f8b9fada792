"""Scaling by learning rates equals scaling by multipliers inside the model, and keeps sizes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training.objectives import TokenBatch
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer, set_learning_rate
from isoflop.training.scaling import Scaling, roles, scale_output

DecoderOf = Callable[..., Decoder]
WIDTH, DEPTH = 4.0, 3.0


def adam(model: Decoder, rates: dict[str, float], decay: dict[str, float]) -> torch.optim.Optimizer:
    """AdamW written out per parameter, for the form with multipliers."""
    groups = [
        {"params": [p], "lr": rates[n], "weight_decay": decay[n]}
        for n, p in model.named_parameters()
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-30)


def test_factors_on_rates_equal_multipliers_inside_the_model(
    decoder_of: DecoderOf, batch_of: Callable[..., TokenBatch]
) -> None:
    """Yang & Hu's table 8 and Dey et al.'s, α = 1, with multipliers written out, in float64."""
    ours = decoder_of().double()
    written = copy.deepcopy(ours)
    scaling = Scaling(WIDTH, DEPTH)
    with torch.no_grad():
        scale_output(ours, scaling)
        for name, parameter in ours.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.div_(DEPTH)
    for block in written.layers:
        for writer in (block.self_attn.o_proj, block.mlp.down_proj):
            writer.register_forward_hook(lambda module, args, out: out / DEPTH)
    base, decay = 3e-3, 0.2
    rates, decays = {}, {}
    for name, _ in written.named_parameters():
        matrix = name.endswith("proj.weight")
        rates[name] = base / WIDTH if matrix else base
        decays[name] = decay * WIDTH if matrix else 0.0
    reference = adam(written, rates, decays)
    config = OptimizerConfig(learning_rate=base, weight_decay=decay, eps=1e-30)
    optimizer = build_optimizer(ours, config, scaling)
    for seed in range(4):
        batch = batch_of(4, seed=seed)
        ids, labels = batch.ids_BT[:, :6], batch.labels_BT[:, :6].flatten()
        # Windows of six tokens take the plain form, whose modules a hook can reach.
        loss = F.cross_entropy(ours(ids).flatten(0, 1), labels)
        expected = F.cross_entropy(written(ids).flatten(0, 1) / WIDTH, labels)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
        loss.backward()
        expected.backward()
        set_learning_rate(optimizer, base)
        for each in (optimizer, reference):
            each.step()
            each.zero_grad()


def change_of_logits(width: int, scaled: bool) -> float:
    """Root mean square change of the logits over five steps."""
    shape = DecoderConfig(
        vocab_size=64, d_model=width, n_layers=2, n_heads=width // 16, n_kv_heads=width // 16,
        head_dim=16, d_ff=2 * width, max_seq_len=16,
    )  # fmt: skip
    model = Decoder(shape)
    initialise(model, 0)
    scaling = Scaling(width / 32) if scaled else Scaling()
    scale_output(model, scaling)
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.0), scaling)
    ids = torch.randint(0, 64, (8, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(ids[:, :-1])
    for _ in range(5):
        F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        set_learning_rate(optimizer, 1e-2)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return (model(ids[:, :-1]) - before).square().mean().sqrt().item()


def test_steps_change_the_logits_alike_at_every_width_with_scaling_and_only_then() -> None:
    """The coordinate check of Yang & Hu (2021, appendix D.1)."""
    scaled, plain = ([change_of_logits(w, on) for w in (32, 128, 512)] for on in (True, False))
    assert scaled[0] == plain[0]
    assert max(scaled) / min(scaled) < 2
    assert plain[2] / plain[0] > 4


def test_roles_cover_every_parameter(decoder_of: DecoderOf) -> None:
    model = decoder_of(tie_embeddings=False)
    found = roles(model)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    assert found["lm_head.weight"] == found["embed_tokens.weight"] == "embedding"
    assert found["norm.weight"] == "final norm"
    assert found["layers.0.self_attn.q_norm.weight"] == "vector"
    assert found["layers.1.mlp.down_proj.weight"] == "residual output"
    assert found["layers.1.mlp.up_proj.weight"] == "matrix"
