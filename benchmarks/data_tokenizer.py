"""Training and encoding of tokenizers beside the `tokenizers` library, in CPU-seconds.

    python benchmarks/data_tokenizer.py CORPUS [--vocab-size 8192] [--megabytes 16]

CORPUS is what `isoflop data build` writes. Both learn a byte-level BPE with the same split
pattern from the same texts, then encode the same texts with our merges, one text at a time. The
ids are compared text by text. Contestants take turns; each figure is the least of the rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rustbpe
import tokenizers

from isoflop.data.corpus import Corpus, inspect
from isoflop.data.tokenizer import load, pre_tokenizer, sample, write_tokenizer
from isoflop.data.tokenizer_file import QWEN2_PATTERN, SPECIAL_TOKENS, bpe_json, printable


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def ours(texts: list[str], n_ordinary: int, out: Path) -> None:
    """What `isoflop tokenizer train` does once it has the texts, its file included."""
    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(texts), vocab_size=n_ordinary, pattern=QWEN2_PATTERN)
    ids = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    special = {name: n_ordinary + place for place, name in enumerate(SPECIAL_TOKENS)}
    write_tokenizer(out, bpe_json(ids, special), {}, [])


def theirs(texts: list[str], n_ordinary: int, out: Path) -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=n_ordinary,
        show_progress=False,
        initial_alphabet=[printable(bytes([byte])) for byte in range(256)],
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(out))


def texts_of(corpus: Corpus, max_bytes: int) -> list[str]:
    return [row["text"] for row in sample(corpus, "train", max_bytes)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--megabytes", type=float, default=16.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    texts = texts_of(inspect(arguments.corpus), int(arguments.megabytes * 1e6))
    size = sum(len(text.encode()) for text in texts) / 1e6
    n_ordinary = arguments.vocab_size - len(SPECIAL_TOKENS)
    times: dict[str, list[float]] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for _ in range(arguments.rounds):
            for label, train in (("train isoflop", ours), ("train tokenizers", theirs)):
                out = folder / label.split()[-1]
                seconds = cpu_seconds(lambda train=train, out=out: train(texts, n_ordinary, out))
                times.setdefault(label, []).append(seconds)
        mine = load(folder / "isoflop")
        peer = tokenizers.Tokenizer.from_file(str(folder / "isoflop" / "tokenizer.json"))
        peer.encode_special_tokens = True
        for _ in range(arguments.rounds):
            seconds = cpu_seconds(lambda: [mine.encode_batch([text]) for text in texts])
            times.setdefault("encode isoflop", []).append(seconds)
            seconds = cpu_seconds(
                lambda: [peer.encode(text, add_special_tokens=False) for text in texts]
            )
            times.setdefault("encode tokenizers", []).append(seconds)
        different = sum(
            not np.array_equal(
                mine.encode_batch([text])[0], peer.encode(text, add_special_tokens=False).ids
            )
            for text in texts
        )
    speed = {label: size / min(seconds) for label, seconds in times.items()}
    print(f"{len(texts):,} texts, {size:.1f} MB, vocabulary of {arguments.vocab_size:,}")
    for verb in ("train", "encode"):
        us, them = speed[f"{verb} isoflop"], speed[f"{verb} tokenizers"]
        print(
            f"{verb:>7}: isoflop {us:6.2f}, tokenizers {them:6.2f} MB per CPU-second: "
            f"{us / them:.2f} x"
        )
    print(f"texts whose ids differ: {different}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"megabytes_per_cpu_second": speed}))


if __name__ == "__main__":
    main()
