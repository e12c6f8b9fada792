"""Long passages that stand in several documents, or twice in one; not for whole documents.

What a suffix array finds (Lee et al. 2021, "Deduplicating training data makes language models
better"), by hashes, so that the work can be spread: each document gives a few fingerprints, such
that a passage of N characters always gives one (winnowing: Schleimer, Wilkerson and Aiken 2003);
where a fingerprint occurs twice, all windows of N characters around it are hashed; of equal
windows the first stays, and the characters of the others are repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from isoflop.data.rolling_hash import window_hashes

# Characters of a text hashed at once; parts overlap by a passage less one character.
_PART_CHARACTERS = 1 << 17
_BATCH_BYTES = 256_000_000
# A window is a hash, a document, a place, and its place in two orderings.
_WINDOW_BYTES = 40

Texts = Callable[[], Iterator[tuple[int, str]]]
"""Gives all documents with their numbers, as often as it is called."""


def fingerprints(text: str, length: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of some passages of about half of `length`, and the characters they begin with.

    Of every `length` characters in a row at least one such passage is chosen, by its hash alone:
    the same one wherever they stand.

    Returns:
        (F,) hashes, (F,) places; about one for every quarter of `length`.
    """
    reach = length // 2
    width = length - reach + 1
    hashes: list[NDArray[np.uint64]] = []
    places: list[NDArray[np.int64]] = []
    for offset, part in _parts(text, length):
        found = window_hashes(part, width)
        chosen = _local_minima(found, reach)
        hashes.append(found[chosen])
        places.append(chosen + offset)
    return _hashes(hashes), _places(places)


