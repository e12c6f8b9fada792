"""`isoflop import`: a directory of transformers becomes a model of ours; not for running it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, OutPath, parse_arguments
from isoflop.core.console import print_result


@dataclass(frozen=True, kw_only=True)
class ImportArguments(Arguments):
    """Read a Hugging Face directory (Llama, Qwen2, Qwen3, Qwen3-MoE, Mistral, Mixtral, GPT, GPT-2,
    BERT or T5; safetensors alone, no code) and write it as a model to train further."""

    source: Positional[Path]
    """The directory: config.json and model.safetensors, one file or many."""
    out: OutPath
    """The model directory to write."""


def run(args: list[str]) -> int:
    """Run `isoflop import HF_DIR -o MODEL`."""
    arguments = parse_arguments(ImportArguments, args, "import")
    from isoflop.models.convert import import_model

    summary = import_model(arguments.source, arguments.out)
    tokenizer = "with its tokenizer" if summary.tokenizer else "without a tokenizer"
    print_result(
        {**vars(summary), "model": str(arguments.out)},
        f"{arguments.out}: {summary.architecture}, {summary.params_total:,} parameters, "
        f"{tokenizer}",
        arguments.json,
    )
    return 0
