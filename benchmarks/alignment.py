"""SFT, reward, DPO, GRPO and PPO end to end at a million parameters, on sums of two digits.

    python benchmarks/alignment.py --out build/alignment --seeds 0 1 2

Each seed trains a model of 0.9 million parameters on 9,500 sums until it answers about two thirds
of the held-out ones, and then:
  grpo, ppo   the same prompts with the exact answer as reward; held-out share answered right
  dpo         pairs that prefer "=95" to "95", which a fifth of the texts have; share drawn
  *_style     GRPO and PPO with that style as reward; share drawn
  reward      pairs labelled by planted Bradley–Terry scores; accuracy against the best possible
  shuffled    the same pairs with labels by chance; held: GRPO with a huge β, which stays
Prints a table in CPU-seconds; a finished stage is not done again.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from isoflop.alignment.chat import open_chat
from isoflop.alignment.dpo_recipe import (
    DpoConfig,
    DpoRecipe,
    PairTrain,
    PreferenceData,
    RewardRecipe,
)
from isoflop.alignment.dpo_run import dpo
from isoflop.alignment.policy_recipe import (
    GrpoRecipe,
    KlConfig,
    PolicyTrain,
    PpoConfig,
    PpoRecipe,
    PromptData,
    RewardTerm,
    RolloutConfig,
)
from isoflop.alignment.policy_run import grpo, ppo
from isoflop.alignment.reward_run import reward
from isoflop.alignment.rollout import Sampling, sample
from isoflop.alignment.sft import sft
from isoflop.alignment.sft_recipe import InstructData, SftRecipe, SftTrainConfig, StartConfig
from isoflop.data import corpus, instruct, tokenizer
from isoflop.data.instruct_recipe import InstructRecipe, InstructSource
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import load_decoder, save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training.optimizer_recipe import OptimizerConfig

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ message['content'] }}"
    "{% else %}{{ '<|im_start|>' + message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
)
STYLE = 0.2
"""Share of the texts that answer in the style that DPO is to prefer."""
LETTERS = "abcdefgh"
NOISE = 0.2
"""Share of the reward model's labels that are wrong."""


# --- data ------------------------------------------------------------------------------------


def make_data(out: Path, seed: int) -> None:
    """A tokenizer, the sums with pairs of styles, and the pairs of planted scores."""
    if not (out / "tokenizer" / "manifest.json").exists():
        sources = (SourceConfig("word-problems", documents=400),)
        text = corpus.build(DataRecipe(sources=sources), out / "corpus")
        tokenizer.train(text, 300, out / "tokenizer")
    draw = random.Random(seed)
    sums = [(a, b) for a in range(100) for b in range(100)]
    draw.shuffle(sums)
    rows: list[dict[str, Any]] = []
    for a, b in sums:
        question, answer, family = f"{a}+{b}", str(a + b), f"{min(a, b)},{max(a, b)}"
        said = f"={answer}" if draw.random() < STYLE else answer
        rows.append({"prompt": question, "completion": said, "answer": answer, "family": family})
        rows.append({"prompt": question, "answer": answer, "family": family})
    for a, b in sums[:2000]:
        answer, family = str(a + b), f"{min(a, b)},{max(a, b)}"
        pair = {"chosen": f"={answer}", "rejected": answer, "family": family}
        rows.append({"prompt": f"{a}+{b}", **pair})
    write_set(out / "sums", rows, seed)
    worth = {letter: draw.gauss(0, 1) for letter in LETTERS}
    for name, shuffled in (("scores", False), ("shuffled", True)):
        write_set(out / name, planted(draw, worth, 12_000, shuffled), seed, 0.2)


def planted(
    draw: random.Random, worth: dict[str, float], count: int, shuffled: bool
) -> list[dict[str, Any]]:
    """Pairs of words whose letters have a worth; a fifth of the labels, or half, are wrong."""
    rows = []
    while len(rows) < count:
        words = ["".join(draw.choices(LETTERS, k=draw.randint(3, 6))) for _ in range(2)]
        total = [sum(worth[letter] for letter in word) for word in words]
        if abs(total[0] - total[1]) < 0.5:
            continue
        better = 0 if total[0] > total[1] else 1
        wrong = draw.random() < (0.5 if shuffled else NOISE)
        if wrong:
            better = 1 - better
        pair = {"chosen": words[better], "rejected": words[1 - better]}
        rows.append({"prompt": f"word {len(rows)}", **pair, "right": not wrong})
    return rows


def write_set(out: Path, rows: list[dict[str, Any]], seed: int, held_out: float = 0.05) -> None:
    """The rows as an instruction set."""
    if (out / "manifest.json").exists():
        return
    path = out.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = InstructSource("jsonl", path=path)
    instruct.instruct(InstructRecipe((source,), seed=seed, held_out_fraction=held_out), out)


def make_base(out: Path, seed: int) -> None:
    """A fresh model of 0.9 million parameters."""
    if (out / "manifest.json").exists():
        return
    vocab = tokenizer.load(out.parent / "tokenizer").vocab_size
    config = DecoderConfig(
        vocab_size=vocab, d_model=128, n_layers=4, n_heads=4, n_kv_heads=2,
        head_dim=32, d_ff=384, max_seq_len=32,
    )  # fmt: skip
    model = Decoder(config)
    initialise(model, seed)
    save_model(model, out, out.parent / "tokenizer", seed=seed)


# --- stages ----------------------------------------------------------------------------------


