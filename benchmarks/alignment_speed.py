"""CPU-seconds of one optimizer step of each stage of alignment, on one thread, at 0.87M parameters.

Isoflop's own step is set beside a bare loop over `transformers`' model of the same shape: forward,
cross-entropy, backward, clip, AdamW, with nothing around them; and, where it is asked for, beside
TRL's trainers (`alignment_peers.py`). All contestants of a stage take turns in one process and the
least of their rounds counts, so that other load on the machine does not. Not for what is learnt
(`alignment.py`, `alignment_sft.py`).

    pip install --target build/trl --no-deps trl==1.16.0 accelerate psutil
    python benchmarks/alignment_speed.py --stages sft packed --rounds 8 --peer build/trl
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import tyro

from isoflop.alignment.answers import Answer
from isoflop.alignment.chat import Encoded
from isoflop.alignment.dpo import PairBatch, dpo_task, reference_logprobs
from isoflop.alignment.dpo_recipe import DpoRecipe, PairTrain, PreferenceData, RewardRecipe
from isoflop.alignment.packed import Conversations
from isoflop.alignment.pairs import Pair
from isoflop.alignment.policy_recipe import (
    GrpoRecipe,
    KlConfig,
    PolicyTrain,
    PpoRecipe,
    PromptData,
    RolloutConfig,
)
from isoflop.alignment.policy_task import policy_optimizer, policy_task
from isoflop.alignment.reward_model import RewardModel
from isoflop.alignment.reward_training import reward_batch, reward_task
from isoflop.alignment.rewards import Attempt
from isoflop.alignment.rollout import Sampling, sample
from isoflop.alignment.rounds import Policy, Question, Setting
from isoflop.alignment.sft import SftBatch, batch_of
from isoflop.alignment.sft_recipe import StartConfig
from isoflop.core.process import keep_freed_buffers
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training.objectives import next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.step import Task, apply_gradient, compute_gradient

CONFIG = DecoderConfig(
    vocab_size=512, d_model=128, n_layers=4, n_heads=4, n_kv_heads=4, head_dim=32, d_ff=352,
    max_seq_len=128,
)  # fmt: skip
ROWS, SEQ_LEN = 32, CONFIG.max_seq_len
ADAM = OptimizerConfig(learning_rate=1e-4)
NOWHERE = StartConfig(Path("."))
PROMPT, ANSWER = 16, 64
Step = Callable[[], None]
"""One whole optimizer step."""


@dataclass(frozen=True)
class Stage:
    """One comparison."""

    goal: float
    """CPU-seconds a step that issue 7 asks for."""
    contestants: Mapping[str, Step]


def model() -> Decoder:
    """The model of all stages."""
    made = Decoder(CONFIG).train()
    initialise(made, 0)
    return made


def conversations(per_window: int) -> Conversations:
    """Random conversations, so many to a window; the first third of each is the prompt."""
    draw = np.random.default_rng(0)
    length = SEQ_LEN // per_window + 1  # the last id is a label only
    encoded = [
        Encoded(
            tuple(draw.integers(0, CONFIG.vocab_size, length).tolist()),
            tuple(place >= length // 3 for place in range(length)),
        )
        for _ in range(ROWS * per_window)
    ]
    return Conversations(encoded, SEQ_LEN, seed=0)


def sft(per_window: int) -> dict[str, Step]:
    """Supervised fine-tuning on 32 windows of 128."""
    windows = conversations(per_window)
    batch = batch_of(windows.at(np.arange(ROWS)), slice(None))
    task: Task[Decoder, SftBatch] = Task(
        batches=lambda step: [batch], loss=next_token_loss, evaluate=lambda m: {},
        samples=lambda m: [],
    )  # fmt: skip
    ours = model()
    # The bare loop does the same work on rows of one conversation each; it knows no packing.
    plain = batch_of(conversations(1).at(np.arange(ROWS)), slice(None))
    return {"isoflop": steps(ours, task, build_optimizer(ours, ADAM)), "bare loop": bare(plain)}


def steps(trained: Any, task: Task[Any, Any], optimizer: torch.optim.Optimizer) -> Step:
    """One optimizer step of the training loop after the other."""
    done = 0

    def step() -> None:
        nonlocal done
        compute_gradient(trained, task, done, 1.0)
        apply_gradient(optimizer, 1e-4)
        done += 1

    return step


def pairs() -> list[Pair]:
    """Random answers of two thirds of a row to prompts of a third."""
    draw = np.random.default_rng(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(draw.integers(0, CONFIG.vocab_size, length).tolist())

    first, found = SEQ_LEN // 3, []
    for _ in range(ROWS // 2):
        prompt = ids(first)
        both = (Answer(prompt, ids(SEQ_LEN - first)) for _ in range(2))
        found.append(Pair(*both, None, None))
    return found


def reward() -> dict[str, Step]:
    """A reward model on 16 pairs."""
    made = RewardModel(model()).train()
    loop = PairTrain(batch_pairs=ROWS // 2, micro_batch_pairs=ROWS // 2)
    recipe = RewardRecipe(NOWHERE, PreferenceData(Path(".")), ADAM, loop)
    task = reward_task(recipe, reward_batch(pairs(), made.heads, False), None)
    return {"isoflop": steps(made, task, build_optimizer(made, ADAM))}


def dpo() -> dict[str, Step]:
    """DPO on 16 pairs, whose reference was computed before."""
    policy = model()
    rows = reward_batch(pairs(), ("reward",), False).rows
    data = PairBatch(rows, reference_logprobs(policy, rows))
    loop = PairTrain(batch_pairs=ROWS // 2, micro_batch_pairs=ROWS // 2)
    task = dpo_task(DpoRecipe(NOWHERE, PreferenceData(Path(".")), ADAM, loop), data, None)
    return {"isoflop": steps(policy, task, build_optimizer(policy, ADAM))}


def prompts(count: int) -> list[tuple[int, ...]]:
    """Random prompts of one length."""
    draw = np.random.default_rng(0)
    return [tuple(draw.integers(0, CONFIG.vocab_size, PROMPT).tolist()) for _ in range(count)]


def first_above_last(attempts: Any) -> torch.Tensor:
    """A reward that costs nothing to compute."""
    some: list[Attempt] = list(attempts)
    return torch.tensor([float(a.answer.ids[0] < a.answer.ids[-1]) for a in some]).double()


def by_policy(critic: bool) -> dict[str, Step]:
    """A whole round: 4 prompts, 8 answers of 64 tokens to each, one step; PPO with a critic."""
    actor = model()
    asked = tuple(Question(ids, {}) for ids in prompts(64))
    setting = Setting(asked, first_above_last, lambda ids: "", (), deepcopy(actor).eval())
    data, loop = PromptData(Path(".")), PolicyTrain(micro_batch_answers=ROWS)
    recipe: GrpoRecipe | PpoRecipe
    if critic:
        drawn = RolloutConfig(prompts=ROWS, answers=1, max_new_tokens=ANSWER)
        recipe = PpoRecipe(NOWHERE, data, rollouts=drawn, kl=KlConfig(0.05), train=loop)
    else:
        drawn = RolloutConfig(prompts=4, answers=8, max_new_tokens=ANSWER)
        recipe = GrpoRecipe(NOWHERE, data, rollouts=drawn, kl=KlConfig(0.0), train=loop)
    policy = Policy(actor, RewardModel(deepcopy(actor)) if critic else None, recipe.kl.coef)
    task = policy_task(recipe, setting, policy.train())
    return {"isoflop": steps(policy, task, policy_optimizer(policy, ADAM, 1.0))}


def generation() -> dict[str, Step]:
    """32 answers of 64 tokens, and transformers' `generate`."""
    import transformers

    drawer, asked = model().eval(), prompts(ROWS)
    theirs = transformers.Qwen3ForCausalLM(qwen()).eval()
    ids = torch.tensor(asked)
    settings = transformers.GenerationConfig(
        max_new_tokens=ANSWER, do_sample=True, top_k=0, eos_token_id=None, pad_token_id=0
    )

    def generate() -> None:
        theirs.generate(ids, generation_config=settings, attention_mask=torch.ones_like(ids))

    return {
        "isoflop": lambda: void(sample(drawer, asked, Sampling(ANSWER))),
        "transformers": generate,
    }


