"""Memory in large pages, for what a decoding step reads from end to end; not for tensors at large.

Small pages (4 KiB) limit such reading before memory does: in large ones (2 MiB, where the system
has them for the asking) one core reads up to twice as fast (`docs/decisions.md`).
"""

from __future__ import annotations

import mmap

import torch
from torch import Tensor


def zeros(n_bytes: int) -> Tensor:
    """(n_bytes,) uint8, all zero; small pages where the system has no large ones."""
    # Private, for shared memory is a file's to the system, whose large pages are another matter.
    memory = mmap.mmap(-1, max(n_bytes, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)[:n_bytes]
