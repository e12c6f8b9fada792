"""The stages of a build that settle which documents fall as duplicates, and what is cut out.

Not for how duplicates are told (`duplicates`), which these follow over files in place of arrays:
texts and addresses, then near duplicates, then lines, then passages, each among what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from isoflop.core.artifact import MANIFEST, sha256_file
from isoflop.core.engine import Engine, Output, Piece, Work
from isoflop.core.recipe import from_dict, to_dict
from isoflop.data.annotated import read_tables
from isoflop.data.choose import CHOICES, HELD_OUT, TRAIN
from isoflop.data.document_keys import (
    BY_RANK,
    FELL_FOR,
    KEPT,
    LINES,
    RANK,
    TEXTS,
    URLS,
    document_keys,
    groups,
    keys_of,
    read_facts,
    shard_index,
    shared,
)
from isoflop.data.duplicate_index import DuplicateIndex, open_index, write_index
from isoflop.data.duplicates import NOT_ASKED, Decision, Duplicates, joined_keys, preference
from isoflop.data.duplicates_recipe import DuplicatesConfig
from isoflop.data.exact_duplicates import same_key, same_lines
from isoflop.data.judge import Shard, read_judged
from isoflop.data.minhash import PERMUTATIONS
from isoflop.data.near_stages import SIGNATURES, find_pairs, joined, sign
from isoflop.data.recipe import DataRecipe
from isoflop.data.substring_stages import REPEATED, cut_passages

_KNOWN = "known.npy"


@dataclass(frozen=True)
class Settled:
    """Which documents of the shards fall."""

    shards: list[Shard]
    """Their decisions as they are after passages were cut out or made documents fall."""
    fates: Output
    """`kinds.npy` and `kept.npy`, as `Duplicates` holds them, in the order of the shards."""
    keys: list[Output]
    signatures: list[Output]
    """By shard; none where near duplicates are not looked for."""

    def report(self) -> dict[str, Any]:
        """The content of `duplicates.json`."""
        kinds, kept = (np.load(self.fates.directory / name) for name in (FELL_FOR, KEPT))
        decision, begin, cut = Decision(kinds, kept), 0, {"documents": 0, "characters": 0}
        for shard in self.shards:
            reasons = read_judged(shard.judged.directory, ["reason"])["reason"]
            fell = np.flatnonzero(pc.equal(reasons, REPEATED).to_numpy()) + begin
            decision.drop("substring", fell, np.full(fell.size, -1))
            begin += shard.documents
            for name, number in shard.judged.statistics.get("cut", {}).items():
                cut[name] += number
        found = Duplicates(decision.representatives(), decision.kinds, {})
        return found.report(_Ids(self.shards)) | {"cut": cut}


def drop_duplicates(engine: Engine, recipe: DataRecipe, shards: list[Shard]) -> Settled:
    """Settle which documents of the shards fall as duplicates."""
    config = recipe.duplicates
    keys = document_keys(engine, shards, config, [source.label for source in recipe.sources])
    signed = sign(engine, shards) if config.near else []
    known = _match(engine, shards, keys, signed, config) if config.index else []
    texts = shared(engine, "texts", keys, TEXTS) if config.exact else []
    urls = shared(engine, "urls", keys, URLS) if config.url else []
    lines = shared(engine, "lines", keys, LINES) if config.lines else []
    value = [(shard.number, shard.documents, shard.source) for shard in shards]
    parameters = {
        "prefer": config.prefer,
        "capped": [source.max_bytes is not None for source in recipe.sources],
        "inputs": [len(keys), len(texts), len(urls), len(known)],
    }
    inputs = (*keys, *texts, *urls, *known)
    (fates,) = engine.map("exact", drop_copies, [Piece("all", value, inputs)], parameters)
    if config.near:
        edges, shingled = find_pairs(engine, shards, signed, fates, config.similarity)
        inputs = (fates, edges, *shingled)
        (fates,) = engine.map("near", drop_near, [Piece("all", None, inputs)], config.similarity)
    if config.lines:
        inputs = (fates, *keys, *lines)
        piece = Piece("all", {"shards": value, "keys": len(keys)}, inputs)
        (fates,) = engine.map("copies", drop_seen_lines, [piece])
    if config.substrings != "keep":
        shards = cut_passages(engine, shards, fates, recipe)
    return Settled(shards, fates, keys, signed)


def drop_copies(work: Work) -> dict[str, Any]:
    """The task: rank all documents; those with the same text or address as a better one fall.

    Memory: some 80 bytes a document and one partition of records.
    """
    index, sources = shard_index(work.value)
    n_keys, n_texts, n_urls, n_known = work.parameters["inputs"]
    keys, rest = work.inputs[:n_keys], work.inputs[n_keys:]
    capped = np.array(work.parameters["capped"])[sources]
    visible, ties = read_facts(keys, "visible"), read_facts(keys, "tie")
    rank = preference(visible, sources, ties, work.parameters["prefer"], capped)
    del visible, ties, sources, capped
    kinds = np.where(read_facts(keys, "asked"), -1, NOT_ASKED).astype(np.int8)
    if n_known:
        found = np.concatenate([np.load(f / _KNOWN) for f in rest[n_texts + n_urls :]])
        kinds = np.where(kinds == -1, found, kinds)
    decision = Decision(kinds)
    for kind, folders in (("exact", rest[:n_texts]), ("url", rest[n_texts : n_texts + n_urls])):
        for group, numbers in groups(folders, index, decision.kinds == -1):
            best = same_key(group.astype(np.uint64), rank[numbers])
            decision.drop(kind, numbers, numbers[best])
    by_rank = np.empty_like(rank)
    by_rank[rank] = np.arange(rank.size)
    _save(work.out, rank, by_rank, decision)
    return {}


def drop_near(work: Work) -> dict[str, Any]:
    """The task: of each cluster of near duplicates all but the best fall."""
    fates, edges, *shingled = work.inputs
    rank, by_rank, decision = _load(fates)
    clusters = joined(edges, shingled, work.parameters)
    alive = decision.alive()
    decision.drop("near", alive, by_rank[clusters[rank[alive]]])
    _save(work.out, rank, by_rank, decision)
    return {}


def drop_seen_lines(work: Work) -> dict[str, Any]:
    """The task: documents fall that are mostly lines of better ones.

    Memory: 60 bytes a document, and 50 for each line that a document which may fall (more than
    half of its lines stand elsewhere too) has in common with others.
    """
    index, _ = shard_index(work.value["shards"])
    fates, *rest = work.inputs
    keys, lines = rest[: work.value["keys"]], rest[work.value["keys"] :]
    rank, by_rank, decision = _load(fates)
    telling = read_facts(keys, "lines").astype(np.int64)
    asked = decision.kinds == -1
    common = np.zeros(index.total, np.int64)
    for _, numbers in groups(lines, index, asked):
        np.add.at(common, numbers, 1)
    may_fall = 2 * common > telling
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    n_lines = 0
    for group, numbers in groups(lines, index, asked):
        if not group.size:
            continue
        # Who cannot fall is in the way of others only where it is the best to hold a line.
        order = np.lexsort((rank[numbers], may_fall[numbers], group))
        group, numbers = group[order], numbers[order]
        chosen = may_fall[numbers] | np.append(True, group[1:] != group[:-1])
        chosen &= np.bincount(group, may_fall[numbers])[group] > 0
        found.append((group[chosen] + n_lines, numbers[chosen]))
        n_lines += int(group[-1]) + 1
    if found:
        line, holder = map(np.concatenate, zip(*found, strict=True))
        order = np.argsort(holder, kind="stable")
        holders, sizes = np.unique(holder, return_counts=True)
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        best = same_lines(line[order].astype(np.uint64), bounds, rank[holders], telling[holders])
        decision.drop("line", holders, holders[best])
    _save(work.out, rank, by_rank, decision)
    return {}


def _save(
    out: Path, rank: NDArray[np.int64], by_rank: NDArray[np.int64], decision: Decision
) -> None:
    np.save(out / RANK, rank)
    np.save(out / BY_RANK, by_rank)
    np.save(out / FELL_FOR, decision.kinds)
    np.save(out / KEPT, decision.representatives())


def _load(fates: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], Decision]:
    kinds, kept = np.load(fates / FELL_FOR), np.load(fates / KEPT)
    return np.load(fates / RANK), np.load(fates / BY_RANK, mmap_mode="r"), Decision(kinds, kept)


class _Ids:
    """The ids of documents by their positions, read as they are asked for."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._starts = np.cumsum([0, *(shard.documents for shard in shards)])

    def __call__(self, position: int) -> str:
        shard = int(np.searchsorted(self._starts, position, side="right")) - 1
        row = position - int(self._starts[shard])
        for table in read_tables(self._shards[shard].annotated.directory, ["id", "source"]):
            if row < len(table):
                return f"{table['source'][row]} {table['id'][row]}"
            row -= len(table)
        raise IndexError(position)


