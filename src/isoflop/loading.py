"""Opening a finished model directory: its weights and its tokenizer as one `Model`.

Not for models without a tokenizer (`models/convert.py` opens the weights alone).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from isoflop.core.artifact import MANIFEST, read_manifest
from isoflop.core.errors import ArtifactError

if TYPE_CHECKING:
    from isoflop.data.tokenizer import Tokenizer
    from isoflop.models.decoder_weights import DecoderWeights
    from isoflop.models.generate import Model


def load(directory: str | Path) -> Model:
    """Open a model that Isoflop wrote.

    Raises:
        ArtifactError: The directory is missing, unfinished, damaged, or holds something else.
        DataError: It has no tokenizer that can be read.
    """
    directory = Path(directory)
    _check(directory)
    # Only now, for it takes seconds: a wrong path is told at once.
    from isoflop.data.tokenizer import load as load_tokenizer
    from isoflop.models.convert import load_decoder
    from isoflop.models.generate import Model

    return Model(load_decoder(directory), load_tokenizer(directory))


def load_weights(directory: str | Path) -> tuple[DecoderWeights, Tokenizer]:
    """The weights of such a model, packed ones as they are stored, and its tokenizer.

    Raises:
        ArtifactError: As `load`.
        DataError: As `load`.
    """
    directory = Path(directory)
    _check(directory)
    from isoflop.data.tokenizer import load as load_tokenizer
    from isoflop.models import convert

    return convert.load_weights(directory), load_tokenizer(directory)


def _check(directory: Path) -> None:
    inside = directory / "model"
    if (inside / MANIFEST).exists():  # a run or a demo
        raise ArtifactError(
            "this holds a model but is not one itself", where=str(directory), fix=f"Open {inside}"
        )
    run = directory.parent if directory.name == "model" else directory
    if not (directory / MANIFEST).exists() and (run / "checkpoints").is_dir():
        raise ArtifactError(
            "this run has not finished, so it has no model yet",
            where=str(run),
            fix="The command that started it continues it",
        )
    read_manifest(directory, "model")
    if not (directory / "tokenizer.json").exists():
        raise ArtifactError(
            "the model has no tokenizer",
            where=str(directory),
            fix="Copy the tokenizer.json and tokenizer_config.json it was trained with into it",
        )
