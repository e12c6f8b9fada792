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
    """The directory to write."""
    to: Literal["hf"] = "hf"
    """`hf`: what transformers and the tools that read its directories open."""


def run(args: list[str]) -> int:
    """Run `isoflop export MODEL --to hf -o PATH`."""
    arguments = parse_arguments(ExportArguments, args, "export")
    from isoflop.models.convert import export_model

    summary = export_model(arguments.model, arguments.out)
    print_result(
        {**vars(summary), "path": str(arguments.out)},
        f"{arguments.out}: {summary.architecture}, {summary.params_total:,} parameters",
        arguments.json,
    )
    return 0
