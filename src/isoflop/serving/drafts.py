"""Guesses of the next tokens, which the model then checks all at once: speculative decoding.

An answer does not depend on them: each token is chosen from the model's own logits with the random
number of its position, as if there were no guess (a guess that is that token spares a step). So the
distribution is the model's exactly, without the correction of Leviathan et al. (2023); the draft
model draws with the same random number, which makes the two agree as often as one number can.
Not for guesses without a model (`prompt_lookup.py`) nor for checking them (`engine.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isoflop.models.decoder import Decoder
from isoflop.models.decoder_weights import DecoderWeights
from isoflop.serving.forward import Unit
from isoflop.serving.native_forward import paged
from isoflop.serving.sampler import choose
from isoflop.serving.scheduler import Work
from isoflop.serving.sequence import AnswerInProgress


class DraftModel:
    """A small model that guesses, with keys and values in blocks of the same numbers as those of
    the model it guesses for.

    Args:
        n_blocks: Blocks of the engine's cache.
    """

    def __init__(self, model: Decoder | DecoderWeights, n_blocks: int) -> None:
        self._model = paged(model, n_blocks)

    def follow(self, works: Sequence[Work[AnswerInProgress]]) -> None:
        """Read what a step reads of prompts."""
        units: list[Unit] = []
        for work in works:
            prompt = [unit for unit in work.units if unit.start < work.sequence.n_prompt]
            if prompt:
                units += prompt
                work.sequence.n_drafted = prompt[-1].start + len(prompt[-1].tokens)
        if units:
            self._model.hidden(units)

    def guess(self, sequences: Sequence[AnswerInProgress], most: Sequence[int]) -> None:
        """Set the drafts of answers, at most so many tokens of each; there are blocks for them."""
        for depth in range(max(most, default=0)):
            deep = [one for one, least in zip(sequences, most, strict=True) if depth < least]
            units = []
            for one in deep:
                new = one.drafts[-1:] if one.drafts else one.tokens[one.n_drafted :]
                units.append(Unit(new, one.n_drafted, one.blocks))
                one.n_drafted += len(new)
            states = self._model.hidden(units)
            last = np.cumsum([len(unit.tokens) for unit in units]) - 1
            logits = self._model.logits(states[last.tolist()]).numpy(force=True)
            for one, logits_V in zip(deep, logits, strict=True):
                sampling, position = one.request.sampling, len(one.tokens) + len(one.drafts)
                choice = one.request.first_choice + one.choice
                one.drafts.append(choose(logits_V.astype(float), sampling, choice, position))
