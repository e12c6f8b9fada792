"""SFT, reward, DPO, GRPO and PPO end to end at a million parameters, on sums of two digits.

    python benchmarks/alignment.py -o build/alignment --seeds 0 1 2

The settings are those of `recipes/align.toml`. Demonstrations are few and of two kinds: most give
the sum at once, two fifths write it out digit by digit, which is right far more often. Each seed
trains a fresh model of 0.9 million parameters on them, and from it:
  grpo, ppo   the exact answer as reward; held-out share answered right, greedily
  dpo         pairs that prefer a full stop at the end, as a fifth of the texts have; share drawn
  reward      pairs labelled by planted Bradley–Terry scores; accuracy against the best possible
and as controls
  shuffled    the same pairs with labels by chance
  unrelated   GRPO rewarded by that reward model, which knows nothing but likes something
  random      GRPO rewarded as a coin falls, whatever the answer
  held        GRPO with a huge β, which stays where it is
Prints a table in CPU-seconds; a finished stage is not done again.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from isoflop.alignment.chat import open_chat
from isoflop.alignment.dpo_recipe import DpoRecipe, PreferenceData, RewardRecipe
from isoflop.alignment.dpo_run import dpo
from isoflop.alignment.policy_recipe import GrpoRecipe, KlConfig, PpoRecipe, RewardTerm
from isoflop.alignment.policy_run import grpo, ppo
from isoflop.alignment.reward_run import reward
from isoflop.alignment.rollout import Sampling, sample
from isoflop.alignment.sft import sft
from isoflop.alignment.sft_recipe import SftRecipe
from isoflop.core.ledger import Ledger
from isoflop.core.recipe import from_dict
from isoflop.data import corpus, instruct, tokenizer
from isoflop.data.instruct_recipe import InstructRecipe, InstructSource
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import load_decoder, save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "align.toml"
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ message['content'] }}"
    "{% else %}{{ '<|im_start|>' + message['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
)
SUMS = 3300
"""Of the 10,000 sums of two numbers below 100."""
BOOK = 0.62
"""Share of the sums that come from the book, the others from the log."""
WORKED = {"book": 0.85, "log": 0.28}
"""Share of a source's texts that write the sum out."""
HELD_OUT = 0.15
STYLE = 0.2
"""Share of the texts that end as DPO is to prefer."""
LETTERS = "abcdefgh"
NOISE = 0.2
"""Share of the reward model's labels that are wrong."""
CONTROL_ROUNDS = 12


@dataclass(frozen=True)
class AlignRecipe:
    """All stages."""

    sft: SftRecipe
    grpo: GrpoRecipe
    ppo: PpoRecipe
    dpo: DpoRecipe
    reward: RewardRecipe


def open_recipe(path: Path, out: Path, seed: int) -> AlignRecipe:
    """The stages of a recipe with the paths of one seed's directory.

    Raises:
        RecipeError: A table is not that of its stage.
    """
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    for table in tables.values():
        table["train"]["seed"] = seed
        for part, key in (("model", "path"), ("model", "chat_template"), ("data", "set")):
            if key in table[part]:
                table[part][key] = str(out / table[part][key])
    return from_dict(AlignRecipe, tables, str(path))


# --- data ------------------------------------------------------------------------------------


def worked(a: int, b: int) -> str:
    """A sum of two numbers below 100 digit by digit."""
    ones = a % 10 + b % 10
    tens = a // 10 + b // 10 + ones // 10
    return (
        f"{a % 10}+{b % 10}={ones},{a // 10}+{b // 10}+{ones // 10}={tens}. The answer is {a + b}"
    )


def make_data(out: Path, seed: int) -> None:
    """A tokenizer, the sums with pairs of styles, and the pairs of planted scores."""
    if not (out / "tokenizer" / "manifest.json").exists():
        sources = (SourceConfig("word-problems", documents=2000),)
        text = corpus.build(DataRecipe(sources=sources), out / "corpus")
        tokenizer.train(text, 512, out / "tokenizer")
    draw = random.Random(seed)
    sums = draw.sample([(a, b) for a in range(100) for b in range(100)], SUMS)
    rows: list[dict[str, Any]] = []
    for a, b in sums:
        kind = "book" if draw.random() < BOOK else "log"
        prompt = f"{a}+{b}=" if kind == "book" else f"{a}+{b}?"
        asked = {"prompt": prompt, "family": f"{min(a, b)},{max(a, b)}", "problem": kind}
        said = worked(a, b) if draw.random() < WORKED[kind] else str(a + b)
        end = "." if draw.random() < STYLE else ""
        rows.append({**asked, "completion": said + end, "answer": str(a + b)})
        rows.append({**asked, "answer": str(a + b)})
        rows.append({**asked, "chosen": said + ".", "rejected": said})
    write_set(out / "sums", rows, seed, HELD_OUT)
    worth = {letter: draw.gauss(0, 1) for letter in LETTERS}
    write_set(out / "scores", planted(draw, worth, 40_000, shuffled=False), seed, 0.2)
    write_set(out / "shuffled", planted(draw, worth, 6_000, shuffled=True), seed, 0.4)


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


