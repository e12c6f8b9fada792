"""What a tokenizer makes of each language, and what size of vocabulary pays; not for training one.

A larger vocabulary says the same text in fewer tokens, each of which costs more: the output layer
multiplies by every token it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import DataError
from isoflop.data.corpus import Corpus
from isoflop.data.tokenizer import Tokenizer, bpe_encoder, sample, train_bpe
from isoflop.data.tokenizer_file import BYTES, SPECIAL_TOKENS

_HELD_OUT_BYTES = 4_000_000
_TRAINING_FLOPS = 6
"""FLOPs of training per parameter and token (Kaplan et al. 2020)."""


@dataclass(frozen=True)
class Compression:
    """A language's text in tokens."""

    language: str
    """As the corpus names it; `all` for the whole."""
    text_bytes: int
    tokens: int

    @property
    def bytes_per_token(self) -> float:
        """Bytes of UTF-8 that a token stands for on average."""
        return self.text_bytes / max(1, self.tokens)


@dataclass(frozen=True)
class SizeStudied:
    """One size of vocabulary."""

    vocab_size: int
    compression: tuple[Compression, ...]
    """Of held-out text: all of it first, then each language."""
    embedding_params: int
    """Parameters of the embedding, and of the output layer where it is not the same matrix."""
    embedding_share: float
    """Of all parameters of the model."""
    flops_per_token: float
    """Training FLOPs of a token in the whole model."""
    flops_per_byte: float
    """Training FLOPs of a byte of text: what the vocabulary saves and costs, in one number."""


@dataclass(frozen=True)
class VocabularyStudy:
    """Sizes of vocabulary on one corpus for one model."""

    d_model: int
    body_params: int
    """Parameters beside embedding and output layer."""
    sizes: tuple[SizeStudied, ...]
    """Smallest first."""

    @property
    def best(self) -> SizeStudied:
        """The size at which a byte of text costs the fewest FLOPs: beyond it, the tokens that a
        larger vocabulary saves cost less than its output layer."""
        return min(self.sizes, key=lambda size: size.flops_per_byte)


def compression(
    tokenizer: Tokenizer, corpus: Corpus, max_bytes: int = _HELD_OUT_BYTES
) -> tuple[Compression, ...]:
    """Bytes and tokens of held-out text: all of it first, then each language.

    Args:
        max_bytes: About how much of the held-out split is encoded, evenly spread.
    """
    return _measure(lambda text: tokenizer.encode_batch([text])[0], _held_out(corpus, max_bytes))


def study(
    corpus: Corpus,
    vocab_sizes: Sequence[int],
    d_model: int,
    body_params: int,
    progress: Progress = SILENT,
    *,
    tied: bool = True,
) -> VocabularyStudy:
    """Compression and cost of several sizes of vocabulary, from one training at the largest.

    The merges of a BPE nest, so the smaller ones are cuts of it.

    Args:
        vocab_sizes: All ids of each, special tokens included.
        d_model: Width of the model.
        body_params: Its parameters beside embedding and output layer.
        tied: Whether embedding and output layer are one matrix.

    Raises:
        DataError: A size is too small, or the text too short for the largest.
    """
    smallest = BYTES + len(SPECIAL_TOKENS)
    if not vocab_sizes or min(vocab_sizes) < smallest:
        raise DataError(
            f"every size must be at least {smallest}: the bytes and the special tokens",
            where="--vocab-sizes",
        )
    wanted = sorted(set(vocab_sizes))
    ids = train_bpe(corpus, wanted[-1] - len(SPECIAL_TOKENS), progress)
    rows = _held_out(corpus, _HELD_OUT_BYTES)
    sizes: list[SizeStudied] = []
    for vocab_size in wanted:
        n_ordinary = vocab_size - len(SPECIAL_TOKENS)
        encode = bpe_encoder({token: rank for token, rank in ids.items() if rank < n_ordinary})
        parts = _measure(encode, rows)
        embedding = vocab_size * d_model * (1 if tied else 2)
        flops = _TRAINING_FLOPS * (body_params + vocab_size * d_model)
        sizes.append(
            SizeStudied(
                vocab_size=vocab_size,
                compression=parts,
                embedding_params=embedding,
                embedding_share=embedding / (embedding + body_params),
                flops_per_token=flops,
                flops_per_byte=flops / parts[0].bytes_per_token,
            )
        )
    progress.finish(f"{len(sizes)} sizes of vocabulary")
    return VocabularyStudy(d_model, body_params, tuple(sizes))


def _held_out(corpus: Corpus, max_bytes: int) -> list[dict[str, str]]:
    return list(sample(corpus, "held_out", max_bytes))


def _measure(
    encode: Callable[[str], npt.NDArray[np.uint32]], rows: Sequence[dict[str, str]]
) -> tuple[Compression, ...]:
    sums: dict[str, list[int]] = {}
    for row in rows:
        total = sums.setdefault(row["language"], [0, 0])
        total[0] += len(row["text"].encode())
        total[1] += len(encode(row["text"]))
    whole = [sum(part[i] for part in sums.values()) for i in range(2)]
    listed = [("all", whole), *sorted(sums.items())]
    return tuple(Compression(language, size, tokens) for language, (size, tokens) in listed)
