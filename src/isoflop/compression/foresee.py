"""What `isoflop compress` will take on disk and in memory; its time is not foretold.

Time is mostly that of foretelling the loss part by part, which depends on the model's form.
"""

from __future__ import annotations

from pathlib import Path

from isoflop.core.foresight import Foresight
from isoflop.models.accounting import count_parameters
from isoflop.models.convert import load_decoder

SCALE_BYTES = 4
_COPIES = 3
"""Of the weights, float32: the model, the changed one, and one part's new values."""
_PROCESS_BYTES = 350_000_000


def foresee(model: Path, bits: int | None, group: int) -> Foresight:
    """Count the bytes of the model and of what is written.

    Args:
        bits: Of a stored weight; None where weights stay as they are.
        group: Columns that share a scale.

    Raises:
        ArtifactError: The model cannot be read.
    """
    params = count_parameters(load_decoder(model).config).params_total
    stored = 4.0 if bits is None else bits / 8 + SCALE_BYTES / group
    written = round(params * stored)
    return Foresight(
        None,
        _COPIES * 4 * params + _PROCESS_BYTES,
        written,
        (f"{params:,} parameters at {stored:.3g} bytes each, most at that",),
    )
