"""`isoflop models`: published models that a recipe can name, and what each costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, parse_arguments
from isoflop.core.console import print_result
from isoflop.models.accounting import (
    count_parameters,
    flops_6n,
    flops_per_pair,
    flops_per_token,
    kv_bytes_per_token,
)
from isoflop.models.config import EncoderDecoderConfig
from isoflop.models.memory import memory_bytes
from isoflop.models.presets import PRESETS, Preset, preset

HALF = 2


@dataclass(frozen=True, kw_only=True)
class ModelsArguments(Arguments):
    """List the published models that `[model] preset = "NAME"` takes, or show one of them."""

    name: Positional[str] = ""
    """Show this one alone: its shape, parameters by role, FLOPs and memory."""
    seq_len: int | None = None
    """Tokens per sequence of the FLOPs and activations; the model's context when not given."""


def run(args: list[str]) -> int:
    """Run `isoflop models [NAME]`."""
    arguments = parse_arguments(ModelsArguments, args, "models")
    if arguments.name:
        chosen = preset(arguments.name)
        document = _document(chosen, arguments.seq_len or chosen.config.max_seq_len)
        print_result(document, _page(document), arguments.json)
        return 0
    rows = [_row(each) for each in PRESETS.values()]
    print_result({"models": rows}, _table(rows), arguments.json)
    return 0


def _row(each: Preset) -> dict[str, Any]:
    count = count_parameters(each.config)
    return {
        "name": each.name,
        "architecture": each.architecture,
        "published": each.published,
        "params_total": count.params_total,
        "active": count.active_total if count.inactive else None,
        "source": each.source,
        "note": each.note,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    header = ("name", "form", "published", "parameters", "active")
    cells = [
        (
            row["name"], row["architecture"], row["published"], f"{row['params_total']:,}",
            f"{row['active']:,}" if row["active"] else "",
        )
        for row in rows
    ]  # fmt: skip
    widths = [max(len(line[i]) for line in (header, *cells)) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, *cells)
    )


def _document(chosen: Preset, seq_len: int) -> dict[str, Any]:
    config, count = chosen.config, count_parameters(chosen.config)
    if isinstance(config, EncoderDecoderConfig):
        pair = flops_per_pair(config, seq_len, seq_len)
        exact = pair.training // (2 * seq_len)
    else:
        exact = flops_per_token(config, seq_len).training
    memory = memory_bytes(config, micro_batch_tokens=seq_len, seq_len=seq_len)
    return {
        **_row(chosen),
        "shape": asdict(config),
        "params": {
            **vars(count),
            "params": count.params,
            "params_total": count.params_total,
            "active_total": count.active_total,
            "non_embedding": count.non_embedding,
        },
        "seq_len": seq_len,
        "training_flops_per_token": {"exact": exact, "six_n": flops_6n(config)},
        "kv_bytes_per_token": kv_bytes_per_token(config, HALF),
        "training_memory_bytes": {
            **{part: size for part, size in vars(memory).items() if part != "gaps"},
            "total": memory.total,
        },
    }


def _page(document: dict[str, Any]) -> str:
    shape = {k: v for k, v in document["shape"].items() if v is not None}
    lines = [
        f"{document['name']} ({document['architecture']}), published as {document['published']}: "
        f"{document['source']}",
        *([document["note"]] if document["note"] else []),
        "",
        "shape: " + ", ".join(f"{key} {value}" for key, value in shape.items()),
        "",
        *(f"{key:<20} {value:>18,}" for key, value in document["params"].items()),
        "",
        f"training FLOPs per token at {document['seq_len']:,} tokens: "
        f"{document['training_flops_per_token']['exact']:.4g} "
        f"(6N: {document['training_flops_per_token']['six_n']:.4g})",
        f"cache: {document['kv_bytes_per_token']:,} bytes per token in 16 bits",
        "memory of training one sequence in float32 with AdamW: "
        + ", ".join(
            f"{key} {value / 2**30:.3g} GiB"
            for key, value in document["training_memory_bytes"].items()
        ),
    ]
    return "\n".join(lines)
