"""Blocks of key–value memory: who holds which, and which hold a prefix that others can reuse.

A block is `BLOCK` positions. A full block of a prompt is published under a hash that chains over
all tokens before it, so that an equal prefix is found and not computed again; a block that nobody
holds keeps its content until it is needed. Not for the tensors (`forward.py`).
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from isoflop.serving.settings import BLOCK


def block_hashes(tokens: Sequence[int]) -> list[bytes]:
    """A hash for each full block of the tokens: equal just if all tokens up to its end are."""
    hashes: list[bytes] = []
    before = b""
    for end in range(BLOCK, len(tokens) + 1, BLOCK):
        ids = np.asarray(tokens[end - BLOCK : end], dtype="<u4").tobytes()
        before = hashlib.blake2b(before + ids, digest_size=16).digest()
        hashes.append(before)
    return hashes


class BlockPool:
    """The blocks of one engine, with reference counts.

    Args:
        n_blocks: How many there are.
    """

    def __init__(self, n_blocks: int) -> None:
        self.n_blocks = n_blocks
        self._references = [0] * n_blocks
        self._hash: list[bytes | None] = [None] * n_blocks
        self._by_hash: dict[bytes, int] = {}
        # Free blocks, the longest unused first: those without content, then by last use.
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(n_blocks))

    @property
    def n_free(self) -> int:
        """Blocks that nobody holds."""
        return len(self._free)

    @property
    def n_held(self) -> int:
        """Blocks that somebody holds."""
        return self.n_blocks - len(self._free)

    def allocate(self) -> int | None:
        """A block to write into, or None if all are held; what it kept is forgotten."""
        if not self._free:
            return None
        block, _ = self._free.popitem(last=False)
        known = self._hash[block]
        if known is not None:
            del self._by_hash[known]
            self._hash[block] = None
        self._references[block] = 1
        return block

    def find(self, key: bytes) -> int | None:
        """The block that holds a prefix, to be read with another holder; None if there is none."""
        block = self._by_hash.get(key)
        if block is None:
            return None
        if self._references[block] == 0:
            del self._free[block]
        self._references[block] += 1
        return block

    def publish(self, block: int, key: bytes) -> None:
        """Let others find a block that is computed; the first of equal ones is kept."""
        if key not in self._by_hash and self._hash[block] is None:
            self._hash[block] = key
            self._by_hash[key] = block

    def release(self, block: int) -> None:
        """Give up one hold of a block.

        Raises:
            ValueError: Nobody holds it.
        """
        if self._references[block] < 1:
            raise ValueError(f"block {block} is released more often than it was taken")
        self._references[block] -= 1
        if self._references[block] == 0:
            self._free[block] = None
            if self._hash[block] is None:
                self._free.move_to_end(block, last=False)
