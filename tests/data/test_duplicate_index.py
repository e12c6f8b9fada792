"""New documents against an index on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import ArtifactError
from isoflop.data.documents import Document
from isoflop.data.duplicate_index import open_index, write_index
from isoflop.data.duplicates import KINDS, DuplicateKeys, duplicate_keys
from isoflop.data.duplicates_recipe import DuplicatesConfig

ALL = DuplicatesConfig(url=True, near=True)


def keys_of(*texts: str, url: str = "") -> DuplicateKeys:
    documents = [Document(str(n), text, "s", "en", url) for n, text in enumerate(texts)]
    return duplicate_keys(documents, {"s": 0}, ALL)


def words(start: int, stop: int) -> str:
    return " ".join(f"w{number}" for number in range(start, stop))


def kinds(found: np.ndarray) -> list[str]:
    return [KINDS[kind] if kind >= 0 else "new" for kind in found.tolist()]


def test_what_the_index_holds_is_known_and_the_rest_is_new(tmp_path: Path) -> None:
    old = keys_of(words(0, 200), words(1000, 1200), "short", url="https://a.org/x")
    index = write_index(tmp_path / "index", old, np.array([0, 1, 2]))
    new = keys_of(words(0, 200), words(5, 200), words(100, 300), "short", "other", "")
    assert kinds(index.known(new, 0.7)) == ["exact", "near", "new", "exact", "new", "new"]
    same_page = keys_of("fresh text", url="http://www.a.org/x/")
    assert kinds(index.known(same_page, 0.7)) == ["url"]


def test_only_kept_documents_are_remembered(tmp_path: Path) -> None:
    index = write_index(tmp_path / "index", keys_of(words(0, 50), words(100, 150)), np.array([1]))
    assert index.documents == 1
    assert kinds(index.known(keys_of(words(0, 50), words(100, 150)), 0.7)) == ["new", "exact"]


def test_an_index_grows_in_place_as_if_written_at_once(tmp_path: Path) -> None:
    texts = [words(n * 1000, n * 1000 + 120) for n in range(30)]
    whole = write_index(tmp_path / "whole", keys_of(*texts), np.arange(30))
    index = write_index(tmp_path / "grown", keys_of(*texts[:12]), np.arange(12))
    index = write_index(tmp_path / "grown", keys_of(*texts[12:]), np.arange(18), older=index)
    assert index.documents == 30
    for name in ("texts", "urls", "signatures", "bands", "rows"):
        assert np.array_equal(getattr(index, name), getattr(whole, name)), name
    assert isinstance(index.signatures, np.memmap)


def test_near_recall_at_the_similarity_asked_for(tmp_path: Path) -> None:
    # Shifts of 200 words by 34 and by 80: 166 of 230 runs shared (0.71), and 116 of 276 (0.42).
    old = keys_of(*(words(n * 1000, n * 1000 + 204) for n in range(200)))
    index = write_index(tmp_path / "index", old, np.arange(200))
    near = keys_of(*(words(n * 1000 + 34, n * 1000 + 238) for n in range(200)))
    far = keys_of(*(words(n * 1000 + 80, n * 1000 + 284) for n in range(200)))
    assert (index.known(near, 0.7) >= 0).mean() > 0.9
    assert (index.known(far, 0.7) >= 0).mean() < 0.01


def test_an_empty_index_knows_nothing(tmp_path: Path) -> None:
    index = write_index(tmp_path / "index", keys_of("a b"), np.empty(0, np.int64))
    assert kinds(index.known(keys_of(words(0, 50)), 0.7)) == ["new"]


def test_a_damaged_or_foreign_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such duplicate-index"):
        open_index(tmp_path / "none")
    index = write_index(tmp_path / "index", keys_of(words(0, 50)), np.array([0]))
    (tmp_path / "index" / "rows.npy").write_bytes(b"not an array")
    with pytest.raises(ArtifactError, match="cannot be read"):
        open_index(index.directory)
    (tmp_path / "index" / "index.json").write_text('{"version": 99}')
    with pytest.raises(ArtifactError, match="another version"):
        open_index(index.directory)
