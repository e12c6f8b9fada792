"""What an encoder and an encoder-decoder learn of the Python corpus, beside unigram and n-gram.

    python benchmarks/objectives.py OUT

Builds the corpus from the Python installation (recipes/demo-data.toml), a tokenizer with marks and
shards in OUT, trains recipes/bert.toml and recipes/t5.toml on one thread, and prints held-out
accuracies: of hidden tokens, of sentence pairs (chance: one half), of dropped spans token by token.
The baselines guess the same tokens from the training text: the commonest one, and the likeliest
after the two true tokens on the left. What is in OUT already is not made again, and a run that was
interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from isoflop.core.artifact import MANIFEST
from isoflop.core.recipe import load_recipe
from isoflop.data import corpus, shards, tokenizer
from isoflop.data.recipe import DataRecipe
from isoflop.training.pretrain import train
from isoflop.training.recipe import TrainRecipe
from isoflop.training.special_tokens import CLS, MASK, PAD, SEP, sentinel

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
MARKS = (PAD, CLS, SEP, MASK, *map(sentinel, range(8)))
ACCURACIES = {
    "bert": {"hidden tokens": "masked_accuracy", "sentence pairs": "pair_accuracy"},
    "t5": {"dropped spans": "token_accuracy"},
}


def missing(directory: Path) -> bool:
    return not (directory / MANIFEST).exists()


def prepare(out: Path) -> None:
    if missing(out / "corpus"):
        recipe = load_recipe(RECIPES / "demo-data.toml", DataRecipe)
        corpus.build(recipe, out / "corpus", placement="auto")
    if missing(out / "tokenizer"):
        tokenizer.train(corpus.inspect(out / "corpus"), 512, out / "tokenizer", reserve=MARKS)
    if missing(out / "shards"):
        text = corpus.inspect(out / "corpus")
        shards.tokenize(text, out / "tokenizer", out / "shards", placement="auto")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    prepare(out)
    print("| recipe | parameters | tokens | foretold | model | n-gram | unigram | wall seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name, accuracies in ACCURACIES.items():
        recipe = load_recipe(RECIPES / f"{name}.toml", TrainRecipe)
        recipe = replace(
            recipe,
            data=replace(recipe.data, shards=out / "shards"),
            train=replace(recipe.train, threads=1),
        )
        result = train(recipe, out / name)
        score = json.loads((out / name / "evals.jsonl").read_text().splitlines()[-1])
        for what, key in accuracies.items():
            pairs = what == "sentence pairs"
            baselines = (
                ["", "50 %"]
                if pairs
                else [f"{score[f'{which}_accuracy']:.1%}" for which in ("ngram", "unigram")]
            )
            cells = (
                f"{name}.toml", f"{result.params_total:,}", f"{result.tokens:,}", what,
                f"**{score[key]:.1%}**", *baselines, f"{result.seconds:.0f}",
            )  # fmt: skip
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
