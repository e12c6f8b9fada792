"""BERTScore: how near two texts lie in an encoder's states; not for shared words (`overlap.py`).

After Zhang et al. 2020, equations 1–3, without inverse document frequencies: each token is matched
with the nearest of the other text. The encoder lies on this machine: one that Isoflop trained, or a
BERT directory of transformers. States are those after the last layer; marks such as [CLS] and
[SEP] are read and not matched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from isoflop.core.errors import ArtifactError, DataError
from isoflop.models.convert import load_model
from isoflop.models.encoder import Encoder

States = Callable[[str], Tensor]
"""Text → (T, D) states of its tokens."""


@dataclass(frozen=True)
class BertScore:
    """How near a text lies to its reference, each between −1 and 1."""

    precision: float
    """Mean over the text's tokens of the cosine to the nearest of the reference."""
    recall: float
    """Mean over the reference's tokens of the cosine to the nearest of the text."""

    @property
    def f1(self) -> float:
        """Their harmonic mean; 0 where they sum to 0 or less."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total > 0 else 0.0


def bert_score(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], states: States
) -> list[BertScore]:
    """The score of each text, against the reference with the best F1.

    A text without tokens scores 0.

    Raises:
        DataError: A text has no reference.
    """
    if len(hypotheses) != len(references) or not all(references):
        raise DataError("each text needs at least one reference")
    found = []
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        ours = states(hypothesis)
        scores = [_score(ours, states(text)) for text in texts]
        found.append(max(scores, key=lambda score: score.f1))
    return found


def _score(ours_TD: Tensor, theirs_SD: Tensor) -> BertScore:
    if not len(ours_TD) or not len(theirs_SD):
        return BertScore(0.0, 0.0)
    unit = torch.nn.functional.normalize
    cosine_TS = unit(ours_TD.double(), dim=-1) @ unit(theirs_SD.double(), dim=-1).T
    return BertScore(cosine_TS.amax(1).mean().item(), cosine_TS.amax(0).mean().item())


def open_encoder(directory: Path) -> States:
    """An encoder's states of any text; what does not fit its window is left out.

    Raises:
        ArtifactError: The directory holds no encoder, or no tokenizer.
    """
    from tokenizers import Tokenizer

    model = load_model(directory)
    if not isinstance(model, Encoder):
        raise ArtifactError(
            "this model is no encoder",
            where=str(directory),
            fix="Train one with model.architecture = bert, or give a BERT of transformers",
        )
    file = directory / "tokenizer.json"
    if not file.is_file():
        raise ArtifactError("the encoder has no tokenizer", where=str(file))
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(model.config.max_seq_len)
    model.eval()

    @torch.no_grad()
    def states(text: str) -> Tensor:
        encoded = tokenizer.encode(text)
        if not encoded.ids:
            return torch.zeros(0, model.config.d_model)
        words_T = torch.tensor(encoded.special_tokens_mask) == 0
        found: Tensor = model.hidden(torch.tensor([encoded.ids]))[0]
        return found[words_T]

    return states
