"""Checksums of a file's blocks: damage is found where it lies, before its tokens are learned.

Not for the identity of a file: that is the SHA-256 in its manifest.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isoflop.core.errors import ArtifactError

BLOCK_BYTES = 1 << 16
"""Small, since the first window in a block reads all of it."""


def block_checksums(path: Path) -> npt.NDArray[np.uint32]:
    """(blocks,) CRC-32 of each block of `BLOCK_BYTES` of a file, the last one shorter."""
    with open(path, "rb") as file:
        found = [zlib.crc32(block) for block in iter(lambda: file.read(BLOCK_BYTES), b"")]
    return np.array(found, dtype=np.uint32)


class BlockGuard:
    """Checks each block of a memory-mapped file when it is first read, once a process.

    Args:
        path: The file, for messages.
        content: Its bytes, as mapped.
        checksums: What `block_checksums` said when it was written.
    """

    def __init__(
        self, path: Path, content: npt.NDArray[np.uint8], checksums: npt.NDArray[np.uint32]
    ) -> None:
        self._path, self._content, self._checksums = path, content, checksums
        self._good = np.zeros(checksums.shape[0], dtype=np.bool_)

    def check(self, starts: npt.NDArray[np.int64], length: int) -> None:
        """Check the blocks that hold bytes `starts` to `starts + length - 1`, up to the end.

        Raises:
            ArtifactError: A block differs from its checksum; names the file and the offset.
        """
        first = starts // BLOCK_BYTES
        last = np.minimum((starts + (length - 1)) // BLOCK_BYTES, self._good.shape[0] - 1)
        width = int((last - first).max(initial=0)) + 1
        blocks = np.minimum(first[:, None] + np.arange(width), last[:, None])
        unseen = blocks[~self._good[blocks]]
        for block in np.unique(unseen) if unseen.shape[0] else ():
            begin = int(block) * BLOCK_BYTES
            # A view, not a copy: the very bytes that will be read.
            if (
                zlib.crc32(self._content[begin : begin + BLOCK_BYTES].data)
                != self._checksums[block]
            ):
                end = min(begin + BLOCK_BYTES, self._content.shape[0])
                raise ArtifactError(
                    f"bytes {begin:,} to {end - 1:,} (offset {begin:#x}) differ from their "
                    "checksum: the file was damaged after it was written",
                    where=str(self._path),
                    fix="Restore the file from a copy, or make the shards again with "
                    "`isoflop tokenize`",
                )
            self._good[block] = True
