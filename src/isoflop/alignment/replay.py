"""Text of pre-training among the conversations of a fine-tuning, so that it is not forgotten, and
what any stage of alignment cost of it.

Not for the conversations (`sft_data.py`). Mixing the earlier task in is the oldest remedy against
forgetting (Robins 1995); Ouyang et al. (2022, section 3.5) use it beside PPO.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from isoflop.core.artifact import read_json
from isoflop.core.errors import ArtifactError
from isoflop.data.loader import EvalWindows, Loader, Windows, eval_windows
from isoflop.data.shards import open_shards
from isoflop.models.decoder import Decoder
from isoflop.training.pretrain import held_out_scores

_EVAL_WINDOWS = 64


@dataclass(frozen=True)
class Replay:
    """A text that a model was trained on."""

    train: Loader
    held_out: EvalWindows
    """To see what was forgotten."""

    def mixed(self, conversations: Windows, first: int, count: int) -> Windows:
        """Conversations, and behind them `count` windows of text from the global index `first`."""
        text = self.train.batch(first, count)
        return Windows(
            np.concatenate([conversations.ids_BT, text.ids_BT]),
            np.concatenate([conversations.labels_BT, text.labels_BT]),
            np.concatenate([conversations.document_BT, text.document_BT]),
        )


@torch.no_grad()
def text_cost(model: Decoder, shards_dir: Path, model_dir: Path) -> float:
    """Bits per byte of held-out text: what it was before a stage and is after it tells what the
    stage cost.

    Args:
        model_dir: The model it is or was trained from.

    Raises:
        ArtifactError, DataError: As `open_replay`.
    """
    text = open_replay(shards_dir, model_dir, model.config.max_seq_len, 0)
    trains = model.training
    found = held_out_scores(model.eval(), text.held_out)["bits_per_byte"]
    model.train(trains)
    return found


def open_replay(shards_dir: Path, model_dir: Path, seq_len: int, seed: int) -> Replay:
    """Open shards for a model that is to be trained further.

    Raises:
        ArtifactError: They are no shards, or were made with another tokenizer than the model's.
        DataError: A split is shorter than a window.
    """
    shards = open_shards(shards_dir)
    theirs = shards.tokenizer_directory / "tokenizer.json"
    if read_json(theirs) != read_json(model_dir / "tokenizer.json"):
        raise ArtifactError(
            "these shards were made with another tokenizer than the model's",
            where=str(shards_dir),
            fix=f"Make them with `isoflop tokenize CORPUS --tokenizer {model_dir}`",
        )
    return Replay(
        Loader(shards.train, seq_len, seed),
        eval_windows(shards.held_out, seq_len, _EVAL_WINDOWS * seq_len),
    )
