"""Speed of the model filters on one core: the n-gram model's perplexity and the classifier.

    python benchmarks/data_filters.py [DOCUMENTS.jsonl] [--megabytes 6] [--chinese] [--vocab-size N]

Each line of DOCUMENTS holds `{"text": …}` or a string; without it the texts are prose of this
Python installation, or made up with `--chinese`. The models are trained on every second
document (the classifier against documents with their words shuffled) and timed on the others, one
document at a time as a build scores them. Tokenising is part of the perplexity's time and is given
alone too.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

from peers.texts import megabytes_per_cpu_second, texts_of

from isoflop.data import perplexity, quality_classifier, tokenizer
from isoflop.data.corpus import build
from isoflop.data.hashed_ngrams import hashed_ngrams
from isoflop.data.labelled import Example
from isoflop.data.recipe import DataRecipe, SourceConfig


def shuffled(text: str, chinese: bool) -> str:
    words = list(text) if chinese else text.split(" ")
    random.Random(0).shuffle(words)
    return ("" if chinese else " ").join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("documents", type=Path, nargs="?")
    parser.add_argument("--megabytes", type=float, default=6.0)
    parser.add_argument("--chinese", action="store_true")
    parser.add_argument("--vocab-size", type=int, default=8192)
    arguments = parser.parse_args()
    texts = texts_of(arguments.documents, arguments.chinese, arguments.megabytes)
    known, asked = texts[::2], texts[1::2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = folder / "known.jsonl"
        rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in known))
        recipe = DataRecipe((SourceConfig("jsonl", path=rows),), held_out_fraction=0.1)
        corpus = build(recipe, folder / "corpus")
        words = tokenizer.train(corpus, arguments.vocab_size, folder / "tokenizer")
        model = perplexity.train(corpus, folder / "tokenizer", folder / "ngram")
        examples = [Example(text, True) for text in known]
        examples += [Example(shuffled(text, arguments.chinese), False) for text in known]
        classifier = quality_classifier.train(examples, folder / "classifier")
        score = perplexity.Scorer(folder / "ngram")
        judge = quality_classifier.load(folder / "classifier")
        steps: dict[str, Callable[[str], object]] = {
            "tokens alone": words.encode,
            "perplexity": lambda text: score(text, "und"),
            "features alone": lambda text: hashed_ngrams(text, 20),
            "classifier": judge,
        }
        print(f"{len(asked):,} documents, {sum(len(t.encode()) for t in asked) / 1e6:.1f} MB")
        print(f"n-grams: {model.n_grams}; classifier AUC {classifier.held_out.auc:.4f}")
        for step, work in steps.items():
            print(f"{step:>14}: {megabytes_per_cpu_second(work, asked):6.2f} MB per CPU-second")


if __name__ == "__main__":
    main()