def stages(out: Path, seed: int, epochs: float, rounds: int) -> dict[str, Callable[[], Any]]:
    """Name → what runs it, in order."""
    template = out / "template.jinja"
    template.write_text(TEMPLATE)
    base = StartConfig(out / "base", str(template))
    start = StartConfig(out / "sft" / "model")
    adam = OptimizerConfig(
        learning_rate=2e-3, schedule="linear", warmup_tokens=0, weight_decay=0.0, beta2=0.99
    )
    gentle = replace(adam, learning_rate=1e-4)
    learning = SftRecipe(
        base,
        InstructData(out / "sums"),
        adam,
        SftTrainConfig(
            epochs=epochs, seq_len=32, global_batch_tokens=512, micro_batch_tokens=512,
            seed=seed, evaluations=1, eval_answers=200, max_new_tokens=6, tensorboard=False,
        ),
    )  # fmt: skip
    pairs = PairTrain(seed=seed, evaluations=1, tensorboard=False, eval_pairs=3000)
    loop = PolicyTrain(
        rounds=rounds, micro_batch_answers=256, seed=seed, eval_answers=500, tensorboard=False
    )
    common = {
        "model": start,
        "data": PromptData(out / "sums"),
        "rollouts": RolloutConfig(prompts=16, answers=8, max_new_tokens=6),
        "kl": KlConfig(0.01),
        "optimizer": gentle,
        "train": loop,
    }
    two = RolloutConfig(prompts=128, answers=1, max_new_tokens=6, epochs=2)
    by_critic = PpoRecipe(**{**common, "rollouts": two}, ppo=PpoConfig(critic_rate=3.0))
    by_group = GrpoRecipe(**common)
    style = (RewardTerm("regex", pattern="=.*"),)
    short = replace(by_group, train=replace(loop, rounds=max(1, rounds // 4)))
    dense = {"rewards": style, "train": short.train, "optimizer": replace(adam, learning_rate=2e-4)}
    scores = RewardRecipe(base, PreferenceData(out / "scores"), adam, replace(pairs, epochs=1))
    styles = DpoRecipe(
        start, PreferenceData(out / "sums"), gentle, pairs,
        dpo=DpoConfig(beta=0.1),
    )  # fmt: skip
    return {
        "sft": lambda: sft(learning, out / "sft"),
        "grpo": lambda: grpo(by_group, out / "grpo"),
        "ppo": lambda: ppo(by_critic, out / "ppo"),
        "dpo": lambda: dpo(styles, out / "dpo"),
        "reward": lambda: reward(scores, out / "reward"),
        "shuffled": lambda: reward(
            replace(scores, data=PreferenceData(out / "shuffled"), train=pairs),
            out / "shuffled_run",
        ),
        "grpo_style": lambda: grpo(replace(by_group, **dense), out / "grpo_style"),
        "ppo_style": lambda: ppo(replace(by_critic, **dense), out / "ppo_style"),
        "held": lambda: grpo(replace(short, kl=KlConfig(100.0)), out / "held"),
    }


def style_rate(model_dir: Path, prompts: list[str], seed: int) -> float:
    """Share of drawn answers in the preferred style."""
    model = load_decoder(model_dir)
    chat = open_chat(tokenizer.load(model_dir))
    asked = [chat.prompt_ids([{"role": "user", "content": prompt}]) for prompt in prompts]
    stop = (chat.stop_id, chat.tokenizer.eos_id)
    drawn = sample(model, asked, Sampling(6), stop, seed=seed, copies=4)
    texts = [chat.decode(answer.ids) for answer in drawn.answers]
    return sum(text.startswith("=") for text in texts) / len(texts)


def figures(out: Path, name: str, result: Any, seed: int) -> str:
    """What a stage shows, in a few words."""
    if name == "sft":
        return f"held-out exact match {result.exact_match:.3f}"
    if name in ("grpo", "ppo", "held"):
        text = f"{result.exact_match_start:.3f} → {result.exact_match:.3f}"
        return text + (f", KL {result.kl:.3f}" if result.kl is not None else "")
    if name in ("dpo", "grpo_style", "ppo_style"):
        rows = instruct.open_set(out / "sums").rows("verifiable", "held_out")
        prompts = [row["prompt"] for row in rows[:100]]
        before = style_rate(out / "sft" / "model", prompts, seed)
        after = style_rate(result.run / "model", prompts, seed)
        return f"target rate {before:.3f} → {after:.3f} ({after / before:.1f}×)"
    found = instruct.open_set(out / ("shuffled" if name == "shuffled" else "scores"))
    rows = found.rows("preference", "held_out")
    # What the planted scores themselves order as the labels say: nothing that is right has more.
    best = sum(row["right"] for row in rows) / len(rows)
    return f"held-out accuracy {result.accuracy:.3f} of {best:.3f} ({len(rows)} pairs)"


def main() -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("build/alignment"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=float, default=5.0, help="of SFT")
    parser.add_argument("--rounds", type=int, default=100, help="of GRPO and PPO")
    parser.add_argument("--stages", nargs="+", help="only these")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in options.seeds:
        out = options.out / f"seed{seed}"
        out.mkdir(parents=True, exist_ok=True)
        make_data(out, seed)
        make_base(out / "base", seed)
        for name, work in stages(out, seed, options.epochs, options.rounds).items():
            if options.stages and name not in options.stages:
                continue
            began = time.process_time()
            result = work()
            spent = time.process_time() - began
            shown = figures(out, name, result, seed)
            print(f"| {seed} | {name} | {shown} | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
