"""Continuing token ids with a decoder, and `Model`: a decoder with its tokenizer, for one user.

Not for serving many requests at once (`serving`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol

import torch
from torch import Tensor

from isoflop.core.errors import RecipeError
from isoflop.models.decoder import Decoder
from isoflop.models.layers import KVCache


def generate(
    decoder: Decoder,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    stop_ids: Iterable[int] = (),
) -> list[int]:
    """The new ids that continue a prompt; those of the prompt are not repeated.

    The decoder sees at most `max_seq_len` tokens: the last ones of a longer prompt. Once they
    are full, it starts over from the last half, so that a long text costs one reading of half a
    window for every half window written. A shorter prompt and text are thus never cut.

    Args:
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Sample among this many likeliest tokens only.
        top_p: Sample among the fewest likeliest tokens that hold this much probability
            (nucleus sampling, Holtzman et al. 2020); after `top_k`.
        seed: Fixes the samples.
        stop_ids: Ids that end the text; the one that did is the last id returned.

    Raises:
        RecipeError: The prompt is empty or holds ids beyond the vocabulary, or an option is out
            of its range.
    """
    stop = set(stop_ids)
    new_ids: list[int] = []
    stream = _stream(decoder, prompt_ids, temperature, top_k, top_p, seed)
    for index in islice(stream, max_new_tokens):
        new_ids.append(index)
        if index in stop:
            break
    return new_ids


def choose(
    logits_V: Tensor, temperature: float, top_k: int | None, top_p: float | None, uniform: float
) -> int:
    """The next id: the likeliest, or the one a uniform number in [0, 1) falls on.

    Args:
        logits_V: (V,) next-token logits.
    """
    if temperature == 0:
        return int(logits_V.argmax())
    # float64: float32 sums over a large vocabulary miss 1 by enough to favour the last token.
    sorted_V = (logits_V.double() / temperature).softmax(-1).sort(descending=True, stable=True)
    probability = sorted_V.values[:top_k]
    if top_p is not None:
        before = probability.cumsum(-1) - probability
        probability = probability[before < top_p * probability.sum()]
    total = probability.cumsum(-1)
    place = int(torch.searchsorted(total, uniform * total[-1], right=True))
    return int(sorted_V.indices[min(place, len(total) - 1)])


def _stream(
    decoder: Decoder,
    prompt_ids: Sequence[int],
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
) -> Iterator[int]:
    """New ids without end."""
    _check(decoder, prompt_ids, temperature, top_k, top_p)
    draw = torch.Generator().manual_seed(seed)
    limit = decoder.config.max_seq_len
    seen = list(prompt_ids[-limit:])
    cache = KVCache(decoder.config.n_layers)
    logits_V = _next_logits(decoder, seen, cache)
    while True:
        uniform = float(torch.rand((), generator=draw, dtype=torch.float64))
        index = choose(logits_V, temperature, top_k, top_p, uniform)
        yield index
        seen.append(index)
        if len(seen) <= limit:
            logits_V = _next_logits(decoder, seen[-1:], cache)
        else:
            seen = seen[-max(1, limit // 2) :]
            cache = KVCache(decoder.config.n_layers)
            logits_V = _next_logits(decoder, seen, cache)


@torch.no_grad()
def _next_logits(decoder: Decoder, ids: Sequence[int], cache: KVCache) -> Tensor:
    """(V,) logits after the last of `ids`, which are added to the cache."""
    x_1TD = decoder.hidden(torch.tensor([ids], device=_device(decoder)), cache=cache)
    logits_V: Tensor = decoder.lm_head(x_1TD[0, -1])
    return logits_V


def _check(
    decoder: Decoder,
    prompt_ids: Sequence[int],
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> None:
    problems = []
    if not prompt_ids:
        problems.append("the prompt is empty: there is no token to continue")
    if any(not 0 <= index < decoder.config.vocab_size for index in prompt_ids):
        problems.append(f"the prompt holds ids outside 0 … {decoder.config.vocab_size - 1}")
    if not 0 <= temperature < float("inf"):
        problems.append(f"temperature = {temperature} must be at least 0")
    if top_k is not None and top_k < 1:
        problems.append(f"top_k = {top_k} must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        problems.append(f"top_p = {top_p} must be above 0 and at most 1")
    if problems:
        raise RecipeError("; ".join(problems), where="generation")


def _device(decoder: Decoder) -> torch.device:
    return decoder.embed_tokens.weight.device


# --- a decoder and its tokenizer -----------------------------------------------------------


class TextCodec(Protocol):
    """What a model needs of a tokenizer (`data/tokenizer.py` has one)."""

    @property
    def eos_id(self) -> int:
        """The id that ends a document."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text; nothing in it is a special token."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; special tokens contribute none."""


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after a prompt."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    """The new ids, with the end of the document if it was written."""
    text: str
    """The new text, up to a stop string, which is left out."""
    finish: Literal["end", "stop", "length"]
    """Why it ends: the document did, a stop string came, or `max_new_tokens` were written."""


@dataclass(frozen=True)
class Model:
    """A language model to ask; `isoflop.load` opens one."""

    decoder: Decoder
    tokenizer: TextCodec

    def logits(self, ids: Sequence[int]) -> Tensor:
        """(T, V) next-token logits after each of T ids.

        Raises:
            RecipeError: There are no ids, or more than `max_seq_len`, or unknown ones.
        """
        _check(self.decoder, ids, 0.0, None, None)
        limit = self.decoder.config.max_seq_len
        if len(ids) > limit:
            raise RecipeError(
                f"{len(ids)} tokens do not fit the model's context of {limit}",
                fix="Give it a shorter text, or cut this one",
            )
        with torch.no_grad():
            out: Tensor = self.decoder(torch.tensor([list(ids)], device=_device(self.decoder)))
        return out[0]

    def logprobs(self, text: str | Sequence[int]) -> Tensor:
        """(T − 1,) natural log-probability of each token but the first, given those before it.

        Raises:
            RecipeError: As `logits`.
        """
        ids = self._ids(text)
        logprobs_TV = self.logits(ids).log_softmax(-1)
        following_T = torch.tensor(ids[1:], dtype=torch.long, device=logprobs_TV.device)
        return logprobs_TV[:-1].gather(-1, following_T[:, None])[:, 0]

    def generate(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 128,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        on_text: Callable[[str], None] | None = None,
    ) -> Continuation:
        """Continue a prompt until the document ends, a stop string comes, or the limit.

        Args:
            stop: Strings that end the text.
            on_text: Called with all the text so far after each token.

        Others as in the function `generate`.

        Raises:
            RecipeError: As the function `generate`.
        """
        prompt_ids = self._ids(prompt)
        ids: list[int] = []
        text = ""
        finish: Literal["end", "stop", "length"] = "length"
        stream = _stream(self.decoder, prompt_ids, temperature, top_k, top_p, seed)
        for _ in range(max_new_tokens):
            ids.append(next(stream))
            if ids[-1] == self.tokenizer.eos_id:
                finish = "end"
                break
            text, stopped = _cut(self.tokenizer.decode(ids), stop)
            if on_text is not None:
                on_text(text)
            if stopped:
                finish = "stop"
                break
        return Continuation(tuple(prompt_ids), tuple(ids), text, finish)

    def _ids(self, text: str | Sequence[int]) -> list[int]:
        return self.tokenizer.encode(text) if isinstance(text, str) else list(text)


def _cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the earliest stop string, and whether there was one."""
    places = [text.index(s) for s in stop if s in text]
    return (text[: min(places)], True) if places else (text, False)