def void(_: object) -> None:
    """Nothing."""


def bare(batch: SftBatch) -> Step:
    """A loop that anyone would write around transformers' Qwen3."""
    import transformers

    theirs = transformers.Qwen3ForCausalLM(qwen()).train()
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-4)

    def step() -> None:
        logits = theirs(batch.ids_BT, use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch.labels_BT.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()

    return step


def qwen() -> Any:
    """The model's shape as transformers has it."""
    import transformers

    return transformers.Qwen3Config(
        vocab_size=CONFIG.vocab_size, hidden_size=CONFIG.d_model, intermediate_size=CONFIG.d_ff,
        num_hidden_layers=CONFIG.n_layers, num_attention_heads=CONFIG.n_heads,
        num_key_value_heads=CONFIG.n_kv_heads, head_dim=CONFIG.head_dim,
        max_position_embeddings=SEQ_LEN, tie_word_embeddings=True,
    )  # fmt: skip


STAGES: dict[str, Callable[[], Stage]] = {
    "sft": lambda: Stage(0.45, sft(per_window=1)),
    "packed": lambda: Stage(0.47, sft(per_window=4)),
    "reward": lambda: Stage(0.45, reward()),
    "dpo": lambda: Stage(0.45, dpo()),
    "grpo": lambda: Stage(0.45, by_policy(critic=False)),
    "ppo": lambda: Stage(1.8, by_policy(critic=True)),
    "generation": lambda: Stage(0.21, generation()),
}
"""Name → what takes turns."""
PEER_HAS = ("sft", "packed", "reward", "dpo", "grpo")


def least_seconds(contestants: Mapping[str, Step], rounds: int) -> dict[str, float]:
    """CPU-seconds of each one's fastest step; each round begins with another one."""
    names = list(contestants)
    best = dict.fromkeys(names, float("inf"))
    for each in contestants.values():
        each()
    for number in range(rounds):
        for place in range(len(names)):
            name = names[(number + place) % len(names)]
            began = time.process_time()
            contestants[name]()
            best[name] = min(best[name], time.process_time() - began)
    return best


def with_peer(name: str, contestants: Mapping[str, Step], rounds: int) -> dict[str, float]:
    """The same with TRL's trainer among them."""
    from alignment_peers import in_turns

    with TemporaryDirectory() as out:
        return in_turns(name, qwen(), ROWS, contestants, rounds, Path(out))


def main(
    stages: tuple[str, ...] = tuple(STAGES),
    rounds: int = 8,
    json_file: Path | None = None,
    peer: Path | None = None,
) -> None:
    """Measure and print.

    Args:
        stages: Which.
        rounds: Steps of each contestant.
        json_file: Where to write the figures too.
        peer: Where TRL is installed; it takes part in the stages that it has.
    """
    torch.set_num_threads(1)
    keep_freed_buffers()
    found: dict[str, dict[str, float]] = {}
    if peer is not None:
        sys.path.append(str(peer))
    print("| stage | contestant | CPU-seconds a step | goal |")
    print("|---|---|---|---|")
    for name in stages:
        stage = STAGES[name]()
        if peer is not None and name in PEER_HAS:
            found[name] = with_peer(name, stage.contestants, rounds)
        else:
            found[name] = least_seconds(stage.contestants, rounds)
        for contestant, seconds in found[name].items():
            print(f"| {name} | {contestant} | {seconds:.3f} | {stage.goal} |", flush=True)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    tyro.cli(main)
