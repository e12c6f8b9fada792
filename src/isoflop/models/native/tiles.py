"""Which matrix products the native library takes, by their shapes alone; not for making them
(`calls.py`). Needs no torch, so that what a run will hold can be foretold without it."""

from __future__ import annotations

TILE_ROWS, TILE_COLUMNS = 8, 32
"""Products are made of tiles of this size or its half (`tiles.h`)."""
NARROW = 49_152
"""Numbers of a weight up to which a core's cache holds it with all that it is multiplied with;
larger ones torch's libraries multiply as fast."""
OUTPUT_NUMBERS = 1 << 19
"""The same of an output layer, which passes by every few rows."""
MOST_PARTS, PART_ROWS = 8, 256
"""Rows are dealt into parts where their products are summed, one for so many rows, and no more in
all: each is as large as the sum."""


def takes_product(n_rows: int, n_in: int, n_out: int) -> bool:
    """Whether x (N, D) · weight (F, D)ᵀ is made natively."""
    return n_in * n_out <= NARROW and n_out % TILE_COLUMNS == 0 and n_rows % TILE_ROWS == 0


def takes_weight_gradient(n_in: int, n_out: int) -> bool:
    """Whether d_out (N, F)ᵀ · x (N, D) is made natively."""
    return n_in * n_out <= NARROW and n_in % TILE_COLUMNS == 0 and n_out % TILE_ROWS == 0


def takes_feed_forward(n_rows: int, width: int, inner: int) -> bool:
    """Whether a gated feed-forward layer with its norm is made natively."""
    return (
        width * inner <= NARROW
        and width % TILE_COLUMNS == inner % TILE_COLUMNS == 0
        and n_rows % TILE_ROWS == 0
    )


def takes_output(width: int, vocab_size: int) -> bool:
    """Whether the output layer and its loss are made natively."""
    return (
        width * vocab_size <= OUTPUT_NUMBERS
        and width % TILE_COLUMNS == 0
        and vocab_size % TILE_ROWS == 0
    )


def n_parts(n_rows: int) -> int:
    """Into how many parts rows are dealt: by their number alone, so that no sum depends on the
    number of threads."""
    return min(MOST_PARTS, -(-n_rows // PART_ROWS))