def write_set(out: Path, rows: list[dict[str, Any]], seed: int, held_out: float) -> None:
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
        head_dim=32, d_ff=384, max_seq_len=48,
    )  # fmt: skip
    model = Decoder(config)
    initialise(model, seed)
    save_model(model, out, out.parent / "tokenizer", seed=seed)


# --- stages ----------------------------------------------------------------------------------


def stages(out: Path, recipe: AlignRecipe) -> dict[str, Callable[[], Any]]:
    """Name → what runs it, in order."""
    by_chance = replace(recipe.reward, data=PreferenceData(out / "shuffled"))
    knows_nothing = (RewardTerm("model", path=out / "shuffled_run" / "model"),)
    short = replace(recipe.grpo, train=replace(recipe.grpo.train, rounds=CONTROL_ROUNDS))
    return {
        "sft": lambda: sft(recipe.sft, out / "sft"),
        "grpo": lambda: grpo(recipe.grpo, out / "grpo"),
        "ppo": lambda: ppo(recipe.ppo, out / "ppo"),
        "dpo": lambda: dpo(recipe.dpo, out / "dpo"),
        "reward": lambda: reward(recipe.reward, out / "reward"),
        "shuffled": lambda: reward(by_chance, out / "shuffled_run"),
        "unrelated": lambda: grpo(replace(short, rewards=knows_nothing), out / "unrelated"),
        "random": lambda: grpo(replace(short, rewards=(RewardTerm("chance"),)), out / "random"),
        "held": lambda: grpo(replace(short, kl=KlConfig(100.0)), out / "held"),
    }


def style_rate(model_dir: Path, prompts: list[str], seed: int) -> float:
    """Share of drawn answers in the preferred style."""
    model = load_decoder(model_dir)
    chat = open_chat(tokenizer.load(model_dir))
    asked = [chat.prompt_ids([{"role": "user", "content": prompt}]) for prompt in prompts]
    stop = (chat.stop_id, chat.tokenizer.eos_id)
    drawn = sample(model, asked, Sampling(26), stop, seed=seed, copies=4)
    texts = [chat.decode(answer.ids) for answer in drawn.answers]
    return sum(text.removesuffix("<|im_end|>").endswith(".") for text in texts) / len(texts)


def figures(out: Path, name: str, result: Any, seed: int) -> str:
    """What a stage shows, in a few words."""
    if name == "sft":
        return f"held-out exact match {result.exact_match:.3f}"
    if name in ("grpo", "ppo", "unrelated", "random", "held"):
        gain = 100 * (result.exact_match - result.exact_match_start)
        text = f"{result.exact_match_start:.3f} → {result.exact_match:.3f} ({gain:+.1f} points)"
        promises = Ledger(result.run / "ledger.jsonl").read()
        told = [
            f"promised {p.low:.3f} to {p.high:.3f} of {p.quantity.partition(',')[0]}, "
            f"came {p.outcome:.3f}"
            for p in promises
            if name in ("grpo", "ppo")
        ]
        return "; ".join([text, f"KL {result.kl:.3f}", *told])
    if name == "dpo":
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
    parser.add_argument("-o", "--out", type=Path, default=Path("build/alignment"))
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--stages", nargs="+", help="only these")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| seed | stage | found | CPU s |\n| --- | --- | --- | --- |")
    for seed in options.seeds:
        out = options.out / f"seed{seed}"
        out.mkdir(parents=True, exist_ok=True)
        began = time.process_time()
        make_data(out, seed)
        make_base(out / "base", seed)
        (out / "template.jinja").write_text(TEMPLATE, encoding="utf-8")
        print(f"| {seed} | data | | {time.process_time() - began:.1f} |", flush=True)
        for name, work in stages(out, open_recipe(options.recipe, out, seed)).items():
            if options.stages and name not in options.stages:
                continue
            began = time.process_time()
            result = work()
            spent = time.process_time() - began
            shown = figures(out, name, result, seed)
            print(f"| {seed} | {name} | {shown} | {spent:.1f} |", flush=True)


if __name__ == "__main__":
    main()
