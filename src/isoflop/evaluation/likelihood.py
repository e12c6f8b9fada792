"""How likely a model finds texts: continuations after contexts, and whole documents.

Not for choosing among options (`tasks/choice.py`) nor for writing (`generation.py`). The rules are
those of lm-evaluation-harness (Gao et al. 2021; `TemplateLM`, `HFLM`), which hand-made copies get
wrong: each stands in the docstring of the function that keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from isoflop.core.errors import DataError
from isoflop.evaluation.cache import RowCache, remember
from isoflop.models.decoder import Decoder
from isoflop.models.generate import TextCodec
from isoflop.models.native.tiles import NARROW, TILE_ROWS

T = TypeVar("T")
Ids = tuple[int, ...]
PREFIX_STEP = 4
"""Cached prefixes are a multiple of this long: shorter steps leave fewer tokens to each option and
more shapes to batch. Four, for rows in fours have the same bits in any company."""
SHORTEST_PREFIX = 16
"""Below it nothing is cached."""
SUFFIX_STEP = 4
"""What follows the prefix is padded to a multiple of this."""
FEWEST_ROWS = 8
"""Rows of the output layer are filled up to a multiple of it: on a CPU a product of one to three
rows more may differ in its last bit from the same rows among others."""
LOGIT_ROWS = 1024
"""Rows of logits held at once."""
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Subject:
    """A model to be asked: its weights, its tokenizer, and the token texts begin after."""

    decoder: Decoder = field(repr=False)
    tokenizer: TextCodec = field(repr=False)
    start_id: int
    """BOS where the model has one, else EOS: what an empty context is replaced with."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens computed at once at most; one item may exceed it. It changes no result."""


@dataclass(frozen=True)
class Likelihood:
    """What a model makes of one continuation."""

    token_logprobs: tuple[float, ...]
    """Natural log-probability of each token of it."""
    token_hits: tuple[bool, ...]
    """Whether each was the likeliest token there."""
    n_bytes: int
    """UTF-8 bytes of the text asked about (without spaces that came from the context)."""
    truncated: bool
    """Whether the context lost its beginning for want of room."""

    @property
    def logprob(self) -> float:
        """Natural log-probability of all of it."""
        return math.fsum(self.token_logprobs)

    @property
    def greedy(self) -> bool:
        """Whether greedy decoding would have written it."""
        return all(self.token_hits)


def bits_per_byte(items: Sequence[Likelihood]) -> float:
    """Bits over bytes of all items: long ones weigh more; no mean of means.

    Raises:
        DataError: There is not one byte.
    """
    n_bytes = sum(item.n_bytes for item in items)
    if n_bytes == 0:
        raise DataError("bits per byte of an empty text are undefined")
    return -math.fsum(item.logprob for item in items) / math.log(2) / n_bytes


# --- text ----------------------------------------------------------------------------------


def loglikelihood(subject: Subject, pairs: Sequence[tuple[str, str]]) -> list[Likelihood]:
    """How likely each continuation is after its context.

    Contexts that several pairs share are computed once; a pair's result does not depend on the
    others. See `encode_pair` for where the context ends, `score_ids` for long ones.

    Args:
        pairs: (context, continuation).

    Raises:
        DataError: A continuation is empty, or has more tokens than the model's window.
    """
    ids = [encode_pair(subject, context, continuation) for context, continuation in pairs]
    n_bytes = [len(continuation.encode()) for _, continuation in pairs]
    return score_ids(subject, ids, n_bytes)


def encode_pair(subject: Subject, context: str, continuation: str) -> tuple[Ids, Ids]:
    """The ids of a context and of what follows it.

    Trailing spaces of the context go to the continuation: in text a space begins a token. Its
    tokens are those of both texts less as many as the context has alone: a merge across the seam
    belongs to the continuation. An empty context is the start token.

    Where a merge across the seam leaves no such token (as with Chinese, where words have no
    spaces), the continuation begins at the first token that the context alone has not.

    Raises:
        DataError: The continuation is empty.
    """
    if not continuation:
        raise DataError("a continuation is empty", where=repr(context[-40:]))
    kept = context.rstrip()
    moved = context[len(kept) :] + continuation
    encode = subject.tokenizer.encode
    if not kept:
        return (subject.start_id,), tuple(encode(moved))
    before, whole = encode(kept), encode(kept + moved)
    if len(whole) > len(before):
        return tuple(before), tuple(whole[len(before) :])
    same = 0
    while before[same] == whole[same] and same < len(whole) - 1:
        same += 1
    return tuple(whole[:same]) or (subject.start_id,), tuple(whole[same:])


