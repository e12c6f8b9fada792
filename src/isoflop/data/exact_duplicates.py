"""Documents with the same text, the same address, or mostly the same lines.

Not for texts that differ a little (`near_duplicates`). What is best kept has the smallest rank,
so that the answer depends neither on the order of reading nor on how documents are partitioned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np
from numpy.typing import NDArray

# A line shorter than this (`return None`, `"""`) says nothing about copying.
_MIN_LINE_CHARACTERS = 12
# Below this many telling lines the share of seen ones is noise; exact matching still applies.
_MIN_LINES = 5
_MAX_SEEN_SHARE = 0.5
_TRACKING = ("utm_", "gclid", "fbclid", "spm", "msclkid", "mc_cid", "mc_eid")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def text_keys(texts: Sequence[str]) -> NDArray[np.uint64]:
    """(D, 2) 128-bit hashes of texts; equal texts alone have equal ones."""
    digests = b"".join(_digest(text, 16) for text in texts)
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def url_keys(urls: Sequence[str]) -> NDArray[np.uint64]:
    """(D,) hashes of addresses as `canonical_url` spells them; 0 for documents without one."""
    found = (_digest(canonical_url(url), 8) if url else bytes(8) for url in urls)
    return np.frombuffer(b"".join(found), np.uint64)


def canonical_url(url: str) -> str:
    """One spelling for the addresses of one page.

    Scheme, `www.`, default port, fragment, tracking parameters and a closing slash do not count;
    the order of parameters does not either.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return url.strip()
    host = (parts.hostname or "").removeprefix("www.")
    if port is not None and port != _DEFAULT_PORTS.get(parts.scheme):
        host += f":{port}"
    query = sorted(
        (key, value)
        for key, value in parse_qsl(parts.query, keep_blank_values=True)
        if not key.lower().startswith(_TRACKING)
    )
    path = parts.path.rstrip("/")
    return f"{host}{path}?{urlencode(query)}" if query else host + path


def line_keys(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of the distinct telling lines of texts, indentation aside.

    Returns:
        (L,) hashes, and (D + 1,) bounds: the lines of text i lie from bound i to bound i + 1. A
        text with fewer than five lines of twelve characters has none.
    """
    parts: list[NDArray[np.uint64]] = []
    for text in texts:
        stripped = {line.strip() for line in text.split("\n")}
        lines = [line for line in stripped if len(line) >= _MIN_LINE_CHARACTERS]
        if len(lines) < _MIN_LINES:
            lines = []
        digests = b"".join(_digest(line, 8) for line in lines)
        parts.append(np.sort(np.frombuffer(digests, np.uint64)))
    bounds = np.cumsum([0, *(part.size for part in parts)])
    return np.concatenate([np.empty(0, np.uint64), *parts]), bounds


def same_key(keys: NDArray[np.uint64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """The best document with the same key.

    Args:
        keys: (D,) or (D, 2).
        rank: (D,) different numbers; what is better kept has a smaller one.

    Returns:
        (D,) the number of the document of least rank under each document's key.
    """
    columns = keys[None] if keys.ndim == 1 else keys.T
    order = np.lexsort((rank, *columns))
    new = np.ones(order.size, np.bool_)
    new[1:] = (columns[:, order[1:]] != columns[:, order[:-1]]).any(axis=0)
    best = np.empty(order.size, np.int64)
    best[order] = order[np.flatnonzero(new)][np.cumsum(new) - 1]
    return best


def same_lines(
    keys: NDArray[np.uint64],
    bounds: NDArray[np.int64],
    rank: NDArray[np.int64],
    counts: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """The document that holds most lines of each document that is mostly seen lines.

    By rank, best first, a document falls when more than half of its lines stand in documents
    kept before it; one that falls leaves no lines behind.

    Args:
        keys: (L,) hashes of the lines of one document after the other, distinct within each.
        bounds: (D + 1,) as `line_keys` returns them.
        rank: (D,) different numbers; what is better kept has a smaller one.
        counts: (D,) how many lines each document has, where `keys` lacks those that no other one
            has.

    Returns:
        (D,) document numbers; its own for a document that is kept. Memory: some 50 bytes a line.
    """
    counts = np.diff(bounds) if counts is None else counts
    documents = np.repeat(np.arange(counts.size), np.diff(bounds))
    order = np.argsort(keys, kind="stable")
    new = np.ones(order.size, np.bool_)
    new[1:] = keys[order[1:]] != keys[order[:-1]]
    alone = new & np.append(new[1:], True)
    # Only lines of several documents matter; number them, and gather them by document.
    lines = (np.cumsum(new) - 1)[~alone]
    holders = documents[order[~alone]]
    by_rank = np.lexsort((lines, rank[holders]))
    lines, holders = lines[by_rank], holders[by_rank]
    best = np.arange(counts.size)
    owner = np.full(int(lines.max(initial=-1)) + 1, -1, np.int64)
    edges = np.flatnonzero(np.diff(holders, prepend=-1, append=-1))
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        document, mine = holders[begin], lines[begin:end]
        owners = owner[mine]
        seen = owners[owners >= 0]
        if seen.size > _MAX_SEEN_SHARE * counts[document]:
            candidates, shares = np.unique(seen, return_counts=True)
            most = candidates[shares == shares.max()]
            best[document] = most[rank[most].argmin()]
        else:
            owner[mine[owners < 0]] = document
    return best


def _digest(text: str, size: int) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size).digest()
