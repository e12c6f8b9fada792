"""`isoflop export`: a model as another tool opens it; not for training or serving it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, OutPath, parse_arguments
from isoflop.core.console import print_result


@dataclass(frozen=True, kw_only=True)
class ExportArguments(Arguments):
    """Write a model in the form of another tool."""

    model: Positional[Path]
    """A model directory."""
    out: OutPath
    """The directory (hf) or file (gguf) to write."""
    to: Literal["hf", "gguf"] = "hf"
    """hf: a directory that transformers and the tools that read its directories open; gguf: a file
    that llama.cpp opens."""
    type: Literal["f32", "f16", "q8_0", "q4_0"] = "f16"
    """Of a GGUF file: how its matrices are stored."""


def run(args: list[str]) -> int:
    """Run `isoflop export MODEL --to hf|gguf -o PATH`."""
    arguments = parse_arguments(ExportArguments, args, "export")
    if arguments.to == "gguf":
        return _gguf(arguments)
    from isoflop.models.convert import export_model

    summary = export_model(arguments.model, arguments.out)
    print_result(
        {**vars(summary), "path": str(arguments.out)},
        f"{arguments.out}: {summary.architecture}, {summary.params_total:,} parameters",
        arguments.json,
    )
    return 0


def _gguf(arguments: ExportArguments) -> int:
    from isoflop.compression.gguf import export_gguf

    written = export_gguf(arguments.model, arguments.out, arguments.type)
    print_result(
        {**vars(written), "path": str(arguments.out)},
        f"{arguments.out}: {written.architecture}, {written.tensors} tensors, "
        f"{written.bytes:,} bytes",
        arguments.json,
    )
    return 0
