"""The checks of `isoflop verify` on learning from texts and preferences: SFT, DPO, IPO, rewards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from isoflop.alignment.answers import Answer, answer_rows
from isoflop.alignment.chat import Encoded
from isoflop.alignment.dpo import PairBatch, dpo_task, reference_logprobs
from isoflop.alignment.dpo_recipe import (
    DpoConfig,
    DpoRecipe,
    PairTrain,
    PreferenceData,
    RewardConfig,
    RewardRecipe,
)
from isoflop.alignment.packed import Conversations
from isoflop.alignment.pairs import Pair
from isoflop.alignment.reward_model import RewardModel
from isoflop.alignment.reward_training import judged, reward_batch, reward_task
from isoflop.alignment.sft import batch_of
from isoflop.alignment.sft_recipe import StartConfig
from isoflop.alignment.verify_policy import Check, chi_square_bound
from isoflop.alignment.verify_worlds import World, exact_logprobs, one_token_table, outcome, train
from isoflop.models.decoder import Decoder
from isoflop.training.objectives import next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.step import Task

ACTIONS, BETA = 8, 0.5
MOST_MARGIN_OFF = 1e-6
SMOOTHING, TAU = 0.2, 0.5
_START, _DATA = StartConfig(Path(".")), PreferenceData(Path("."))


def descent(learning_rate: float) -> OptimizerConfig:
    """Plain gradient descent with momentum, for losses without noise."""
    return OptimizerConfig(
        "sgd", learning_rate, "constant", weight_decay=0.0, momentum=0.9, clip_norm=1e9
    )


def learn_pairs(
    world: World, chosen: Tensor, rejected: Tensor, config: DpoConfig, smoothing: Tensor | float,
    learning_rate: float, steps: int,
) -> Decoder:  # fmt: skip
    """The policy that all these pairs lead to, by the task and loop of `isoflop dpo`.

    Args:
        chosen: Numbers of answers, (B,).
        smoothing: Share of wrong labels, one for all or one for each.
    """
    answers = world.all_answers()
    rows = answer_rows([answers[index] for index in [*chosen.tolist(), *rejected.tolist()]])
    data = PairBatch(rows, reference_logprobs(world.model, rows), smoothing)
    count = data.n_valid
    loop = PairTrain(batch_pairs=count, micro_batch_pairs=count)
    recipe = DpoRecipe(_START, _DATA, descent(learning_rate), loop, dpo=config)
    policy = deepcopy(world.model)
    train(policy, dpo_task(recipe, data, None), recipe.optimizer, steps)
    return policy


def dpo_checks(seed: int) -> Iterator[Check]:
    """The fixed points of DPO, conservative DPO and IPO."""
    world = one_token_table(seed, ACTIONS)
    first, second = (torch.from_numpy(side) for side in np.triu_indices(ACTIONS, 1))
    gap = world.reward_N[first] - world.reward_N[second]
    # Every pair with both labels, as often as Bradley and Terry say.
    policy = learn_pairs(world, first, second, DpoConfig(beta=BETA), torch.sigmoid(-gap), 1.0, 350)
    off = (BETA * _moved(policy, world, first, second) - gap).abs().max().item()
    found = outcome(policy, world, BETA)
    yield Check(
        "DPO on complete pairs: implicit margin = r_i − r_j",
        f"{off:.1e} apart, {found.closed:.4%} of the gap to π* closed",
        f"≤ {MOST_MARGIN_OFF}",
        off <= MOST_MARGIN_OFF,
    )
    one, other = torch.tensor([0]), torch.tensor([1])
    config = DpoConfig(beta=BETA, label_smoothing=SMOOTHING)
    policy = learn_pairs(world, one, other, config, SMOOTHING, 0.3, 150)
    yield _fixed_point(
        "label smoothing ε: log(π/π_ref) apart by logit(1 − ε)/β",
        float(_moved(policy, world, one, other)),
        math.log((1 - SMOOTHING) / SMOOTHING) / BETA,
    )
    policy = learn_pairs(world, one, other, DpoConfig("ipo", beta=TAU), 0.0, 0.004, 150)
    yield _fixed_point(
        "IPO: log(π/π_ref) apart by 1/(2τ)",
        float(_moved(policy, world, one, other)),
        1 / (2 * TAU),
    )


def _moved(policy: Decoder, world: World, chosen: Tensor, rejected: Tensor) -> Tensor:
    ratio_N = exact_logprobs(policy, world) - exact_logprobs(world.model, world)
    return ratio_N[chosen] - ratio_N[rejected]


def _fixed_point(oracle: str, found: float, right: float) -> Check:
    off = abs(found - right)
    return Check(oracle, f"{off:.1e} apart", f"≤ {MOST_MARGIN_OFF}", off <= MOST_MARGIN_OFF)


# --- reward model --------------------------------------------------------------------------


def reward_checks(seed: int) -> Iterator[Check]:
    """Planted Bradley–Terry scores against those a reward model finds."""
    items, pairs, held_out = 10, 600, 4000
    world = one_token_table(seed, items + 2)
    answers = [Answer((1,), (index,)) for index in range(items)]
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=items)
    i = draw.integers(items, size=pairs + held_out)
    j = (i + draw.integers(1, items, size=len(i))) % items
    share = 1 / (1 + np.exp(truth[j] - truth[i]))
    wins = draw.random(len(i)) < share
    drawn = [
        Pair(answers[a], answers[b], None, None)
        if won
        else Pair(answers[b], answers[a], None, None)
        for a, b, won in zip(i, j, wins, strict=True)
    ]
    model = RewardModel(deepcopy(world.model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "head.weight")
    loop = PairTrain(batch_pairs=pairs, micro_batch_pairs=pairs)
    recipe = RewardRecipe(_START, _DATA, descent(0.3), loop, reward=RewardConfig(centring=0.0))
    data = reward_batch(drawn[:pairs], model.heads, False)
    train(model, reward_task(recipe, data, None), recipe.optimizer, 250)
    off = model.judge(answers)[:, 0].numpy() - truth
    off -= off.mean()
    row = np.zeros((pairs, items))
    row[np.arange(pairs), i[:pairs]], row[np.arange(pairs), j[:pairs]] = 1.0, -1.0
    weight = (share * (1 - share))[:pairs, None]
    distance = float(off @ ((row * weight).T @ row) @ off)
    most = chi_square_bound(items - 1)
    yield Check(
        "planted Bradley–Terry scores are recovered",
        f"χ² {distance:.1f}",
        f"≤ {most:.1f} (99.9 %)",
        distance <= most,
    )
    hits = judged(model, reward_batch(drawn[pairs:], model.heads, False), 4096).hits.mean()
    best = float(np.maximum(share, 1 - share)[pairs:].mean())
    room = 3.29 * math.sqrt(best * (1 - best) / held_out)
    low, high = best - room - 0.01, best + room
    yield Check(
        "held-out accuracy is that of the label noise, and not above it",
        f"{hits:.1%}, Bayes {best:.1%}",
        f"{low:.1%} to {high:.1%}",
        low <= hits <= high,
    )


# --- SFT -----------------------------------------------------------------------------------


def sft_check(seed: int) -> Check:
    """Texts learnt to the end have the frequencies they came with."""
    counts = (1, 2, 3, 4, 6)
    world = one_token_table(seed, len(counts) + 1)
    texts = [Encoded((5, index), (False, True)) for index, n in enumerate(counts) for _ in range(n)]
    data = Conversations(texts, 1, seed)
    batch = batch_of(data.at(np.arange(data.n_windows)), slice(None))
    task = Task(
        batches=lambda step: [batch],
        loss=next_token_loss,
        evaluate=lambda model: {},
        samples=lambda model: (),
    )
    model = deepcopy(world.model)
    # The action that never comes goes to probability 0 as slowly as its gradient: out of the way.
    with torch.no_grad():
        state_D = model.hidden(torch.tensor([[5]]))[0, -1]
        model.lm_head.weight[5] = -40 * state_D / state_D.square().sum()
    train(model, task, descent(0.1), 200)
    share_V = exact_logprobs(model, replace(world, prompt=(5,))).exp()[:-1]
    off = float((share_V - torch.tensor(counts).double() / sum(counts)).abs().max())
    return Check(
        "SFT ends at the frequencies of its texts",
        f"{off:.1e} apart",
        f"≤ {MOST_MARGIN_OFF}",
        off <= MOST_MARGIN_OFF,
    )
