"""`isoflop tokenizer train`; not for the work itself (`isoflop.data.tokenizer`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, OutPath, dispatch, parse_arguments
from isoflop.core.console import make_progress, print_result


@dataclass(frozen=True, kw_only=True)
class TrainArguments(Arguments):
    """Train a byte-level BPE tokenizer on the training split of a corpus."""

    corpus: Positional[Path]
    """A corpus directory, as `isoflop data build` writes it."""
    vocab_size: int
    """All ids: 256 bytes, the merges, and 3 special tokens."""
    out: OutPath
    """The directory to write: `tokenizer.json` as Hugging Face libraries read it."""


def run(args: list[str]) -> int:
    """Run the command; 0 unless the input is bad."""
    choices = {"train": (_train, "train a byte-level BPE on a corpus")}
    return dispatch("tokenizer", choices, args)


def _train(args: list[str]) -> int:
    arguments = parse_arguments(TrainArguments, args, "tokenizer train")
    from isoflop.data.corpus import inspect
    from isoflop.data.tokenizer import train

    progress = make_progress(arguments.json)
    tokenizer = train(inspect(arguments.corpus), arguments.vocab_size, arguments.out, progress)
    document = {
        "tokenizer": tokenizer.directory,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "special_ids": tokenizer.special_ids,
    }
    text = f"{tokenizer.vocab_size:,} tokens in {tokenizer.directory}"
    print_result(document, text, arguments.json)
    return 0
