"""Which parameters decay."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from isoflop.models.decoder import Decoder
from isoflop.training.optimizers import build_adamw
from isoflop.training.recipe import OptimizerConfig


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_matrices_of_the_blocks_decay_and_norms_and_embeddings_do_not(
    decoder_of: Callable[..., Decoder], tied: bool
) -> None:
    model = decoder_of(tie_embeddings=tied)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = build_adamw(model, OptimizerConfig(weight_decay=0.3)).param_groups
    by_decay = {g["weight_decay"]: {names[p] for p in g["params"]} for g in groups}
    assert by_decay.keys() == {0.3, 0.0}
    assert by_decay[0.3] == {n for n in names.values() if n.endswith("proj.weight")}
    assert by_decay[0.0] == set(names.values()) - by_decay[0.3]
    assert {"embed_tokens.weight", "norm.weight"} <= by_decay[0.0]


def test_the_recipe_reaches_the_optimizer(decoder_of: Callable[..., Decoder]) -> None:
    config = OptimizerConfig(learning_rate=0.5, beta1=0.8, beta2=0.7, eps=1e-5)
    for group in build_adamw(decoder_of(), config).param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.8, 0.7), 1e-5)
        assert group["fused"]
