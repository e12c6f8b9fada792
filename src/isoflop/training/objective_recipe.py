"""The `[objective]` table: what a model is trained to foretell; no torch here.

Not for how batches are made of it (`masked.py`, `seq2seq.py`, `pretrain.py`). The attribute
docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["causal", "masked", "spans", "seq2seq"]
FEWEST_TOKENS = 8
"""Of a row of two sentences, three of which are its marks."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is foretold."""

    kind: Kind | None = None
    """causal: the next token (decoders); masked: hidden tokens (bert); spans: dropped spans (t5);
    seq2seq: the target of each pair in data.pairs (t5). It follows from the architecture when not
    given."""
    fraction: float = 0.15
    """Share of tokens that are masked or dropped."""
    whole_words: bool = False
    """Mask all tokens of a word or none; an ideograph is a word."""
    sentence_pairs: bool = True
    """Of masked: also tell whether the second of two sentences follows the first."""
    span_length: float = 3.0
    """Of spans: their mean length in tokens."""


def objective_problems(
    objective: ObjectiveConfig, kind: Kind, architecture: str, packing: str, seq_len: int
) -> Iterator[str]:
    """What does not fit, by the names of the keys.

    Args:
        kind: That of the run, given or found.
    """
    if not 0 < objective.fraction < 1:
        yield f"objective.fraction = {objective.fraction} must lie between 0 and 1"
    if not objective.span_length >= 1:
        yield f"objective.span_length = {objective.span_length} must be at least 1"
    takes = {"bert": ("masked",), "t5": ("spans", "seq2seq")}.get(architecture, ("causal",))
    if kind not in takes:
        yield f"objective.kind = {kind}, but {architecture} takes {' or '.join(takes)}"
    pairs = kind == "masked" and objective.sentence_pairs
    if pairs and packing != "buckets":
        yield (
            f"data.packing = {packing}, but pairs of sentences are rows of their own length: "
            'data.packing = "buckets", or objective.sentence_pairs = false'
        )
    if pairs and seq_len < FEWEST_TOKENS:
        yield f"train.seq_len = {seq_len}, but a pair of sentences needs {FEWEST_TOKENS} tokens"
    if kind == "spans" and seq_len * objective.fraction < 1:
        yield (
            f"train.seq_len = {seq_len}, of which objective.fraction = {objective.fraction:g} is "
            "less than one token to drop"
        )
    if packing == "streams" and kind != "causal":
        yield f"data.packing = streams is for causal models, not for {kind}"
