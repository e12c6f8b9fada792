"""Which of two answers a model prefers, for pairs that people judged; not for training on them.

The likelihood decides: no answers are sampled and nobody judges anew, so that two models are
compared on the same pairs, by the same rule.
"""

from __future__ import annotations

from pathlib import Path

import torch

from isoflop.alignment.answers import answer_rows
from isoflop.alignment.chat import open_chat
from isoflop.alignment.dpo import reference_logprobs
from isoflop.alignment.pairs import answers_of, open_pairs
from isoflop.core.errors import DataError
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.convert import load_decoder


def wins(instruct_set: Path, model: Path) -> list[bool]:
    """For each held-out pair of a set, whether the model thinks the chosen answer likelier than the
    rejected one, by the mean log-probability of a token: length alone decides nothing.

    Raises:
        ArtifactError: The set or the model cannot be read.
        DataError: The set holds no pairs out that the model has room for.
    """
    decoder = load_decoder(model)
    chat = open_chat(load_tokenizer(model))
    pairs = open_pairs(instruct_set, chat, decoder.config.max_seq_len).held_out
    if not pairs:
        raise DataError(
            "the set holds no preference pairs out that fit the model",
            where=str(instruct_set),
            fix="Collect more opinions, or raise held_out_fraction in the recipe of the set",
        )
    rows = answer_rows(answers_of(pairs))
    with torch.no_grad():
        mean = reference_logprobs(decoder, rows) / rows.lengths_B
    chosen, rejected = mean[: len(pairs)], mean[len(pairs) :]
    return [bool(won) for won in chosen > rejected]