def loglikelihood_rolling(subject: Subject, texts: Sequence[str]) -> list[Likelihood]:
    """How likely each whole text is, after the start token.

    A text longer than the window is cut as `rolling_windows` says; two texts never share one.
    An empty text has no tokens and no bytes.
    """
    window = subject.decoder.config.max_seq_len
    pieces: list[tuple[Ids, Ids]] = []
    owners: list[int] = []
    for owner, text in enumerate(texts):
        for piece in rolling_windows(subject.tokenizer.encode(text), subject.start_id, window):
            pieces.append(piece)
            owners.append(owner)
    logprobs: list[list[float]] = [[] for _ in texts]
    hits: list[list[bool]] = [[] for _ in texts]
    for owner, found in zip(owners, score_ids(subject, pieces), strict=True):
        logprobs[owner].extend(found.token_logprobs)
        hits[owner].extend(found.token_hits)
    return [
        Likelihood(tuple(logprobs[i]), tuple(hits[i]), len(text.encode()), truncated=False)
        for i, text in enumerate(texts)
    ]


def rolling_windows(ids: Sequence[int], start_id: int, window: int) -> Iterator[tuple[Ids, Ids]]:
    """(context, tokens to predict) so that each token is predicted exactly once, in order.

    Every full window predicts `window` tokens after the one token before them; the last one, with
    fewer to predict, sees as much context as there is room for.

    Args:
        window: Most tokens the model reads at once.
    """
    text = tuple(ids)
    first = text[:window]
    if first:
        yield (start_id,), first
    done = len(first)
    while done < len(text):
        end = min(done + window, len(text))
        yield text[end - window - 1 : done], text[done:end]
        done = end


# --- ids -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """One input of the model, and who asks about it."""

    ids: Ids
    prefix: int
    """Leading ids that are computed once for all rows that begin with them."""
    asked: list[tuple[int, Ids]]
    """(number of the request, its continuation): options of one token share a row."""

    @property
    def suffix(self) -> int:
        return len(self.ids) - self.prefix


def score_ids(
    subject: Subject, pairs: Sequence[tuple[Ids, Ids]], n_bytes: Sequence[int] | None = None
) -> list[Likelihood]:
    """As `loglikelihood`, of ids. A context too long for the window loses its beginning.

    The shape in which a pair is computed (its cached prefix, its padded rest) is a function of
    the pair alone. Pairs of one shape form a batch; on a CPU in float32 their results are the
    same bits whatever the batch.

    Args:
        n_bytes: UTF-8 bytes of each continuation's text; 0 when not given.

    Raises:
        DataError: A context or continuation is empty, or a continuation does not fit the window.
    """
    limit = subject.decoder.config.max_seq_len
    rows: dict[tuple[int, Ids], _Row] = {}
    truncated: list[bool] = []
    for number, (context, continuation) in enumerate(pairs):
        _check(context, continuation, limit)
        whole = (*context, *continuation)[-(limit + 1) :]
        truncated.append(len(whole) < len(context) + len(continuation))
        kept = len(whole) - len(continuation)
        prefix = max(0, min(kept - 1, limit - FEWEST_ROWS)) // PREFIX_STEP * PREFIX_STEP
        prefix = prefix if prefix >= SHORTEST_PREFIX else 0
        row = rows.setdefault((prefix, whole[:-1]), _Row(whole[:-1], prefix, []))
        row.asked.append((number, continuation))
    logprobs: list[tuple[float, ...]] = [()] * len(pairs)
    hits: list[tuple[bool, ...]] = [()] * len(pairs)
    for batch, padded in _batches(list(rows.values()), limit, subject.batch_tokens):
        for number, found, hit in _run(subject.decoder, batch, padded):
            logprobs[number], hits[number] = found, hit
    sizes = n_bytes if n_bytes is not None else [0] * len(pairs)
    return [Likelihood(*each) for each in zip(logprobs, hits, sizes, truncated, strict=True)]


