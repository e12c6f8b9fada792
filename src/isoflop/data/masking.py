"""Masked language modelling: which tokens are hidden and what stands in their place; numpy only.

Devlin et al. 2019, section 3.1: of all tokens 15 % are to be foretold; of these 80 % are replaced
by [MASK], 10 % by a random token and 10 % are left as they are. Not for the pairs of sentences that
may be masked (`sentence_pairs`) nor for spans in an encoder-decoder (`spans`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isoflop.data.chance import uniforms
from isoflop.data.loader import IGNORED
from isoflop.data.words import word_starts

MASKED, RANDOM = 0.8, 0.1
"""Shares of the chosen tokens that become [MASK] and a random token; the rest stay."""


@dataclass(frozen=True)
class Masked:
    """B rows of T tokens, some of them hidden."""

    ids_BT: npt.NDArray[np.int64]
    """What the model reads."""
    labels_BT: npt.NDArray[np.int64]
    """What stood at a chosen place, `IGNORED` elsewhere."""


@dataclass(frozen=True)
class Masker:
    """Hides tokens, the same ones whenever a row with the same index is asked for."""

    token_bytes: Sequence[bytes]
    """Bytes of every id; b"" for special tokens, which are never hidden nor put in."""
    mask_id: int
    fraction: float
    """Of the tokens that may be hidden, those that are; at least one a row."""
    whole_words: bool
    """Hide all tokens of a word or none. A word is a run of letters or of digits, any other mark,
    or a single ideograph; a token that holds parts of several joins them."""
    seed: int

    def __call__(
        self,
        ids_BT: npt.NDArray[np.int64],
        rows_B: npt.NDArray[np.int64],
        text_BT: npt.NDArray[np.bool_],
    ) -> Masked:
        """Hide some tokens of each row.

        Args:
            ids_BT: Tokens.
            rows_B: Global index of each row; with the seed it decides everything.
            text_BT: Which tokens may be hidden: neither special ones nor padding.
        """
        shape = ids_BT.shape
        order_BT = uniforms(self.seed, "hide", rows_B, shape[1])
        n_text_B = text_BT.sum(1)
        wanted_B = np.minimum(n_text_B, np.maximum(1, np.rint(self.fraction * n_text_B)))
        if self.whole_words:
            chosen_BT = self._whole(ids_BT, text_BT, order_BT, wanted_B)
        else:
            rank_BT = np.where(text_BT, order_BT, 2.0).argsort(axis=1).argsort(axis=1)
            chosen_BT = (rank_BT < wanted_B[:, None]) & text_BT
        ordinary = np.flatnonzero([bool(piece) for piece in self.token_bytes])
        action_BT = uniforms(self.seed, "replace", rows_B, shape[1])
        other_BT = uniforms(self.seed, "other", rows_B, shape[1])
        random_BT = ordinary[(other_BT * ordinary.shape[0]).astype(np.int64)]
        hidden_BT = np.where(
            action_BT < MASKED,
            self.mask_id,
            np.where(action_BT < MASKED + RANDOM, random_BT, ids_BT),
        )
        return Masked(
            ids_BT=np.where(chosen_BT, hidden_BT, ids_BT),
            labels_BT=np.where(chosen_BT, ids_BT, IGNORED),
        )

    def word_starts(self, ids_BT: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """(B, T) whether a word, as `whole_words` has it, begins with the token."""
        pieces_BT = [[self.token_bytes[i] or b" " for i in row] for row in ids_BT.tolist()]
        # A space between rows: bytes at the edges of two of them must not make one character.
        starts = word_starts(b" ".join(b"".join(pieces) for pieces in pieces_BT))
        lengths_BT = np.array([[len(piece) for piece in pieces] for pieces in pieces_BT])
        lengths_BT[:, -1] += 1
        before = np.cumsum(lengths_BT).reshape(ids_BT.shape) - lengths_BT
        found_BT: npt.NDArray[np.bool_] = starts[before]
        found_BT[:, 0] = True
        return found_BT

    def _whole(
        self,
        ids_BT: npt.NDArray[np.int64],
        text_BT: npt.NDArray[np.bool_],
        order_BT: npt.NDArray[np.float64],
        wanted_B: npt.NDArray[np.float64],
    ) -> npt.NDArray[np.bool_]:
        starts_BT = self.word_starts(ids_BT)
        # What is no text begins a word of its own, and so does what follows it.
        starts_BT |= ~text_BT
        starts_BT[:, 1:] |= ~text_BT[:, :-1]
        chosen_BT = np.zeros(ids_BT.shape, dtype=np.bool_)
        for row, wanted in enumerate(wanted_B.astype(int).tolist()):
            first = np.flatnonzero(starts_BT[row])
            ends = np.append(first[1:], ids_BT.shape[1])
            words = np.flatnonzero(text_BT[row][first])
            left = wanted
            in_turn = words[order_BT[row][first[words]].argsort()].tolist()
            for word in in_turn:
                size = int(ends[word] - first[word])
                if size <= left:  # a longer word is passed over, as in BERT's own code
                    chosen_BT[row, first[word] : ends[word]] = True
                    left -= size
                if not left:
                    break
            if left == wanted > 0:  # no word is short enough: the first one after all
                chosen_BT[row, first[in_turn[0]] : ends[in_turn[0]]] = True
        return chosen_BT
