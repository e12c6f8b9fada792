"""A model card in Markdown: what a model is and, by the chain of manifests, what it was made from.

Every model directory has one: trained, fine-tuned, imported or compressed, of any architecture. Not
for results of evaluations, which the caller adds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from isoflop.core.artifact import MANIFEST, read_manifest, sha256_file
from isoflop.core.errors import ArtifactError
from isoflop.models.accounting import count_parameters
from isoflop.models.config import AnyConfig, DecoderConfig, EncoderConfig, EncoderDecoderConfig

CARD = "README.md"
_FIGURES = {
    "tokens": ("tokens trained on", ",.0f"),
    "loss": ("held-out loss, nats per token", ".4f"),
    "bits_per_byte": ("held-out bits per byte", ".4f"),
    "masked_accuracy": ("hidden tokens foretold", ".1%"),
    "pair_accuracy": ("sentence pairs told", ".1%"),
    "token_accuracy": ("target tokens foretold", ".1%"),
    "accuracy": ("held-out pairs told", ".1%"),
    "exact_match": ("held-out questions answered", ".1%"),
}
"""Figures of a run's evaluations, in words, and how they are written."""


def model_card(
    name: str,
    config: AnyConfig,
    inputs: Sequence[Path],
    results: Mapping[str, str],
    seed: int | None = None,
) -> str:
    """The card of a model.

    Args:
        name: Its title.
        inputs: Artifacts and files it was made from; those that are artifacts are followed to
            what they were made from, as far as they still lie where their manifests say and are
            what they were.
        results: What was measured → the figure with its unit.
        seed: Of its initial weights, where it has any.
    """
    count = count_parameters(config)
    shape = {
        "form": _form(config),
        "parameters": f"{count.params_total:,}",
        "vocabulary": f"{config.vocab_size:,}",
        "layers": str(config.n_layers),
        "width": str(config.d_model),
        "context": f"{config.max_seq_len:,} tokens",
    }
    if isinstance(config, DecoderConfig) and config.experts is not None:
        shape["experts"] = f"{config.experts.n_experts}, {config.experts.top_k} for each token"
    if seed is not None:
        shape["seed"] = str(seed)
    lines = [f"# {_plain(name)}", "", "## Shape", "", *_table(shape)]
    if results:
        lines += ["", "## Measured", "", *_table(results)]
    made = list(_chain(inputs, 0, set()))
    lines += ["", "## Made from", "", *(made or ["Nothing that was written down."])]
    return "\n".join(lines) + "\n"


def name_of(directory: Path) -> str:
    """The directory's name, and that of its run where it is the `model` of one."""
    resolved = directory.resolve()
    return resolved.parent.name if resolved.name == "model" else resolved.name


def last_evaluation(directory: Path) -> dict[str, str]:
    """What the run around a model directory measured last, in words; nothing where there is no run
    or its log is damaged."""
    try:
        last = (directory.parent / "evals.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        row = json.loads(last)
    except (OSError, ValueError, IndexError):
        return {}
    known = {key: row[key] for key in _FIGURES if isinstance(row.get(key), int | float)}
    return {_FIGURES[key][0]: format(value, _FIGURES[key][1]) for key, value in known.items()}


def _form(config: AnyConfig) -> str:
    if isinstance(config, EncoderConfig):
        return "encoder (BERT)"
    if isinstance(config, EncoderDecoderConfig):
        return "encoder and decoder (T5)"
    inner = "mixture of experts" if config.experts is not None else config.activation
    return f"decoder: {config.norm} norm, {config.positions} positions, {inner}"


def _table(rows: Mapping[str, str]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for key, value in rows.items():
        yield f"| {_plain(key)} | {_plain(value)} |"


def _chain(inputs: Sequence[Path], depth: int, seen: set[str]) -> Iterator[str]:
    indent = "  " * depth
    for path in inputs:
        if not (path / MANIFEST).exists():
            found = f"`{sha256_file(path)[:12]}`" if path.is_file() else "no longer there"
            yield f"{indent}- file {_plain(path.name)}, {found}"
            continue
        own = sha256_file(path / MANIFEST)
        try:
            manifest = read_manifest(path)
        except ArtifactError:  # of another version; that it was used is known all the same
            yield f"{indent}- {_plain(path.name)}, `{own[:12]}`, not followed"
            continue
        again = " (above)" if own in seen else ""
        yield (
            f"{indent}- {_plain(manifest.kind)} {_plain(path.name)}, `{own[:12]}`, finished "
            f"{manifest.created} by Isoflop {manifest.isoflop_version}{again}"
        )
        if again:
            continue
        seen.add(own)
        kept = []
        for each in manifest.inputs:
            beneath = Path(each["path"])
            whole = beneath / MANIFEST if (beneath / MANIFEST).exists() else beneath
            if whole.is_file() and sha256_file(whole) == each["sha256"]:
                kept.append(beneath)
            else:
                yield f"{indent}  - {_plain(beneath.name)}, `{each['sha256'][:12]}`, not followed"
        yield from _chain(kept, depth + 1, seen)


def _plain(words: str) -> str:
    """Without what Markdown would read as its own."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(words.split()))
