"""The checks of `isoflop verify` on drawing answers and on policies that learn from them."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from scipy.special import gammaincinv

from isoflop.alignment.answers import frozen_logprobs
from isoflop.alignment.policy import gae
from isoflop.alignment.policy_recipe import (
    GrpoConfig,
    GrpoRecipe,
    KlConfig,
    KlForm,
    PolicyTrain,
    PpoRecipe,
    PromptData,
    RolloutConfig,
)
from isoflop.alignment.policy_task import policy_optimizer, policy_task, steps_of
from isoflop.alignment.reward_model import RewardModel
from isoflop.alignment.rollout import Sampling, sample
from isoflop.alignment.rounds import Policy, Question, Setting
from isoflop.alignment.sft_recipe import StartConfig
from isoflop.alignment.verify_worlds import (
    Outcome,
    World,
    frozen_copy,
    letters,
    one_token_table,
    outcome,
    small_decoder,
    train,
)
from isoflop.models.decoder import Decoder
from isoflop.training.guard_recipe import GuardConfig
from isoflop.training.optimizer_recipe import OptimizerConfig

BETA = 0.5
ACTIONS = 80
LEAST_CLOSED, MOST_KL, MOST_OFF = 0.995, 0.01, 0.15
_NOWHERE = Path(".")


@dataclass(frozen=True)
class Check:
    """One oracle's verdict."""

    oracle: str
    """What is checked."""
    measured: str
    expected: str
    passed: bool


@dataclass(frozen=True)
class Method:
    """A way to train a policy in a world."""

    name: str
    ppo: bool = False
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    kl: KlForm = "reverse-in-reward"
    beta: float = BETA
    temperature: float = 1.0
    rounds: int = 150
    answers: int = 512
    epochs: int = 1
    minibatches: int = 1
    learning_rate: float = 0.006


PPO = Method("PPO", ppo=True)
GRPO = Method("GRPO without std")
RLOO = Method("RLOO", grpo=GrpoConfig(baseline="leave-one-out"), temperature=1.5)
TABLE_METHODS = (
    PPO,
    GRPO,
    RLOO,
    Method("GRPO, k2 in the loss", kl="reverse-k2"),
    Method("GRPO, k3 × ratio in the loss", kl="reverse-k3"),
)
WORD_METHODS = (
    replace(GRPO, rounds=300, answers=256, learning_rate=0.002),
    replace(PPO, rounds=300, answers=256, learning_rate=0.002),
)


def learn(world: World, method: Method, seed: int) -> Outcome:
    """Train a copy of the world's reference and compare it with the closed form."""
    policy = trained(world, method, seed)
    return outcome(policy.decoder, world, method.beta, method.temperature)


def trained(world: World, method: Method, seed: int) -> Policy:
    """The policy that a method leads to, by the task and loop of `isoflop grpo` and `ppo`."""
    rollouts = RolloutConfig(
        prompts=1, answers=method.answers, max_new_tokens=world.max_new_tokens,
        temperature=method.temperature, epochs=method.epochs, minibatches=method.minibatches,
    )  # fmt: skip
    kl = KlConfig(coef=method.beta, form=method.kl)
    loop = PolicyTrain(rounds=method.rounds, micro_batch_answers=4096, seed=seed)
    start, data, guard = StartConfig(_NOWHERE), PromptData(_NOWHERE), GuardConfig(spike_z=0.0)
    # Draws shake the weights by the learning rate; their mean over some steps does not shake.
    optimizer = OptimizerConfig(
        learning_rate=method.learning_rate, schedule="linear", weight_decay=0.0, clip_norm=100.0,
        average_decay=0.97,
    )  # fmt: skip
    setting = Setting(
        questions=(Question(world.prompt, {}),),
        reward=lambda attempts: world.worth(list(attempts)),
        decode=lambda ids: "",
        stop_ids=world.stop_ids,
        reference=frozen_copy(world.model),
    )
    recipe: GrpoRecipe | PpoRecipe
    critic = None
    if method.ppo:
        recipe = PpoRecipe(
            start, data, rollouts=rollouts, kl=kl, optimizer=optimizer, train=loop, guard=guard
        )
        critic = RewardModel(deepcopy(world.model))
    else:
        recipe = GrpoRecipe(
            start, data, rollouts=rollouts, kl=kl, optimizer=optimizer, train=loop, guard=guard,
            grpo=method.grpo,
        )  # fmt: skip
    policy = Policy(deepcopy(world.model), critic, recipe.kl.coef)
    train(
        policy,
        policy_task(recipe, setting, policy),
        optimizer,
        steps_of(recipe),
        lambda model, config: policy_optimizer(model, config, 1.0),
    )
    return policy


