"""Finds items of evaluation sets in documents by shared n-grams, and takes them out.

Not for duplicates within the corpus. An n-gram is 13 tokens in a row, a token a word or an
ideograph, as in Brown et al. 2020 (GPT-3), appendix C; but an item counts as contaminated only
where one document holds a good share of the n-grams of one of its texts, and n-grams that many
items of a task share (its instructions) do not count, so that a template does not betray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isoflop.data.duplicates_recipe import DecontaminateConfig
from isoflop.data.evaluation_sets import Item, read_items
from isoflop.data.shingles import Block, token_blocks
from isoflop.data.substrings import merged

# Texts of fewer tokens are too common to tell a leak from chance; GPT-3's lower bound too.
_MIN_TOKENS = 8
# An n-gram in more items of a task than this belongs to its template.
_COMMON = 10
# Around a match so much goes too; what is left in shorter pieces goes; and a document cut into
# more pieces goes whole (Brown et al. 2020, appendix C).
_MARGIN_CHARACTERS = 200
_MIN_PIECE_CHARACTERS = 200
_MAX_PIECES = 10
_FILTER_BITS = 22


@dataclass(frozen=True)
class EvaluationIndex:
    """The n-grams of all items. A part is one text of an item, such as its question."""

    tasks: tuple[str, ...]
    item_tasks: NDArray[np.int64]
    """(I,) task of each item."""
    part_items: NDArray[np.int64]
    """(P,) item of each part."""
    part_sizes: NDArray[np.int64]
    """(P,) how many different n-grams of a part count."""
    lengths: tuple[int, ...]
    """Tokens of the n-grams there are; all but the greatest are of shorter parts, taken whole."""
    grams: NDArray[np.uint64]
    """(G,) n-grams of all parts, sorted, one entry for every part."""
    gram_parts: NDArray[np.int64]
    """(G,) part of each entry."""
    filter: NDArray[np.bool_]
    """(2^22,) whether an n-gram with these upper bits exists: most look-ups end here."""
    undecided: NDArray[np.int64]
    """By task, items that are too short or all template."""


@dataclass(frozen=True)
class Contamination:
    """What a batch of documents holds of evaluation sets."""

    items: NDArray[np.int64]
    """The contaminated items, ascending."""
    documents: Mapping[int, frozenset[int]]
    """By number of the document, the tasks of which it holds items."""
    spans: Mapping[int, NDArray[np.int64]]
    """By number of the document, (K, 2) begin and end of the matches in it, in characters."""


def read_evaluation_index(config: DecontaminateConfig) -> EvaluationIndex:
    """Read the evaluation sets of a recipe.

    Raises:
        DataError: One cannot be read or is empty.
    """
    return evaluation_index({t.label: read_items(t) for t in config.tasks}, config.ngram)


def evaluation_index(tasks: Mapping[str, Sequence[Item]], ngram: int) -> EvaluationIndex:
    """The n-grams of items by task."""
    items = [(task, item) for task, own in enumerate(tasks.values()) for item in own]
    item_tasks = np.array([task for task, _ in items], np.int64)
    parts: list[str] = []
    part_items: list[int] = []
    for number, (_, item) in enumerate(items):
        long_enough = [text for text in item if _n_tokens(text) >= _MIN_TOKENS]
        # Where every text is short, a question and its choices, they are looked for together.
        texts = long_enough or [joined for joined in ["\n".join(item)] if _n_tokens(joined) >= 8]
        parts += texts
        part_items += [number] * len(texts)
    of_part = np.array(part_items, np.int64)
    grams, gram_parts, lengths = _part_grams(parts, ngram)
    grams, gram_parts = _telling(grams, gram_parts, of_part, item_tasks, len(tasks))
    sizes = np.bincount(gram_parts, minlength=len(parts))
    decided = np.zeros(len(items), np.bool_)
    decided[of_part[sizes > 0]] = True
    known = np.zeros(1 << _FILTER_BITS, np.bool_)
    known[grams >> np.uint64(64 - _FILTER_BITS)] = True
    undecided = np.bincount(item_tasks[~decided], minlength=len(tasks))
    return EvaluationIndex(
        tuple(tasks), item_tasks, of_part, sizes, lengths, grams, gram_parts, known, undecided
    )


def find_items(texts: Sequence[str], index: EvaluationIndex, overlap: float) -> Contamination:
    """The items that documents hold; a pure function of each document.

    An item is contaminated where one document holds at least `overlap` of the different n-grams
    of one of its parts.
    """
    matches = [
        (block.first + which, entries, begins, lasts)
        for block in token_blocks(texts)
        for which, entries, begins, lasts in _matches(block, index)
    ]
    if not matches:
        return Contamination(np.empty(0, np.int64), {}, {})
    documents, entries, begins, lasts = map(np.concatenate, zip(*matches, strict=True))
    # An entry is one n-gram of one part; in a document it counts once.
    pairs = np.unique(np.stack([documents, entries], axis=1), axis=0)
    n_parts = index.part_sizes.size
    owners, counts = np.unique(
        pairs[:, 0] * n_parts + index.gram_parts[pairs[:, 1]], return_counts=True
    )
    held = owners[counts >= overlap * index.part_sizes[owners % n_parts]]
    items = index.part_items[held % n_parts]
    by_document: dict[int, set[int]] = {}
    for document, task in zip(
        (held // n_parts).tolist(), index.item_tasks[items].tolist(), strict=True
    ):
        by_document.setdefault(document, set()).add(task)
    matched = np.isin(documents * n_parts + index.gram_parts[entries], held)
    spans: dict[int, NDArray[np.int64]] = {}
    for document in by_document:
        here = matched & (documents == document)
        found = np.stack([begins[here], lasts[here] + 1], axis=1)
        spans[document] = _in_characters(merged(found), texts[document])
    frozen = {document: frozenset(own) for document, own in by_document.items()}
    return Contamination(np.unique(items), frozen, spans)


def cut_around(text: str, spans: NDArray[np.int64]) -> str:
    """The text without the matches and 200 characters on either side.

    Pieces of fewer than 200 characters go, the others stand apart by a blank line; "" when none
    is left, or more than ten.
    """
    wide = spans + np.array([-_MARGIN_CHARACTERS, _MARGIN_CHARACTERS])
    wide = merged(np.clip(wide, 0, len(text)))
    edges = [0, *wide.ravel().tolist(), len(text)]
    pieces = [text[begin:end].strip() for begin, end in zip(edges[::2], edges[1::2], strict=True)]
    pieces = [piece for piece in pieces if len(piece) >= _MIN_PIECE_CHARACTERS]
    return "\n\n".join(pieces) if len(pieces) <= _MAX_PIECES else ""


class ContaminationCount:
    """Adds up what batches of documents hold, for `contamination.json`."""

    def __init__(self, index: EvaluationIndex) -> None:
        self._index = index
        self._items = np.zeros(index.item_tasks.size, np.bool_)
        self._documents = [0] * len(index.tasks)
        self.dropped = 0
        """Documents dropped or cut to nothing."""

    def add(self, found: Contamination) -> None:
        """Count a batch."""
        self._items[found.items] = True
        for tasks in found.documents.values():
            for task in tasks:
                self._documents[task] += 1

    def state(self) -> dict[str, Any]:
        """All counts as plain JSON values, for `merge`."""
        items = np.flatnonzero(self._items).tolist()
        return {"items": items, "documents": self._documents, "dropped": self.dropped}

    def merge(self, state: Mapping[str, Any]) -> None:
        """Add the counts of other documents."""
        self._items[state["items"]] = True
        self._documents = [a + b for a, b in zip(self._documents, state["documents"], strict=True)]
        self.dropped += state["dropped"]

    def as_json(self) -> dict[str, Any]:
        """By task: items, contaminated and undecided (too short) ones, documents that hold one."""
        tasks = self._index.item_tasks
        n_items = np.bincount(tasks, minlength=len(self._index.tasks))
        n_found = np.bincount(tasks[self._items], minlength=len(self._index.tasks))
        return {
            "tasks": {
                name: {
                    "items": int(n_items[task]),
                    "contaminated": int(n_found[task]),
                    "undecided": int(self._index.undecided[task]),
                    "documents": self._documents[task],
                }
                for task, name in enumerate(self._index.tasks)
            },
            "dropped": self.dropped,
        }


def _n_tokens(text: str) -> int:
    return sum(block.begins.size for block in token_blocks([text]))


def _part_grams(
    parts: list[str], ngram: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64], tuple[int, ...]]:
    """Different n-grams of each part, the parts they are of, and the lengths there are."""
    found: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
    owners: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    lengths: set[int] = set()
    for number, text in enumerate(parts):
        length = min(ngram, _n_tokens(text))
        lengths.add(length)
        hashes = np.unique(np.concatenate([b.runs(length)[0] for b in token_blocks([text])]))
        found.append(hashes)
        owners.append(np.full(hashes.size, number))
    grams, gram_parts = np.concatenate(found), np.concatenate(owners)
    order = np.argsort(grams, kind="stable")
    return grams[order], gram_parts[order], tuple(sorted(lengths))


def _telling(
    grams: NDArray[np.uint64],
    gram_parts: NDArray[np.int64],
    part_items: NDArray[np.int64],
    item_tasks: NDArray[np.int64],
    n_tasks: int,
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Without the n-grams that more than ten items of a task share."""
    if not grams.size:
        return grams, gram_parts
    number = np.cumsum(np.append(True, grams[1:] != grams[:-1])) - 1
    items = part_items[gram_parts]
    # Once for every item, however many of its parts hold the n-gram.
    once = np.unique(np.stack([number, items], axis=1), axis=0)
    by_task = once[:, 0] * n_tasks + item_tasks[once[:, 1]]
    shared, counts = np.unique(by_task, return_counts=True)
    common = shared[counts > _COMMON]
    telling = ~np.isin(number * n_tasks + item_tasks[items], common)
    return grams[telling], gram_parts[telling]


