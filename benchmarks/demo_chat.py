"""What the demo's base model answers, and what it answers after each stage that follows.

Usage: python benchmarks/demo_chat.py DEMO [--problems 100]

DEMO is the folder of a finished `isoflop demo`. Word problems are new stories: about computations
that no training row asked, and about others. Products have two factors of four digits. They are
asked thrice: of the base model in the form of its text, of the chat model without its calculator
(its answer begun for it, "The answer is"), and with it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from isoflop.alignment.chat import Chat, open_chat
from isoflop.alignment.tools import TOOLS, answer
from isoflop.core.artifact import read_json
from isoflop.data.answers import is_right
from isoflop.data.instruct import generate as problems_of
from isoflop.data.instruct import is_held_out
from isoflop.data.instruct_problems import Problem
from isoflop.data.instruct_recipe import InstructSource
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.demo.recipes import HELD_OUT
from isoflop.loading import load
from isoflop.models.decoder import Decoder
from isoflop.models.generate import generate

MOST = 64
BEGUN = {"en": "The answer is", "zh": "答案是"}
Asker = Callable[[Problem], str]


def problems(kind: str, language: str, held_out: bool, count: int) -> list[Problem]:
    """New problems, of computations kept out of training or of the others."""
    source = InstructSource(
        "generated", "benchmark", problems=(kind,), languages=(language,), difficulty=(4, 4),
        count=100_000,
    )  # fmt: skip
    found = problems_of(source, seed=1)
    kept = (each for each in found if is_held_out(each.family, 0, HELD_OUT) == held_out)
    return list(itertools.islice(kept, count))


def base_asker(directory: Path) -> Asker:
    """The base model, in the form of the word problems in its text."""
    model = load(directory)

    def ask(problem: Problem) -> str:
        frame = "问题：{}\n答案：" if problem.language == "zh" else "Question: {}\nAnswer:"
        return str(model.generate(frame.format(problem.question), MOST).text).split("\n")[0]

    return ask


def chat_asker(model: Decoder, chat: Chat, tools: bool) -> Asker:
    """A chat model, with or without its calculator."""

    def ask(problem: Problem) -> str:
        prompt = chat.prompt_ids([{"role": "user", "content": problem.question}])
        if tools:
            return answer(model, chat, prompt, MOST, tools=TOOLS).text
        begun = chat.tokenizer.encode(BEGUN[problem.language])
        stop = {chat.stop_id, chat.tokenizer.eos_id}
        written = generate(model, [*prompt, *begun], MOST, stop_ids=stop)
        return chat.decode(tuple(each for each in (*begun, *written) if each not in stop))

    return ask


def share(ask: Asker, asked: list[Problem]) -> str:
    """Answered right, in percent."""
    right = sum(is_right(ask(each), each.answer) for each in asked)
    return f"{100 * right / len(asked):.1f}"


def rows(demo: Path, count: int) -> Iterator[tuple[str, ...]]:
    """A row for each model that is there."""
    words = {
        (language, held_out): problems("word", language, held_out, count)
        for language in ("en", "zh")
        for held_out in (False, True)
    }
    products = [
        p for each in ("en", "zh") for p in problems("long-product", each, True, count // 2)
    ]
    stages: list[tuple[str, Path]] = [
        ("base", demo / "model"),
        ("after `sft`", demo / "sft/model"),
        ("after `grpo`", demo / "grpo/model"),
        ("int8", demo / "int8"),
    ]
    for name, directory in stages:
        if not directory.is_dir():
            continue
        if name == "base":
            ask = plain = base_asker(directory)
            called = "–"
        else:
            model, chat = load(directory).decoder, open_chat(load_tokenizer(directory))
            ask, plain = chat_asker(model, chat, True), chat_asker(model, chat, False)
            called = share(ask, products)
        yield (name, *(share(ask, each) for each in words.values()), share(plain, products), called)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path)
    parser.add_argument("--problems", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| model | words en | words zh | words en, new sums | words zh, new sums | products, "
        "direct | products, by calls |\n|---|---|---|---|---|---|---|"
    )
    order = (0, 1, 3, 2, 4, 5, 6)
    for row in rows(arguments.demo, arguments.problems):
        print("| " + " | ".join(row[i] for i in order) + " |", flush=True)
    taught = read_json(arguments.demo / "sft" / "result.json")
    before, after = taught["bits_per_byte_before"], taught["bits_per_byte"]
    print(
        f"\nbits per byte of held-out text: {before:.4f} before, {after:.4f} after "
        f"fine-tuning ({100 * (after / before - 1):+.2f} %)"
    )


if __name__ == "__main__":
    main()