def _check(context: Ids, continuation: Ids, limit: int) -> None:
    if not context or not continuation:
        raise DataError("a context or continuation without tokens cannot be scored")
    if len(continuation) > limit:
        raise DataError(
            f"a continuation of {len(continuation)} tokens does not fit the model's window of "
            f"{limit}",
            fix="Score it as a document, in rolling windows (`loglikelihood_rolling`)",
        )


def _batches(rows: list[_Row], limit: int, batch_tokens: int) -> Iterator[tuple[list[_Row], int]]:
    """Rows of one shape, with the length their suffixes are padded to."""

    def shape(row: _Row) -> tuple[int, int]:
        padded = -(-row.suffix // SUFFIX_STEP) * SUFFIX_STEP
        return row.prefix, min(padded, limit - row.prefix)

    # Sorted by their ids too, so that rows with one prefix come together.
    ordered = sorted(rows, key=lambda row: (*shape(row), row.ids))
    start = 0
    while start < len(ordered):
        here = shape(ordered[start])
        most = max(1, batch_tokens // sum(here))
        stop = start
        while stop < len(ordered) and stop - start < most and shape(ordered[stop]) == here:
            stop += 1
        yield ordered[start:stop], here[1]
        start = stop


@torch.no_grad()
def _run(
    decoder: Decoder, rows: list[_Row], padded: int
) -> Iterator[tuple[int, tuple[float, ...], tuple[bool, ...]]]:
    """(request, log-probabilities, hits) of all who ask about these rows."""
    device, prefix = decoder.embed_tokens.weight.device, rows[0].prefix
    computed = _whole_tiles(decoder, rows, padded)
    cache: RowCache | None = None
    if prefix:
        owners = {ids: i for i, ids in enumerate(dict.fromkeys(r.ids[:prefix] for r in rows))}
        remembered = _whole_tiles(decoder, list(owners), prefix)
        cache = RowCache(decoder.config.n_layers)
        remember(decoder, torch.tensor(remembered, device=device), cache)
        chosen = [owners[row.ids[:prefix]] for row in computed]
        if chosen != list(range(len(remembered))):
            cache.select(chosen)
    filled = [[*row.ids[prefix:], *[0] * (padded - row.suffix)] for row in computed]
    x_BTD = decoder.hidden(torch.tensor(filled, device=device), cache=cache)
    # One place in the stream for each token asked about; a row is asked about its last ones.
    places: list[tuple[int, int, int]] = []
    spans: list[tuple[int, int, int]] = []
    for line, row in enumerate(rows):
        for number, continuation in row.asked:
            first = row.suffix - len(continuation)
            spans.append((number, len(places), len(places) + len(continuation)))
            places += [(line, first + i, token) for i, token in enumerate(continuation)]
    logprobs, hits = _token_scores(decoder, x_BTD, places)
    for number, start, stop in spans:
        yield number, tuple(logprobs[start:stop]), tuple(hits[start:stop])


def _whole_tiles(decoder: Decoder, rows: list[T], length: int) -> list[T]:
    """These and the last again, until their tokens are whole tiles, where a weight is so narrow
    that other numbers of tokens are multiplied in another way (`native/tiles.py`), whose last
    bits are others."""
    config = decoder.config
    narrowest = config.d_model * min(config.n_kv_heads * config.head_dim, config.d_ff)
    step = TILE_ROWS // math.gcd(TILE_ROWS, length) if narrowest <= NARROW else 1
    return rows + [rows[-1]] * (-len(rows) % step)


def _token_scores(
    decoder: Decoder, x_BTD: Tensor, places: Sequence[tuple[int, int, int]]
) -> tuple[list[float], list[bool]]:
    """Log-probability of each (row, time, token), and whether it is the likeliest."""
    logprobs: list[float] = []
    hits: list[bool] = []
    for start in range(0, len(places), LOGIT_ROWS):
        part = list(places[start : start + LOGIT_ROWS])
        part += [part[0]] * (-len(part) % FEWEST_ROWS)
        row_N, time_N, token_N = torch.tensor(part, device=x_BTD.device).unbind(1)
        logits_NV: Tensor = decoder.lm_head(x_BTD[row_N, time_N]).float()
        found_N = logits_NV.gather(-1, token_N[:, None])[:, 0] - logits_NV.logsumexp(-1)
        logprobs += found_N.tolist()
        hits += (logits_NV.argmax(-1) == token_N).tolist()
    return logprobs[: len(places)], hits[: len(places)]
