"""Perplexity on WikiText-2: n-gram, the classic Transformer and our decoder, side by side.

    python benchmarks/wikitext.py ../shared/data/wikitext-2 --epochs 4
    python benchmarks/wikitext.py --hub  # the full set through `datasets`

Trains on `train.txt` where it is there and on `valid.txt` otherwise, scores `test.txt`. Twice: word
by word (the words of the training part, others count as `<unk>`, every line ends with `<eos>`) and
by byte-level BPE, whose perplexity is per word as well: exp(nats of the whole test / its words).
The two are not comparable with each other where many words are `<unk>`, which is easy to foretell.
The text is dealt in contiguous streams (BPTT); in the test every token has at least half a window
before it.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rustbpe
import torch
import torch.nn.functional as F

from isoflop.data.loader import StreamLoader
from isoflop.data.shards import Split
from isoflop.data.tokenizer import bpe_encoder
from isoflop.data.tokenizer_file import QWEN2_PATTERN
from isoflop.models.accounting import count_parameters
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.models.ngram import train as train_ngram
from isoflop.models.recipe import ModelConfig
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.schedules import learning_rate_factor
from isoflop.training.step import Task, apply_gradient, compute_gradient

SEQ_LEN, ROWS = 64, 16
BPE_IDS = 2048
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Text:
    """A training and a test part in one vocabulary."""

    name: str
    train: Ids
    test: Ids
    vocab_size: int
    test_words: int


def words(text: str) -> list[str]:
    return [word for line in text.split("\n") for word in (*line.split(), "<eos>")]


def by_word(training: str, test: str) -> Text:
    known = words(training)
    numbers = {word: number for number, word in enumerate(dict.fromkeys(["<unk>", *known]))}
    asked = [numbers.get(word, 0) for word in words(test)]
    train = np.array([numbers[word] for word in known])
    return Text("word", train, np.array(asked), len(numbers), len(asked))


def by_bpe(training: str, test: str) -> Text:
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator([training], vocab_size=BPE_IDS, pattern=QWEN2_PATTERN)
    encode = bpe_encoder({bytes(piece): rank for piece, rank in trainer.get_mergeable_ranks()})
    ids = [encode(part).astype(np.int64) for part in (training, test)]
    return Text("bpe", ids[0], ids[1], BPE_IDS, len(words(test)))


def split_of(ids: Ids) -> Split:
    return Split(
        name="train", tokens=ids, document_starts=np.array([0, len(ids)]),
        document_kinds=np.zeros(1, np.uint8), kinds=("en",), n_bytes=0, eos_id=-1,
        byte_lengths=np.zeros(1, np.int32),
    )  # fmt: skip


def trained(text: Text, shape: ModelConfig, epochs: float, rate: float) -> Decoder:
    model = Decoder(shape.decoder_config(text.vocab_size, SEQ_LEN))
    initialise(model, seed=0)
    loader = StreamLoader(split_of(text.train), SEQ_LEN, ROWS)
    steps = round(epochs * loader.n_windows / ROWS)

    def batches(step: int) -> list[TokenBatch]:
        windows = loader.batch(step * ROWS, ROWS)
        ids, labels, documents = (
            torch.from_numpy(np.ascontiguousarray(part))
            for part in (windows.ids_BT, windows.labels_BT, windows.document_BT)
        )
        return [TokenBatch(ids, labels, documents, ids.numel())]

    task = Task[Decoder, TokenBatch](batches, next_token_loss, lambda m: {}, lambda m: [])
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=rate))
    for step in range(steps):
        compute_gradient(model, task, step, clip_norm=1.0)
        factor = learning_rate_factor(
            step + 1, total_tokens=steps + 1, warmup_tokens=max(1, steps // 20), schedule="cosine",
            decay_fraction=1.0, final_fraction=0.0,
        )  # fmt: skip
        apply_gradient(optimizer, rate * factor)
    return model


@torch.no_grad()
def nats(model: Decoder, ids: Ids) -> float:
    """Of all tokens but the first, each read with at least half a window before it."""
    total, half = 0.0, SEQ_LEN // 2
    tokens = torch.from_numpy(ids)
    for start in range(0, len(ids) - 1, half):
        window = tokens[start : start + SEQ_LEN + 1]
        new = 0 if start == 0 else half
        if len(window) - 1 <= new:
            break
        logits = model(window[None, :-1])[0, new:]
        total += F.cross_entropy(logits, window[new + 1 :], reduction="sum").item()
    return total


def parts(folder: Path | None) -> tuple[str, str, str]:
    """(name of the training part, its text, the test's text)."""
    if folder is None:
        import datasets

        found = datasets.load_dataset("Salesforce/wikitext", "wikitext-2-v1")
        texts = ["\n".join(row.rstrip("\n") for row in found[part]["text"])
                 for part in ("train", "test")]  # fmt: skip
        return ("train", texts[0], texts[1])
    name = next(n for n in ("train", "valid") if (folder / f"{n}.txt").exists())
    return (name, (folder / f"{name}.txt").read_text("utf-8"),
            (folder / "test.txt").read_text("utf-8"))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--hub", action="store_true")
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--width", type=int, default=64)
    arguments = parser.parse_args()
    name, training, test = parts(None if arguments.hub else arguments.folder)
    shapes = {
        "sinusoidal post-norm Transformer": ModelConfig(
            "gpt2", d_model=arguments.width, n_layers=2, positions="sinusoidal",
            activation="relu", post_norm=True,
        ),
        "our decoder (qwen3 form)": ModelConfig("qwen3", d_model=arguments.width, n_layers=2),
    }  # fmt: skip
    print(f"trained on the {name} part, {arguments.epochs:g} epochs; perplexity per word")
    for text in (by_word(training, test), by_bpe(training, test)):
        print(f"{text.name}: {text.train.size:,} tokens, {text.vocab_size:,} ids", flush=True)
        ngram = train_ngram(text.train, text.vocab_size, 5)
        found = -float(ngram.logprobs(text.test).sum())
        print(f"  {'Kneser-Ney, order 5':<34}{math.exp(found / text.test_words):10.1f}", flush=True)
        for label, shape in shapes.items():
            began = time.process_time()
            model = trained(text, shape, arguments.epochs, rate=3e-3)
            found = nats(model, text.test)
            params = count_parameters(model.config).params_total
            print(
                f"  {label:<34}{math.exp(found / text.test_words):10.1f}  {params:>9,} parameters "
                f"{time.process_time() - began:6.0f} CPU-seconds",
                flush=True,
            )


if __name__ == "__main__":
    main()