# --- the index of earlier documents ----------------------------------------------------------


def _match(
    engine: Engine,
    shards: Sequence[Shard],
    keys: Sequence[Output],
    signed: Sequence[Output],
    config: DuplicatesConfig,
) -> list[Output]:
    """Which documents an index holds, by shard."""
    directory = (config.index or Path()).absolute()
    pieces = [
        Piece(
            f"{shard.source:03d}-{shard.piece:06d}",
            shard.source,
            (own, *signed[n : n + 1]),
            bytes=shard.documents,
        )
        for n, (shard, own) in enumerate(zip(shards, keys, strict=True))
    ]
    parameters = {
        "index": str(directory),
        "sha256": sha256_file(directory / MANIFEST),
        "duplicates": to_dict(replace(config, index=None)),
    }
    return engine.map("known", match_index, pieces, parameters)


def match_index(work: Work) -> dict[str, Any]:
    """The task: what the index says of each document of a shard."""
    config = from_dict(DuplicatesConfig, work.parameters["duplicates"], "duplicates")
    keys = keys_of(work.inputs[0], work.value, _signature(work.inputs[1:]), config)
    index = open_index(Path(work.parameters["index"]))
    np.save(work.out / _KNOWN, index.known(keys, config.similarity))
    return {}


def remember_kept(
    settled: Settled, choices: Output, config: DuplicatesConfig, directory: Path
) -> DuplicateIndex:
    """Write an index of the documents that stay, or add them to the one that stands there.

    Raises:
        ArtifactError: The directory holds something else.
    """
    stay = np.isin(np.load(choices.directory / CHOICES), (TRAIN, HELD_OUT))
    parts, begin = [], 0
    for number, (shard, own) in enumerate(zip(settled.shards, settled.keys, strict=True)):
        folders = [output.directory for output in settled.signatures[number : number + 1]]
        here = np.flatnonzero(stay[begin : begin + shard.documents])
        begin += shard.documents
        own_keys = keys_of(own.directory, shard.source, _signature(folders), config)
        parts.append(own_keys.take(here))
    keys = joined_keys(parts)
    older = open_index(directory) if directory.exists() else None
    return write_index(directory, keys, np.arange(len(keys)), older)


def _signature(folders: Sequence[Path]) -> NDArray[np.uint32]:
    found: NDArray[np.uint32] = (
        np.load(folders[0] / SIGNATURES, mmap_mode="r")
        if folders
        else np.empty((0, PERMUTATIONS), np.uint32)
    )
    return found
