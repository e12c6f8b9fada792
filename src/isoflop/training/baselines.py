"""What a unigram and an n-gram model would have foretold of the same targets; not for training one.

An encoder's accuracy means little beside zero: a third of all tokens may be line ends. So every
evaluation states what the commonest token gets and what an n-gram model gets from the two true
tokens on the left, nothing hidden.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isoflop.models.ngram import NGram, train

ORDER = 3
MOST_TOKENS = 1_000_000
"""Training tokens that the n-gram model sees; it takes some 140 bytes of memory for each."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """A stretch of text, and which of its tokens a model is asked for."""

    ids: Ids
    """(n,) the true tokens."""
    asked: npt.NDArray[np.bool_]
    """(n,)"""


def train_ngram(ids: npt.ArrayLike, starts: npt.ArrayLike, vocab_size: int) -> NGram:
    """An n-gram model of the first documents, those within `MOST_TOKENS`.

    Args:
        ids: (T,) tokens.
        starts: (documents + 1,) where documents begin, ending with T.
    """
    edges = np.asarray(starts, dtype=np.int64)
    within = max(1, int(np.searchsorted(edges, MOST_TOKENS, side="right")) - 1)
    edges = np.minimum(edges[: within + 1], MOST_TOKENS)
    used = np.asarray(ids)[: int(edges[-1])].astype(np.int64)
    return train(used, vocab_size, ORDER, starts=edges)


def accuracies(model: NGram, targets: Iterable[Targets], unspeakable: Ids) -> dict[str, float]:
    """Share of the asked tokens that are the likeliest by themselves and after those before them.

    Args:
        unspeakable: Ids that are no text and so nobody's guess.
    """
    asked: Counter[tuple[tuple[int, ...], int]] = Counter()
    for part in targets:
        ids = part.ids.tolist()
        for place in np.flatnonzero(part.asked).tolist():
            asked[tuple(ids[max(0, place - ORDER + 1) : place]), ids[place]] += 1
    unigram = np.exp(model.log_probabilities[0][: model.vocab_size])
    unigram[unspeakable] = -1.0
    commonest = int(unigram.argmax())
    guesses: dict[tuple[int, ...], int] = {}
    right = {"unigram_accuracy": 0, "ngram_accuracy": 0}
    for (context, token), count in asked.items():
        if context not in guesses:
            chances = model.distribution(context)
            chances[unspeakable] = -1.0
            guesses[context] = int(chances.argmax())
        right["unigram_accuracy"] += count * (token == commonest)
        right["ngram_accuracy"] += count * (token == guesses[context])
    total = max(1, asked.total())
    return {name: number / total for name, number in right.items()}
