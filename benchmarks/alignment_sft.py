"""What supervised fine-tuning teaches a model of 0.9 million parameters that knows nothing.

Three runs of the same length from random weights: sums with worked steps, 4-digit products written
out, and the same products by calls of the calculator. Each is asked questions whose numbers it
never saw, in English and Chinese. Not for speed (`alignment_speed.py`).

    python benchmarks/alignment_sft.py DIR --seeds 0 1 2
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import tyro

from isoflop.alignment.chat import Chat, open_chat
from isoflop.alignment.sft import SftResult, sft
from isoflop.alignment.sft_data import open_conversations
from isoflop.alignment.sft_recipe import InstructData, SftRecipe, SftTrainConfig, StartConfig
from isoflop.alignment.tools import answer
from isoflop.data import corpus, tokenizer
from isoflop.data.answers import is_right
from isoflop.data.instruct import instruct, is_held_out
from isoflop.data.instruct_problems import add, multiply
from isoflop.data.instruct_recipe import InstructRecipe, InstructSource
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import load_decoder, save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training.optimizer_recipe import OptimizerConfig

SEQ_LEN, ROWS, VOCAB = 128, 32, 512
TASKS = {
    "sums, worked": InstructSource(
        "generated", problems=("sum", "difference"), difficulty=(1, 2), count=16_000
    ),
    "products, written": InstructSource(
        "generated", problems=("product",), difficulty=(4, 4), count=12_000
    ),
    "products, calculator": InstructSource(
        "generated", problems=("product",), difficulty=(4, 4), count=12_000, work="calculator"
    ),
}


def base(out: Path, seed: int) -> Path:
    """A model of random weights with a tokenizer of word problems."""
    path = out / f"base-{seed}"
    if not path.exists():
        problems = SourceConfig("word-problems", documents=4000)
        text = corpus.build(DataRecipe(sources=(problems,)), out / "corpus")
        tokenizer.train(text, VOCAB, out / "tokenizer")
        model = Decoder(
            DecoderConfig(
                vocab_size=VOCAB, d_model=128, n_layers=4, n_heads=4, n_kv_heads=4, head_dim=32,
                d_ff=352, max_seq_len=SEQ_LEN,
            )
        )  # fmt: skip
        initialise(model, seed)
        save_model(model, path, out / "tokenizer", seed=seed)
    return path


def train(task: str, out: Path, steps: int, seed: int) -> tuple[SftResult, float]:
    """One run, and the CPU-seconds it took."""
    name = task.replace(", ", "-")
    recipe_of_set = InstructRecipe((TASKS[task],), seed=seed, held_out_fraction=0.1)
    if not (out / f"set-{name}-{seed}").exists():
        instruct(recipe_of_set, out / f"set-{name}-{seed}")
    recipe = SftRecipe(
        model=StartConfig(base(out, seed)),
        data=InstructData(out / f"set-{name}-{seed}"),
        optimizer=OptimizerConfig(
            learning_rate=3e-3, warmup_tokens=100_000, beta2=0.99, weight_decay=0.0
        ),
        train=SftTrainConfig(
            global_batch_tokens=ROWS * SEQ_LEN, micro_batch_tokens=ROWS * SEQ_LEN, threads=1,
            seed=seed, evaluations=1, eval_answers=0, tensorboard=False,
        ),
    )  # fmt: skip
    chat = open_chat(tokenizer.load(recipe.model.path))
    windows = open_conversations(recipe, chat, SEQ_LEN).train.n_windows
    epochs = math.floor(1000 * steps * ROWS / windows) / 1000
    recipe = replace(recipe, train=replace(recipe.train, epochs=epochs))
    began = time.process_time()
    return sft(recipe, out / f"run-{name}-{seed}"), time.process_time() - began


def score(model: Path, task: str, asked: int, seed: int) -> tuple[float, float]:
    """Share of new questions answered right, and of answers with a call of a tool."""
    decoder, chat = load_decoder(model), Chat(tokenizer.load(model))
    draw, right, called = random.Random(f"asked/{seed}"), 0, 0
    for number in range(asked):
        problem = None
        while problem is None or not unseen(problem.family, seed):
            make = add if task.startswith("sums") else multiply
            problem = make(draw, "zh" if number % 2 else "en", 2 if make is add else 4)
            digits = problem.family.partition("/")[2].split(",")
            if make is multiply and min(map(len, digits)) < 4:
                problem = None
        ids = chat.prompt_ids([{"role": "user", "content": problem.question}])
        turn = answer(decoder, chat, ids, 100)
        right += is_right(turn.text, problem.answer)
        called += bool(turn.calls)
    return right / asked, called / asked


def unseen(family: str, seed: int) -> bool:
    """Whether a problem's numbers are kept out of training."""

    return is_held_out(family, seed, 0.1)


def main(
    out: Annotated[Path, tyro.conf.Positional],
    seeds: tuple[int, ...] = (0,),
    steps: int = 450,
    asked: int = 200,
    tasks: tuple[str, ...] = tuple(TASKS),
) -> None:
    """Train and ask.

    Args:
        out: Where sets and runs are kept; runs that are there are not trained again.
        seeds: Of the weights, the sets and the order.
        steps: Optimizer steps of 32 windows of 128 tokens.
        asked: Questions per run.
        tasks: Which of the three.
    """
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    print("| task | seed | steps | right | called a tool | held-out loss | CPU-seconds a step |")
    print("|---|---|---|---|---|---|---|")
    for task in tasks:
        for seed in seeds:
            result, seconds = train(task, out, steps, seed)
            right, called = score(result.run / "model", task, asked, seed)
            print(
                f"| {task} | {seed} | {result.steps} | {right:.3f} | {called:.3f} | "
                f"{result.loss:.4f} | {seconds / result.steps:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    tyro.cli(main)
