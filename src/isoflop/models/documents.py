"""Which tokens of a batch belong to one document, and so may look at each other.

Not for windows, slopes or distances, which limit attention by position (`layers.py`).

Shape suffixes: B batch, T time, R rows that hold several documents.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor


class DocumentMask:
    """Which rows of a batch hold several documents, and what their tokens may attend to.

    Rows that hold one document need no mask and take the fast causal kernel; a batch source
    that puts them first (`training/objectives.py` does) gets them in one slice.

    Args:
        document_BT: Integer document counter of every token; equal means same document.
        dtype: That of the queries.
    """

    def __init__(self, document_BT: Tensor, dtype: torch.dtype) -> None:
        self._document_BT, self._dtype = document_BT, dtype
        whole = (document_BT[:, 0] == document_BT[:, -1]).tolist()
        self.n_whole = whole.index(False) if False in whole else len(document_BT)
        """How many leading rows hold a single document each."""
        self.n_mixed = len(document_BT) - self.n_whole

    @cached_property
    def bias_R1TT(self) -> Tensor:
        """Added to the scores of the rows that hold several documents. Made once for all layers:
        of a mask of booleans each would make, and keep for its backward pass, such a tensor."""
        mixed_RT = self._document_BT[self.n_whole :]
        rows, length = mixed_RT.shape
        causal_TT = torch.ones(length, length, dtype=torch.bool, device=mixed_RT.device).tril()
        same_RTT = mixed_RT[:, :, None] == mixed_RT[:, None, :]
        bias_R1TT = torch.zeros(rows, 1, length, length, dtype=self._dtype, device=mixed_RT.device)
        return bias_R1TT.masked_fill_(~(same_RTT & causal_TT)[:, None], -torch.inf)

    @cached_property
    def first_BT(self) -> Tensor | None:
        """Each token's earliest visible position, int32; None where counters do not only rise, so
        that a document's tokens may lie apart."""
        if (self._document_BT[:, 1:] < self._document_BT[:, :-1]).any():
            return None
        place_BT = positions_in_documents(self._document_BT)
        time_T = torch.arange(place_BT.shape[1], device=place_BT.device)
        return (time_T - place_BT).to(torch.int32)


def positions_in_documents(document_BT: Tensor) -> Tensor:
    """(B, T) each token's place in its document, which starts where the counter changes."""
    time_T = torch.arange(document_BT.shape[1], device=document_BT.device)
    first_BT = torch.ones_like(document_BT, dtype=torch.bool)
    first_BT[:, 1:] = document_BT[:, 1:] != document_BT[:, :-1]
    return time_T - torch.where(first_BT, time_T, 0).cummax(1).values
