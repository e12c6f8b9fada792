"""The stage that settles where each document goes: a split, or out; caps, and the held-out share.

Not for finding duplicates (`duplicate_stages`) nor for writing what is kept (`parts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from isoflop.core.engine import Engine, Output, Piece, Work
from isoflop.data.document_keys import FELL_FOR
from isoflop.data.duplicates import KINDS
from isoflop.data.judge import DocumentIndex, Shard, read_judged
from isoflop.data.recipe import DataRecipe

CHOICES = "choices.npy"
SPLITS = ("train", "held_out")
TRAIN, HELD_OUT, DECIDED_AGAINST, BEYOND_CAP = range(4)
_DUPLICATE = 4  # and the place of its kind in KINDS
OF_KIND = {
    "exact": "seen before (same text)",
    "url": "seen before (same address)",
    "near": "seen before (nearly the same)",
    "line": "mostly seen lines",
}
"""Why duplicates are out, by kind; those of passages are among the decisions."""
REASONS = {BEYOND_CAP: "beyond max_bytes"} | {
    _DUPLICATE + KINDS.index(kind): reason for kind, reason in OF_KIND.items()
}
"""Why a document is out; DECIDED_AGAINST has reasons of its own."""


def choose(engine: Engine, recipe: DataRecipe, shards: Sequence[Shard], fates: Output) -> Output:
    """Settle where each document goes.

    Returns:
        An output whose `choices.npy` holds (documents,) uint8, in the order of the shards; its
        statistics tell how many bytes each source would keep without its cap.
    """
    value = {"shards": [(shard.number, shard.documents, shard.source) for shard in shards]}
    parameters = {
        "caps": [source.max_bytes for source in recipe.sources],
        "held_out_fraction": recipe.held_out_fraction,
    }
    inputs = (fates, *(shard.judged for shard in shards))
    (choices,) = engine.map("choose", choose_all, [Piece("all", value, inputs)], parameters)
    return choices


def choose_all(work: Work) -> dict[str, Any]:
    """The task: caps on what was kept, and the split by each text's hash.

    Memory: some 20 bytes a document.
    """
    shards = work.value["shards"]
    index = DocumentIndex([(number, documents) for number, documents, _ in shards])
    kinds: NDArray[np.int8] = np.load(work.inputs[0] / FELL_FOR)
    choices = np.where(kinds >= 0, kinds + _DUPLICATE, DECIDED_AGAINST).astype(np.uint8)
    sizes = np.empty(index.total, np.int64)
    for begin, end, folder in zip(index.starts, index.starts[1:], work.inputs[1:], strict=False):
        table = read_judged(folder, ["bytes", "draw", "reason"])
        sizes[begin:end] = table["bytes"].to_numpy()
        held_out = table["draw"].to_numpy() < work.parameters["held_out_fraction"] * 2.0**64
        # Passages may have made a document fall that is no duplicate as a whole.
        stays = (kinds[begin:end] == -1) & pc.equal(table["reason"], "").to_numpy()
        choices[begin:end][stays] = np.where(held_out, HELD_OUT, TRAIN)[stays]
    available = []
    for source, cap in enumerate(work.parameters["caps"]):
        own = [number for number, shard in enumerate(shards) if shard[2] == source]
        part = slice(index.starts[own[0]], index.starts[own[-1] + 1]) if own else slice(0)
        kept = (choices[part] == TRAIN) | (choices[part] == HELD_OUT)
        total = np.cumsum(np.where(kept, sizes[part], 0))
        available.append(int(total[-1]) if total.size else 0)
        if cap is not None:
            # The document that reaches the cap is the last one kept.
            choices[part][kept & (total - sizes[part] >= cap)] = BEYOND_CAP
    np.save(work.out / CHOICES, choices)
    return {"available": available}


def choices_of(folder: Path, begin: int, end: int) -> NDArray[np.uint8]:
    """The choices for the documents [begin, end)."""
    found: NDArray[np.uint8] = np.load(folder / CHOICES, mmap_mode="r")[begin:end]
    return found


def reasons_of(choices: NDArray[np.uint8], decided: Sequence[str]) -> list[str]:
    """Why each document is out; "" for those that are kept.

    Args:
        decided: What the decisions said, "" for documents that might stay.
    """
    return [REASONS.get(int(c), reason) for c, reason in zip(choices, decided, strict=True)]
