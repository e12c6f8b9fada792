"""Worlds so small that every answer in them can be counted, for `isoflop verify`; not the checks.

What the closed forms say is computed here from logits alone, by none of the functions that train.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from isoflop.alignment.answers import Answer
from isoflop.alignment.rewards import Attempt
from isoflop.core.console import SILENT
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import draw_normal, initialise
from isoflop.training.guard_recipe import GuardConfig
from isoflop.training.loop import LoopConfig, run
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.schedules import learning_rate_factor
from isoflop.training.step import BatchT, ModelT, Task

WIDTH = 32
WORD_REWARD_STD = 0.6
"""Larger rewards put π* on words that π_ref hardly ever draws, which no few thousand draws show."""


@dataclass(frozen=True)
class World:
    """One prompt, all answers to it, and what each is worth."""

    model: Decoder
    """π_ref, in float64."""
    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    reward_N: Tensor
    """Of each answer, float64."""
    stop_ids: tuple[int, ...]
    max_new_tokens: int

    def worth(self, attempts: list[Attempt]) -> Tensor:
        """The rewards of drawn answers."""
        place = {ids: index for index, ids in enumerate(self.answers)}
        return self.reward_N[[place[each.answer.ids] for each in attempts]]

    def all_answers(self) -> list[Answer]:
        """Every answer, with the prompt."""
        return [Answer(self.prompt, ids) for ids in self.answers]


def one_token_table(seed: int, actions: int) -> World:
    """Answers of a single token; only the output layer is trained, so that the policy is a table.

    Id 0, with which rows are padded, is the action that is worth most.
    """
    model = small_decoder(seed, actions)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "lm_head.weight")
    reward_N = draw_normal(seed, "reward", torch.Size([actions]), 1.0).double()
    reward_N[0] = reward_N.max() + 0.5
    answers = tuple((action,) for action in range(actions))
    return World(model, (1,), answers, reward_N, (), 1)


def letters(seed: int, kinds: int = 3, longest: int = 3) -> World:
    """Words of a few letters and an end, written by a transformer of one layer; all weights are
    trained."""
    end = kinds
    model = small_decoder(seed, kinds + 1)
    words: list[tuple[int, ...]] = []
    for length in range(longest):
        words += [(*word, end) for word in product(range(kinds), repeat=length)]
    words += product(range(kinds), repeat=longest)
    reward_N = draw_normal(seed, "reward", torch.Size([len(words)]), WORD_REWARD_STD).double()
    return World(model, (end,), tuple(words), reward_N, (end,), longest)


def small_decoder(seed: int, vocab_size: int) -> Decoder:
    """A decoder of one layer in float64, every weight random."""
    config = DecoderConfig(
        vocab_size=vocab_size, d_model=WIDTH, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=16,
        d_ff=2 * WIDTH, max_seq_len=16, tie_embeddings=False,
    )  # fmt: skip
    model = Decoder(config)
    initialise(model, seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.copy_(draw_normal(seed, f"{name} again", parameter.shape, WIDTH**-0.5))
    return model.double()


@torch.no_grad()
def exact_logprobs(model: Decoder, world: World, temperature: float = 1.0) -> Tensor:
    """(N,) log π of every answer at a temperature, one token after the other from the logits."""
    found = []
    for ids in world.answers:
        logits_TV = model(torch.tensor([[*world.prompt, *ids]]))[0] / temperature
        first = len(world.prompt) - 1
        found.append(
            sum(logits_TV[first + i].log_softmax(-1)[index] for i, index in enumerate(ids))
        )
    return torch.stack([torch.as_tensor(value) for value in found])


@dataclass(frozen=True)
class Outcome:
    """How near a policy came to π* ∝ π_ref·exp(r/β)."""

    closed: float
    """Share of the gap in J = E[r] − β·KL(π‖π_ref) between π_ref and π* that is closed."""
    kl: float
    """KL(π‖π*) in nats."""
    moved: float
    """KL(π‖π_ref) in nats."""
    first_off: float
    """|log π − log π*| of the first answer: in a table, the one of the padding's id."""


def outcome(model: Decoder, world: World, beta: float, temperature: float = 1.0) -> Outcome:
    """Compare a trained model with the closed form of the world's reference."""
    reference_N = exact_logprobs(world.model, world, temperature)
    policy_N = exact_logprobs(model, world, temperature)
    best_N = (reference_N + world.reward_N / beta).log_softmax(0)

    def value(logprobs_N: Tensor) -> float:
        worth_N = world.reward_N - beta * (logprobs_N - reference_N)
        return float((logprobs_N.exp() * worth_N).sum())

    start, best = value(reference_N), value(best_N)
    share_N = policy_N.exp()
    return Outcome(
        closed=(value(policy_N) - start) / (best - start),
        kl=float((share_N * (policy_N - best_N)).sum()),
        moved=float((share_N * (policy_N - reference_N)).sum()),
        first_off=float((policy_N - best_N)[0].abs()),
    )


def train(
    model: ModelT,
    task: Task[ModelT, BatchT],
    config: OptimizerConfig,
    steps: int,
    build: Callable[[ModelT, OptimizerConfig], torch.optim.Optimizer] = build_optimizer,
) -> None:
    """Train in place by the one training loop, in a directory that is removed again."""

    def rate(step: int) -> float:
        return config.learning_rate * learning_rate_factor(
            step,
            total_tokens=steps,
            warmup_tokens=0,
            schedule=config.schedule,
            decay_fraction=config.decay_fraction,
            final_fraction=0.0,
        )

    loop = LoopConfig(
        steps=steps,
        batch_tokens=lambda step: 1,
        flops_per_token=0.0,
        peak_flops=None,
        clip_norm=config.clip_norm,
        log_every=steps,
        evaluate_at=frozenset(),
        checkpoint_every=steps,
        keep_checkpoints_at=frozenset(),
        tensorboard=False,
        guard=GuardConfig(spike_z=0.0),
        average_decay=config.average_decay,
    )
    with TemporaryDirectory() as folder:
        run(model, build(model, config), rate, task, loop, Path(folder), SILENT)


def frozen_copy(model: Decoder) -> Decoder:
    """The same weights, never trained."""
    return deepcopy(model).requires_grad_(False)
