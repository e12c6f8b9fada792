"""Everything `isoflop show` says of a directory or file; not how it is printed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.reporting.inventory.ancestry import Damage, Step, ancestry, damages
from isoflop.reporting.inventory.commands import Command, made_by, next_for
from isoflop.reporting.inventory.identify import Thing, identify

MEANINGS = {
    "run": "a training run",
    "ladder": "a ladder: many small runs for a law",
    "mixture-search": "a search for the best mixture of sources",
    "demo": "a demo: data, ladder, law, promise, target, and what the model was taught after",
    "corpus": "a corpus of cleaned documents",
    "annotations": "documents measured for `isoflop data build --annotations`",
    "tokenizer": "a tokenizer",
    "shards": "shards of tokens to train on",
    "model": "a model",
    "reward-model": "a reward model",
    "adapter": "a low-rank adapter of a model",
    "hugging-face-model": "a model of another program, in Hugging Face's form",
    "gguf": "a model as llama.cpp opens it",
    "instruct": "a set of instruction, preference and verifiable rows",
    "evaluation": "the scores of a model on tasks",
    "ngram": "an n-gram model of good text",
    "quality-classifier": "a quality classifier",
    "duplicate-index": "an index of documents that were kept",
    "law": "a law fitted to runs",
    "ledger": "a ledger of promises",
    "recipe": "a recipe",
    "run table": "a table of runs",
    "report": "a page made by Isoflop",
    "folder": "a folder with a law or a ledger in it",
    "metrics": "the log of a training run",
    "documents": "documents, one a line",
    "preference rows": "preference pairs, one a line",
    "instruction rows": "instruction rows, one a line",
    "verifiable rows": "verifiable rows, one a line",
    "text": "plain text",
    "parquet": "a Parquet file",
    "tensors": "tensors in a safetensors file",
    "table": "a table without the columns params, tokens and loss",
    "json": "JSON of no form that Isoflop knows",
    "jsonl": "JSON lines of no form that Isoflop knows",
}
"""Kind → what it is, in words; a kind that is not here is unknown."""


@dataclass(frozen=True)
class Shown:
    """What a directory or file is, where it came from, and what can be done with it."""

    thing: Thing
    meaning: str
    made_from: tuple[Step, ...]
    made_by: tuple[Command, ...]
    next: tuple[Command, ...]
    damages: tuple[Damage, ...] | None
    """None where nothing was checked."""

    def document(self) -> dict[str, Any]:
        """The JSON of `isoflop show --json`."""
        thing, manifest = self.thing, self.thing.manifest
        return {
            "path": str(thing.path),
            "kind": thing.kind,
            "meaning": self.meaning,
            "stage": thing.stage or None,
            "status": thing.status,
            "created": manifest.created if manifest else None,
            "isoflop_version": manifest.isoflop_version if manifest else None,
            "seed": manifest.seed if manifest else None,
            "facts": thing.facts,
            "made_by": self.made_by,
            "made_from": self.made_from,
            "next": self.next,
            "checked": self.damages is not None,
            "damaged": self.damages or (),
        }


def show(path: Path | str, *, check: bool = False) -> Shown:
    """Say what `path` is, where it came from and what can be done with it.

    Args:
        check: Also hash every file that its manifest names.

    Raises:
        ArtifactError: It does not exist, or what says what it is is damaged.
    """
    thing = identify(Path(path))
    return Shown(
        thing=thing,
        meaning=MEANINGS.get(thing.kind, "nothing that Isoflop knows"),
        made_from=ancestry(thing),
        made_by=made_by(thing),
        next=next_for(thing),
        damages=damages(thing) if check else None,
    )
