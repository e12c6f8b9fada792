"""Perplexity of n-gram models on WikiText-2, word by word, for every order and method.

    python benchmarks/ngram_wikitext.py ../shared/data/wikitext-2

Trains on `train.txt` where it is there and on `valid.txt` otherwise, scores `test.txt`. The words
are those of the training part; others count as `<unk>`, and every line ends with `<eos>`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import get_args

import numpy as np

from isoflop.models.ngram import HIGHEST_ORDER, train
from isoflop.models.ngram_smoothing import Smoothing


def words(path: Path) -> list[str]:
    lines = path.read_text("utf-8").split("\n")
    return [word for line in lines for word in (*line.split(), "<eos>")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    part = next(p for p in ("train.txt", "valid.txt") if (folder / p).exists())
    training, test = words(folder / part), words(folder / "test.txt")
    numbers = {word: number for number, word in enumerate(dict.fromkeys(["<unk>", *training]))}
    ids = np.array([numbers[word] for word in training])
    asked = np.array([numbers.get(word, 0) for word in test])
    print(
        f"trained on {part}: {ids.size:,} tokens, {len(numbers):,} words; test: {asked.size:,} "
        f"tokens, {np.mean(asked == 0):.1%} <unk>"
    )
    print(f"{'order':>10}  " + "  ".join(f"{n:>8}" for n in range(1, HIGHEST_ORDER + 1)))
    for method in get_args(Smoothing):
        found = []
        for order in range(1, HIGHEST_ORDER + 1):
            model = train(ids, len(numbers), order, smoothing=method)
            found.append(model.perplexity(asked))
        print(f"{method:>10}  " + "  ".join(f"{p:8.1f}" for p in found))
    start = time.process_time()
    model = train(ids, len(numbers))
    trained = time.process_time()
    model.logprobs(asked)
    scored = time.process_time()
    print(
        f"Kneser-Ney of order {model.order}: {ids.size / (trained - start) / 1e6:.1f} M tokens per "
        f"CPU-second trained, {asked.size / (scored - trained) / 1e6:.1f} M scored"
    )


if __name__ == "__main__":
    main()
