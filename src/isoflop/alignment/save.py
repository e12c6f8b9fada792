"""Writes a fine-tuned model as a directory with its chat template; not its training."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from isoflop.alignment.chat import TEMPLATE_FILE, Chat
from isoflop.core.artifact import write_atomic
from isoflop.models.convert import TOKENIZER_FILES, save_model
from isoflop.models.decoder import Decoder


def save_chat_model(model: Decoder, out: Path, start: Path, chat: Chat, instruct_set: Path) -> None:
    """Write the model, its tokenizer and the template, whole or not at all.

    Args:
        start: The model it was trained from, whose tokenizer it has.
        instruct_set: What it was trained on, for its manifest.

    Raises:
        ArtifactError: As `save_model`.
    """
    with TemporaryDirectory() as folder:
        beside = Path(folder)
        for name in TOKENIZER_FILES:
            if (start / name).exists():
                shutil.copyfile(start / name, beside / name)
        write_atomic(beside / TEMPLATE_FILE, chat.template)
        save_model(model, out, beside, inputs=(start, instruct_set))