def policy_checks(seed: int) -> Iterator[Check]:
    """PPO, GRPO and RLOO against π* ∝ π_ref·exp(r/β)."""
    table, words = one_token_table(seed, ACTIONS), letters(seed)
    for world, called, methods in (
        (table, f"table of {ACTIONS} actions", TABLE_METHODS),
        (words, f"all {len(words.answers)} words of 3 letters", WORD_METHODS),
    ):
        for method in methods:
            found = learn(world, method, seed)
            heat = "" if method.temperature == 1 else f", temperature {method.temperature}"
            name = (
                f"{method.name} on a {called}{heat}"
                if world is table
                else f"{method.name}, {called}{heat}"
            )
            yield Check(
                name,
                f"{found.closed:.3%} of the gap to π* closed, KL {found.kl:.4f}",
                f"≥ {LEAST_CLOSED:.1%}, ≤ {MOST_KL}",
                found.closed >= LEAST_CLOSED and found.kl <= MOST_KL,
            )
            if method is GRPO:
                yield Check(
                    "the padding's id is learnt like any other",
                    f"log-probability {found.first_off:.3f} off",
                    f"≤ {MOST_OFF}",
                    found.first_off <= MOST_OFF,
                )


def sampler_checks(seed: int) -> Iterator[Check]:
    """What the sampler says of its tokens against what the trainer says."""
    model = small_decoder(seed, 60).float()
    prompts = [[*range(1, 3 + number % 3)] for number in range(6)]
    for called, sampling in (
        ("temperature 1", Sampling(10)),
        ("temperature 0.7", Sampling(10, 0.7)),
        ("temperature 1.4, top-k 9", Sampling(10, 1.4, 9)),
        ("temperature 1.2, top-p 0.8", Sampling(10, 1.2, top_p=0.8)),
    ):
        drawn = sample(model, prompts, sampling, (5, 6), seed=seed, copies=40)
        again_BA = frozen_logprobs(model, drawn.rows(), sampling.temperature)
        off = (again_BA - drawn.logprobs_BA).abs().max().item()
        yield Check(
            f"log-probabilities of sampler and trainer, {called}",
            f"{off:.1e} apart",
            "≤ 1e-4",
            off <= 1e-4,
        )
    yield _frequencies(model, seed)


def _frequencies(model: Decoder, seed: int) -> Check:
    """Drawn tokens against the probabilities they were drawn by."""
    count, heat = 20_000, 1.3
    drawn = sample(model, [[1, 2]] * 40, Sampling(1, heat), seed=seed, copies=count // 40)
    taken_B = torch.tensor([answer.ids[0] for answer in drawn.answers])
    with torch.no_grad():
        share_V = (model(torch.tensor([[1, 2]]))[0, -1].double() / heat).softmax(-1)
    seen_V = torch.bincount(taken_B, minlength=len(share_V)).double()
    square = float(((seen_V - count * share_V).square() / (count * share_V)).sum())
    most = chi_square_bound(len(share_V) - 1)
    return Check(
        "tokens are drawn as often as their probability says",
        f"χ² {square:.0f}",
        f"≤ {most:.0f} (99.9 %)",
        square <= most,
    )


def chi_square_bound(freedom: int) -> float:
    """The 99.9 % point of χ² with so many degrees of freedom."""
    return float(2 * gammaincinv(freedom / 2, 0.999))


def gae_check(seed: int) -> Check:
    """Generalised advantages against their definition as a double sum."""
    draw = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 3, 7, generator=draw, dtype=torch.float64)
    lengths, gamma, lam = (7, 4, 1), 0.97, 0.9
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    found, _ = gae(rewards, values, mask, gamma, lam)
    worst = 0.0
    for row, length in enumerate(lengths):
        after = [*values[row, 1:length].tolist(), 0.0]
        delta = [
            float(rewards[row, t]) + gamma * after[t] - float(values[row, t]) for t in range(length)
        ]
        for t in range(length):
            right = sum((gamma * lam) ** (s - t) * delta[s] for s in range(t, length))
            worst = max(worst, abs(float(found[row, t]) - right))
    return Check("GAE is the double sum", f"{worst:.1e} apart", "≤ 1e-12", worst <= 1e-12)
