"""The documents kept so far, as keys on disk against which new ones are matched.

Not for duplicates among the new ones (`duplicates`). The files are mapped, not read: matching
touches the pages that its searches end in, and memory does not grow with the index.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from isoflop.core.artifact import (
    build_directory,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from isoflop.core.errors import ArtifactError
from isoflop.core.hardware import machine
from isoflop.data.duplicates import KINDS, DuplicateKeys
from isoflop.data.minhash import BANDS, PERMUTATIONS, agreement, band_key, has_signature
from isoflop.data.near_duplicates import likely

_KIND = "duplicate-index"
_VERSION = 1  # of what the numbers mean; an index of another one cannot be matched
# Documents of the index under one key that a new one is compared with.
_MAX_NEIGHBOURS = 64
_COPY_ROWS = 1 << 16


@dataclass(frozen=True)
class DuplicateIndex:
    """An index on disk; every array is mapped from its file."""

    directory: Path
    documents: int
    """How many documents it was told to remember."""
    texts: NDArray[np.uint64]
    """(T,) the first halves of the texts' hashes, sorted."""
    urls: NDArray[np.uint64]
    """(U,) hashes of addresses, sorted."""
    signatures: NDArray[np.uint32]
    """(S, 110) MinHash signatures."""
    bands: NDArray[np.uint64]
    """(22, S) the keys of each band, sorted."""
    rows: NDArray[np.int64]
    """(22, S) the signature that each key belongs to."""

    def known(self, keys: DuplicateKeys, similarity: float) -> NDArray[np.int8]:
        """Which new documents the index holds already.

        Texts and addresses are compared by their hashes, near duplicates by their signatures
        alone: the texts of the index are gone, so 19 of 20 pairs of just `similarity` are found,
        and some a little below it.

        Returns:
            (D,) index into `KINDS`; -1 for documents that are new.
        """
        kinds = np.full(len(keys), -1, np.int8)
        if len(keys.texts):
            kinds[_holds(self.texts, keys.texts[:, 0])] = KINDS.index("exact")
        if keys.urls.size:
            found = _holds(self.urls, keys.urls) & (keys.urls != 0)
            kinds[found & (kinds < 0)] = KINDS.index("url")
        if len(keys.signatures) and len(self.signatures):
            new = np.flatnonzero(kinds < 0)
            new = new[has_signature(keys.signatures[new])]
            for band in range(BANDS):
                near = self._near(keys.signatures, new, band, similarity)
                kinds[new[near]] = KINDS.index("near")
                new = new[~near]
        return kinds

    def _near(
        self, signature: NDArray[np.uint32], new: NDArray[np.int64], band: int, similarity: float
    ) -> NDArray[np.bool_]:
        """Of the documents `new`, those near to one that shares this band."""
        wanted = band_key(signature[new], band)
        begins = np.searchsorted(self.bands[band], wanted, side="left")
        ends = np.searchsorted(self.bands[band], wanted, side="right")
        near = np.zeros(new.size, np.bool_)
        for distance in range(_MAX_NEIGHBOURS):
            at = np.flatnonzero((begins + distance < ends) & ~near)
            if not at.size:
                break
            rows = self.rows[band][begins[at] + distance]
            shares = agreement(signature, new[at], rows, self.signatures)
            near[at] = shares >= likely(similarity)
        return near


def open_index(directory: Path) -> DuplicateIndex:
    """Open an index.

    Raises:
        ArtifactError: It is missing, unfinished, damaged, or of another version.
    """
    read_manifest(directory, _KIND)
    about = read_json(directory / "index.json")
    if not isinstance(about, dict) or about.get("version") != _VERSION:
        raise ArtifactError(
            "the index was written by another version of Isoflop",
            where=str(directory),
            fix="Write it again with `isoflop data duplicates CORPUS --remember DIR`",
        )
    try:
        arrays: dict[str, Any] = {
            name: np.load(directory / f"{name}.npy", mmap_mode="r")
            for name in ("texts", "urls", "signatures", "bands", "rows")
        }
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"the index cannot be read: {error}", where=str(directory), fix="Write it again"
        ) from None
    return DuplicateIndex(directory, int(about["documents"]), **arrays)


def write_index(
    out: Path, keys: DuplicateKeys, kept: NDArray[np.int64], older: DuplicateIndex | None = None
) -> DuplicateIndex:
    """Write an index of documents, and of those of an older index.

    `out` may be the older index itself: it is replaced once the new one is whole.

    Args:
        kept: The numbers of the documents to remember.

    Raises:
        ArtifactError: `out` exists and is not an artifact.
    """
    signature = keys.signatures[kept] if len(keys.signatures) else keys.signatures
    signature = signature[has_signature(signature)]
    texts = keys.texts[kept, 0] if len(keys.texts) else np.empty(0, np.uint64)
    urls = keys.urls[kept] if keys.urls.size else np.empty(0, np.uint64)
    old_texts, old_urls = (older.texts, older.urls) if older else (texts[:0], urls[:0])
    n_old = len(older.signatures) if older else 0
    n_signatures = n_old + len(signature)
    documents = kept.size + (older.documents if older else 0)
    with build_directory(out) as aside:
        np.save(aside / "texts.npy", np.unique(np.concatenate([old_texts, texts])))
        np.save(aside / "urls.npy", np.unique(np.concatenate([old_urls, urls[urls != 0]])))
        stored = _create(aside / "signatures.npy", np.uint32, (n_signatures, PERMUTATIONS))
        for at in range(0, n_old, _COPY_ROWS):
            if older is not None:
                stored[at : min(at + _COPY_ROWS, n_old)] = older.signatures[at : at + _COPY_ROWS]
        stored[n_old:] = signature
        bands = _create(aside / "bands.npy", np.uint64, (BANDS, n_signatures))
        rows = _create(aside / "rows.npy", np.int64, (BANDS, n_signatures))
        for band in range(BANDS):
            found = band_key(stored, band)
            order = np.argsort(found, kind="stable")
            bands[band], rows[band] = found[order], order
        for array in (stored, bands, rows):
            if isinstance(array, np.memmap):
                array.flush()
        about = {"version": _VERSION, "documents": int(documents)}
        write_json(aside / "index.json", about)
        inputs = [older.directory] if older is not None and older.directory != out else []
        write_manifest(aside, kind=_KIND, config=about, machine=machine(), inputs=inputs)
    return open_index(out)


def _holds(stored: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(D,) whether a sorted array holds each number."""
    if not stored.size:
        return np.zeros(wanted.size, np.bool_)
    at = np.minimum(np.searchsorted(stored, wanted), stored.size - 1)
    found: NDArray[np.bool_] = stored[at] == wanted
    return found


def _create(path: Path, kind: type[np.generic], shape: tuple[int, int]) -> NDArray[Any]:
    if 0 in shape:  # nothing to map
        array = np.empty(shape, kind)
        np.save(path, array)
        return array
    return open_memmap(path, mode="w+", dtype=kind, shape=shape)
