"""CPU-seconds of one optimizer step of each stage of alignment, on one thread, at 0.87M parameters.

Isoflop's own step is set beside a bare loop over `transformers`' model of the same shape: forward,
cross-entropy, backward, clip, AdamW, with nothing around them. All contestants of a stage take
turns in one process and the least of their rounds counts, so that other load on the machine does
not. Not for what is learnt (`alignment_sft.py`).

    python benchmarks/alignment_speed.py --stages sft packed --rounds 8
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro

from isoflop.alignment.chat import Encoded
from isoflop.alignment.packed import Conversations
from isoflop.alignment.sft import SftBatch, batch_of
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
    ours = model()
    optimizer = build_optimizer(ours, OptimizerConfig(learning_rate=1e-4))
    task: Task[Decoder, SftBatch] = Task(
        batches=lambda step: [batch], loss=next_token_loss, evaluate=lambda m: {},
        samples=lambda m: [],
    )  # fmt: skip

    def step() -> None:
        compute_gradient(ours, task, 0, 1.0)
        apply_gradient(optimizer, 1e-4)

    # The bare loop does the same work on rows of one conversation each; it knows no packing.
    plain = batch_of(conversations(1).at(np.arange(ROWS)), slice(None))
    return {"isoflop": step, "bare loop": bare(plain)}


def bare(batch: SftBatch) -> Step:
    """A loop that anyone would write around transformers' Qwen3."""
    import transformers

    config = transformers.Qwen3Config(
        vocab_size=CONFIG.vocab_size, hidden_size=CONFIG.d_model, intermediate_size=CONFIG.d_ff,
        num_hidden_layers=CONFIG.n_layers, num_attention_heads=CONFIG.n_heads,
        num_key_value_heads=CONFIG.n_kv_heads, head_dim=CONFIG.head_dim,
        max_position_embeddings=SEQ_LEN, tie_word_embeddings=True,
    )  # fmt: skip
    theirs = transformers.Qwen3ForCausalLM(config).train()
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-4)

    def step() -> None:
        logits = theirs(batch.ids_BT, use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch.labels_BT.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        optimizer.step()

    return step


STAGES: dict[str, Callable[[], Stage]] = {
    "sft": lambda: Stage(0.45, sft(per_window=1)),
    "packed": lambda: Stage(0.47, sft(per_window=4)),
}
"""Name → what takes turns."""


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


def main(
    stages: tuple[str, ...] = tuple(STAGES), rounds: int = 8, json_file: Path | None = None
) -> None:
    """Measure and print.

    Args:
        stages: Which.
        rounds: Steps of each contestant.
        json_file: Where to write the figures too.
    """
    torch.set_num_threads(1)
    keep_freed_buffers()
    found: dict[str, dict[str, float]] = {}
    print("| stage | contestant | CPU-seconds a step | goal |")
    print("|---|---|---|---|")
    for name in stages:
        stage = STAGES[name]()
        found[name] = least_seconds(stage.contestants, rounds)
        for contestant, seconds in found[name].items():
            print(f"| {name} | {contestant} | {seconds:.3f} | {stage.goal} |", flush=True)
    if json_file is not None:
        json_file.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    tyro.cli(main)
