"""The mean of models of one shape: checkpoints of a run, or runs that began alike.

Wortsman et al. 2022 ("model soups"). Not for a mean kept over a run (`training/average.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from isoflop.core.errors import ArtifactError
from isoflop.models.convert import load_decoder
from isoflop.models.decoder import Decoder


@torch.no_grad()
def averaged(decoder: Decoder, others: Sequence[Path]) -> dict[str, Tensor]:
    """Parameter → its mean over `decoder` and the models in directories, summed in float64.

    Raises:
        ArtifactError: A model cannot be read, or has another shape.
    """
    sums = {name: p.detach().double() for name, p in decoder.named_parameters()}
    for path in others:
        other = load_decoder(path)
        if other.config != decoder.config:
            raise ArtifactError(
                "a model of another shape cannot be averaged",
                where=str(path),
                fix="Give models of one shape, best of one run or of runs that began alike",
            )
        for name, parameter in other.named_parameters():
            sums[name] += parameter.double()
    return {name: (value / (1 + len(others))).float() for name, value in sums.items()}
