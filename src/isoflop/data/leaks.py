"""The stage of a build that keeps evaluation items out; not for how they are told
(`decontaminate`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from isoflop.core.artifact import sha256_file
from isoflop.core.engine import Engine, Piece, Work
from isoflop.core.recipe import from_dict, to_dict
from isoflop.data.decontaminate import (
    ContaminationCount,
    EvaluationIndex,
    cut_around,
    find_items,
    read_evaluation_index,
)
from isoflop.data.duplicates_recipe import DecontaminateConfig
from isoflop.data.judge import Shard, final_tables, rewrite

EVALUATION_ITEMS = "evaluation items"


def keep_out(
    engine: Engine, shards: Sequence[Shard], config: DecontaminateConfig, seed: int
) -> list[Shard]:
    """Look for evaluation items in the documents that may stay, and drop or cut.

    It comes before the search for duplicates: of several copies one without an item may stay.

    Returns:
        The shards with decisions anew.
    """
    if not config.tasks:
        return list(shards)
    plain = to_dict(config)
    for task, own in zip(plain["tasks"], config.tasks, strict=True):
        task["path"] = str(own.path.absolute())
    parameters = {
        "decontaminate": plain,
        "sha256": [sha256_file(task.path) for task in config.tasks],
        "seed": seed,
    }
    pieces = [
        Piece(
            f"{shard.source:03d}-{shard.piece:06d}",
            None,
            (shard.annotated, shard.judged),
            bytes=int(shard.annotated.statistics["bytes"]),
        )
        for shard in shards
    ]
    judged = engine.map("leaks", find_leaks, pieces, parameters)
    return [
        Shard(shard.source, shard.piece, shard.annotated, own)
        for shard, own in zip(shards, judged, strict=True)
    ]


def find_leaks(work: Work) -> dict[str, Any]:
    """The task: the decisions on a shard once evaluation items are looked for, and their count."""
    config = from_dict(DecontaminateConfig, work.parameters["decontaminate"], "decontaminate")
    index = _index(config, tuple(work.parameters["sha256"]))
    count = ContaminationCount(index)
    changes: dict[int, str | None] = {}
    annotated, judged = work.inputs
    for rows, table in final_tables(annotated, judged, []):
        texts = table["text"].to_pylist()
        found = find_items(texts, index, config.overlap)
        count.add(found)
        for number in found.documents if config.action != "report" else ():
            cut = config.action == "cut"
            left = cut_around(texts[number], found.spans[number]) if cut else ""
            changes[int(rows[number])] = f"{left}\n" if left else None
            count.dropped += not left
    kept = rewrite(work, judged, changes, EVALUATION_ITEMS, work.parameters["seed"])
    return {"bytes": kept, "leaks": count.state()}


@lru_cache(1)
def _index(config: DecontaminateConfig, sha256: tuple[str, ...]) -> EvaluationIndex:
    """The index, read once by a worker; the hashes say when it is another one."""
    return read_evaluation_index(config)


def contamination(index: EvaluationIndex, found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of `contamination.json` from the counts of all shards."""
    count = ContaminationCount(index)
    for state in found:
        count.merge(state)
    return count.as_json()
