"""A decoder with linear heads on its states: reward models and critics, and their directories.

Not for their training (`reward_training.py`, `ppo.py`) nor for the loss (`reward.py`).

Shape suffixes: B answers, T positions, D model width, R heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from isoflop.alignment.answers import (
    Answer,
    AnswerRows,
    answer_rows,
    by_length,
    states_before,
)
from isoflop.alignment.chat import Chat
from isoflop.alignment.save import save_chat_model
from isoflop.core.artifact import (
    build_directory,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from isoflop.core.errors import ArtifactError
from isoflop.core.hardware import machine
from isoflop.models.convert import load_decoder
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import draw_normal
from isoflop.models.stored_weights import write_tensors

KIND = "reward-model"
_HEAD, _FACTS, _DECODER = "head.safetensors", "reward.json", "decoder"


class RewardModel(nn.Module):
    """Scores of texts: gain · (head · last state) + bias, one for each head, of zeros at first.

    Args:
        decoder: Its output layer is not used.
        heads: What the scores are called.
    """

    gain_R: Tensor
    bias_R: Tensor

    def __init__(self, decoder: Decoder, heads: Sequence[str] = ("reward",)) -> None:
        super().__init__()
        self.decoder, self.heads = decoder, tuple(heads)
        if not decoder.config.tie_embeddings:
            decoder.lm_head.weight.requires_grad_(False)
        weight = decoder.embed_tokens.weight
        self.head = nn.Linear(decoder.config.d_model, len(heads), bias=False, dtype=weight.dtype)
        nn.init.zeros_(self.head.weight)
        self.register_buffer("gain_R", torch.ones(len(heads), dtype=weight.dtype))
        self.register_buffer("bias_R", torch.zeros(len(heads), dtype=weight.dtype))

    @torch.no_grad()
    def draw_heads(self, seed: int) -> None:
        """Fill the heads from a seed, with variance 1/(D + 1) (Stiennon et al. 2020): with heads of
        zeros a decoder whose blocks are still the identity would get no gradient at all."""
        weight_RD = self.head.weight
        std = (weight_RD.shape[1] + 1) ** -0.5
        weight_RD.copy_(draw_normal(seed, "head", weight_RD.shape, std))

    def raw(self, ids_BT: Tensor) -> Tensor:
        """(B, T, R) head · state at every position."""
        out: Tensor = self.head(self.decoder.hidden(ids_BT))
        return out

    def scores(self, rows: AnswerRows) -> Tensor:
        """(B, R) scores of whole answers, read at the last id of each."""
        last_B = rows.start_B + rows.lengths_B
        raw_BTR = self.raw(rows.ids_BT)
        return raw_BTR[torch.arange(len(rows)), last_B] * self.gain_R + self.bias_R

    def values(self, rows: AnswerRows) -> Tensor:
        """(B, A) what the first head says before each answer token; 0 outside the mask."""
        values_BTR = self.raw(rows.ids_BT[:, :-1]) * self.gain_R + self.bias_R
        return states_before(values_BTR, rows)[..., 0]

    @torch.no_grad()
    def judge(self, answers: Sequence[Answer], batch: int = 64) -> Tensor:
        """(B, R) scores without a gradient, some answers at a time.

        Raises:
            DataError: An answer is empty.
        """
        rows = answer_rows(answers)
        out_BR = self.head.weight.new_zeros(len(answers), len(self.heads))
        for part in by_length(rows, batch):
            out_BR[part] = self.scores(rows.take(part))
        return out_BR

    @torch.no_grad()
    def standardise(self, scores_BR: Tensor) -> None:
        """Set gain and bias so that answers with these scores have mean 0 and variance 1."""
        std_R = scores_BR.double().std(0, unbiased=False)
        mean_R = scores_BR.double().mean(0)
        scale_R = torch.where(std_R > 0, 1 / std_R, 1.0)
        self.bias_R.copy_((self.bias_R - mean_R) * scale_R)
        self.gain_R.mul_(scale_R)


def save_reward_model(
    model: RewardModel, out: Path, start: Path, chat: Chat, instruct_set: Path
) -> None:
    """Write decoder, heads, gain and bias as one directory, whole or not at all.

    Args:
        start: The model it was trained from, whose tokenizer it has.
        instruct_set: What it was trained on, for its manifest.

    Raises:
        ArtifactError: `out` holds something else.
    """
    with build_directory(out) as aside:
        save_chat_model(model.decoder, aside / _DECODER, start, chat, instruct_set)
        tensors = {"head": model.head.weight.detach().contiguous()}
        tensors |= {"gain": model.gain_R, "bias": model.bias_R}
        write_tensors(tensors, aside / _HEAD, out / _HEAD)
        facts = {"heads": list(model.heads)}
        write_json(aside / _FACTS, facts)
        inputs = (start, instruct_set)
        write_manifest(aside, kind=KIND, config=facts, machine=machine(), inputs=inputs)


def load_reward_model(directory: Path) -> RewardModel:
    """Open what `save_reward_model` wrote, ready to judge.

    Raises:
        ArtifactError: It is missing, damaged or something else.
    """
    read_manifest(directory, KIND, verify=True)
    facts = read_json(directory / _FACTS)
    model = RewardModel(load_decoder(directory / _DECODER), facts["heads"])
    tensors = safetensors.torch.load_file(directory / _HEAD)
    if tensors["head"].shape != model.head.weight.shape:
        raise ArtifactError("its heads do not fit its decoder", where=str(directory / _HEAD))
    with torch.no_grad():
        model.head.weight.copy_(tensors["head"])
    model.gain_R.copy_(tensors["gain"])
    model.bias_R.copy_(tensors["bias"])
    return model.eval()
