"""A model card in Markdown: what a model is and, by the chain of manifests, what it was made from.

Not for results of evaluations, which the caller adds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from isoflop.core.artifact import MANIFEST, read_manifest, sha256_file
from isoflop.core.errors import ArtifactError
from isoflop.models.accounting import count_parameters
from isoflop.models.config import AnyConfig, DecoderConfig

CARD = "README.md"


def model_card(
    name: str, config: AnyConfig, inputs: Sequence[Path], results: Mapping[str, str]
) -> str:
    """The card of a model.

    Args:
        name: Its title.
        inputs: Artifacts and files it was made from; those that are artifacts are followed to
            what they were made from, as far as they still lie where their manifests say and are
            what they were.
        results: What was measured → the figure with its unit.
    """
    count = count_parameters(config)
    shape = {
        "parameters": f"{count.params_total:,}",
        "vocabulary": f"{config.vocab_size:,}",
        "layers": str(config.n_layers),
        "width": str(config.d_model),
        "context": f"{config.max_seq_len:,} tokens",
    }
    if isinstance(config, DecoderConfig) and config.experts is not None:
        shape["experts"] = f"{config.experts.n_experts}, {config.experts.top_k} for each token"
    lines = [f"# {_plain(name)}", "", "## Shape", "", *_table(shape)]
    if results:
        lines += ["", "## Measured", "", *_table(results)]
    lines += ["", "## Made from", "", *_chain(inputs, 0, set())]
    return "\n".join(lines) + "\n"


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