def _matches(
    block: Block, index: EvaluationIndex
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Text in the block, entry of the index, begin of first and of last token of each match."""
    found = []
    for length in index.lengths:
        hashes, starts = block.runs(length)
        maybe = np.flatnonzero(index.filter[hashes >> np.uint64(64 - _FILTER_BITS)])
        hashes, starts = hashes[maybe], starts[maybe]
        low = np.searchsorted(index.grams, hashes, side="left")
        counts = np.searchsorted(index.grams, hashes, side="right") - low
        starts = np.repeat(starts, counts)
        # The entries of an n-gram follow one another: one match for each.
        within = np.arange(starts.size) - np.repeat(np.cumsum(counts) - counts, counts)
        entries = np.repeat(low, counts) + within
        which = np.searchsorted(block.bounds, starts, side="right") - 1
        found.append((which, entries, block.begins[starts], block.begins[starts + length - 1]))
    return found


def _in_characters(spans: NDArray[np.int64], text: str) -> NDArray[np.int64]:
    """Spans in UTF-16 units as spans in characters."""
    units = np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16)
    if units.size == len(text):
        return spans
    # Pairs of surrogates that lie before each unit.
    high = (units[:-1] >> 10 == 0x36) & (units[1:] >> 10 == 0x37)
    pairs = np.concatenate([[0, 0], np.cumsum(high)])
    characters: NDArray[np.int64] = spans - pairs[spans]
    return characters
