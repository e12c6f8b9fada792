"""Writes a fine-tuned model as a directory with its chat template; not its training."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from isoflop.alignment.chat import TEMPLATE_FILE, Chat
from isoflop.core.artifact import read_json, write_atomic, write_json
from isoflop.models.convert import TOKENIZER_CONFIG, TOKENIZER_FILES, save_model
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
        _mark_ends(beside / TOKENIZER_CONFIG, chat)
        write_atomic(beside / TEMPLATE_FILE, chat.template)
        save_model(model, out, beside, inputs=(start, instruct_set), tokenizer_from=start)


def _mark_ends(path: Path, chat: Chat) -> None:
    """Say what ends an answer, for those who open the model elsewhere; padding is another token,
    since a mask that compares ids would take the end for padding and leave it unlearnt."""
    names = {index: name for name, index in chat.tokenizer.special_ids.items()}
    end = names[chat.stop_id]
    config = read_json(path) if path.exists() else {}
    padding = config.get("pad_token")
    padding = padding.get("content") if isinstance(padding, dict) else padding
    if padding is None or padding == end:
        padding = next((name for name in names.values() if name != end), None)
    write_json(path, {**config, "eos_token": end, "pad_token": padding})