def windows(
    text: str, length: int, places: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of all windows of `length` characters that hold one of the fingerprints at `places`.

    Returns:
        (W,) hashes, (W,) the characters they begin with, ascending.
    """
    slack = length // 2 - 1  # how much longer a window is than a fingerprint
    wanted = np.zeros(max(len(text) - length + 1, 0) + 1, np.int64)
    np.add.at(wanted, np.clip(places - slack, 0, wanted.size - 1), 1)
    np.add.at(wanted, np.clip(places + 1, 0, wanted.size - 1), -1)
    near = np.cumsum(wanted)[:-1] > 0
    hashes: list[NDArray[np.uint64]] = []
    begins: list[NDArray[np.int64]] = []
    for offset, part in _parts(text, length):
        chosen = np.flatnonzero(near[offset : offset + part.size - length + 1])
        if chosen.size:
            hashes.append(window_hashes(part, length)[chosen])
            begins.append(chosen + offset)
    return _hashes(hashes), _places(begins)


def occur_again(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(F,) whether each hash occurs more than once."""
    order = np.argsort(hashes, kind="stable")
    same = hashes[order[1:]] == hashes[order[:-1]]
    again = np.zeros(hashes.size, np.bool_)
    again[order[1:]] = same
    again[order[:-1]] |= same
    return again


def later_windows(
    hashes: NDArray[np.uint64],
    documents: NDArray[np.int64],
    begins: NDArray[np.int64],
    length: int,
) -> NDArray[np.bool_]:
    """(W,) whether the same window stands before, in another document or in the same one.

    In one document a window repeats another one only where the two do not overlap. The order is
    that of the arrays: documents by rank, best first, and each from its beginning on.
    """
    order = np.argsort(hashes, kind="stable")
    new = np.ones(order.size, np.bool_)
    new[1:] = hashes[order[1:]] != hashes[order[:-1]]
    first = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    elsewhere = documents[order] != documents[first]
    apart = begins[order] >= begins[first] + length
    later = np.empty(order.size, np.bool_)
    later[order] = elsewhere | apart
    return later


def repeated_passages(
    texts: Texts, rank: NDArray[np.int64], length: int, batch_bytes: int = _BATCH_BYTES
) -> dict[int, NDArray[np.int64]]:
    """The repeated passages of documents, all but the first occurrence of each.

    Args:
        texts: Read twice or more.
        rank: By document number; what is better kept has a smaller one and keeps its passages.
        length: Characters from which a passage counts.
        batch_bytes: Windows are compared in as many rounds, each over all documents with
            repeats, as keep the memory of a round within this.

    Returns:
        By document number, (K, 2) begin and end of its repeated passages, in order and apart.
        Memory: about 100 bytes for every `length` characters of text, and `batch_bytes`.
    """
    documents, found, places = _all_fingerprints(texts, length)
    again = occur_again(found)
    documents, places = documents[again], places[again]
    bounds = {
        int(documents[begin]): slice(begin, end)
        for begin, end in pairwise(np.flatnonzero(np.diff(documents, prepend=-1, append=-1)))
    }
    n_windows = places.size * (length // 2)
    rounds = 1 + n_windows * _WINDOW_BYTES // batch_bytes
    spans: dict[int, NDArray[np.int64]] = {}
    for turn in range(rounds):
        batch: list[tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]] = []
        for number, text in texts():
            if number not in bounds:
                continue
            hashes, begins = windows(text, length, places[bounds[number]])
            mine = hashes % np.uint64(rounds) == turn
            hashes, begins = hashes[mine], begins[mine]
            if begins.size:
                batch.append((hashes, np.full(begins.size, number), begins))
        if not batch:
            continue
        batch.sort(key=lambda part: int(rank[part[1][0]]))
        hashes, numbers, begins = map(np.concatenate, zip(*batch, strict=True))
        later = later_windows(hashes, numbers, begins, length)
        numbers, begins = numbers[later], begins[later]
        edges = np.flatnonzero(np.diff(numbers, prepend=-1, append=-1))
        for first, last in pairwise(edges):
            number = int(numbers[first])
            new = np.stack([begins[first:last], begins[first:last] + length], axis=1)
            spans[number] = merged(np.concatenate([spans.get(number, new[:0]), new]))
    return spans


def merged(spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """(K, 2) spans of any order as the fewest that cover the same, in order and apart."""
    if not len(spans):
        return spans
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    ends = np.maximum.accumulate(spans[:, 1])
    new = np.append(True, spans[1:, 0] > ends[:-1])
    return np.stack([spans[new, 0], ends[np.append(new[1:], True)]], axis=1)


def without_spans(text: str, spans: NDArray[np.int64]) -> str:
    """The text without the spans, which are in order and apart."""
    ends = [0, *spans[:, 1].tolist()]
    begins = [*spans[:, 0].tolist(), len(text)]
    return "".join(text[a:b] for a, b in zip(ends, begins, strict=True))


def covered(spans: Mapping[int, NDArray[np.int64]], number: int) -> int:
    """How many characters of a document are repeated passages."""
    return int((spans[number][:, 1] - spans[number][:, 0]).sum()) if number in spans else 0


def _all_fingerprints(
    texts: Texts, length: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    numbers: list[NDArray[np.int64]] = []
    hashes: list[NDArray[np.uint64]] = []
    places: list[NDArray[np.int64]] = []
    for number, text in texts():
        if len(text) >= length:
            found, at = fingerprints(text, length)
            numbers.append(np.full(at.size, number))
            hashes.append(found)
            places.append(at)
    return _places(numbers), _hashes(hashes), _places(places)


def _parts(text: str, length: int) -> Iterator[tuple[int, NDArray[np.uint32]]]:
    """Parts of at least `length` characters that overlap by one less, with their offsets."""
    characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    step = max(_PART_CHARACTERS, 2 * length) - length + 1
    for offset in range(0, characters.size - length + 1, step):
        yield offset, characters[offset : offset + step + length - 1]


def _local_minima(hashes: NDArray[np.uint64], reach: int) -> NDArray[np.int64]:
    """The places of the least of every `reach` hashes in a row, each once; the last of equals."""
    # The place goes into the low bits, so that a minimum tells where it stands.
    bits = int(hashes.size).bit_length()
    low = np.uint64((1 << bits) - 1)
    packed = hashes & ~low
    packed |= low - np.arange(hashes.size, dtype=np.uint64)
    padded = np.full(-(-hashes.size // reach) * reach, np.iinfo(np.uint64).max)
    padded[: packed.size] = packed
    # Least of a window = least of the end of one stretch and of the beginning of the next (van
    # Herk 1992).
    rows = padded.reshape(-1, reach)
    ahead = np.minimum.accumulate(rows, axis=1).ravel()
    behind = np.minimum.accumulate(rows[:, ::-1], axis=1)[:, ::-1].ravel()
    least = np.minimum(behind[: hashes.size - reach + 1], ahead[reach - 1 : hashes.size])
    places = (low - (least & low)).astype(np.int64)
    once: NDArray[np.int64] = places[np.append(True, places[1:] != places[:-1])]
    return once


def _hashes(parts: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    return np.concatenate([np.empty(0, np.uint64), *parts])


def _places(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *parts])
