"""n-gram language models over token ids: training, probabilities, sampling, on disk and back.

The historic baseline, and the judge of the perplexity filter. Needs numpy alone; not for text,
which a tokenizer turns into ids.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoflop.core.artifact import (
    build_directory,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from isoflop.core.errors import ArtifactError, DataError, RecipeError
from isoflop.core.hardware import machine
from isoflop.models.ngram_counts import count, with_starts
from isoflop.models.ngram_smoothing import Smoothing, estimate

HIGHEST_ORDER = 5
TOKENIZER = "tokenizer"
"""The folder of a model in which its tokenizer lies, if it has one."""
_CONFIG = "config.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NGram:
    """A trained model of order N over V words; its arrays may lie on disk."""

    vocab_size: int
    smoothing: Smoothing
    discounts: tuple[tuple[float, ...], ...]
    """Of every level; see `ngram_smoothing.estimate`."""
    tokens: int
    """How many it was trained on."""
    keys: tuple[NDArray[np.int64], ...] = field(repr=False)
    """Of levels 2 … N; see `ngram_counts.Level`."""
    log_probabilities: tuple[Floats, ...] = field(repr=False)
    """Of the n-grams of levels 1 … N, in nats."""
    log_backoffs: tuple[Floats, ...] = field(repr=False)
    """Of the n-grams of levels 1 … N − 1 as contexts, in nats."""

    @property
    def order(self) -> int:
        """N, the longest n-gram it knows."""
        return len(self.log_probabilities)

    @property
    def n_grams(self) -> tuple[int, ...]:
        """How many n-grams of each length it knows; the first number is V."""
        return (self.vocab_size, *(keys.size for keys in self.keys))

    def logprobs(self, ids: ArrayLike, starts: ArrayLike | None = None) -> Floats:
        """(T,) log probability in nats of each token after those before it in its document.

        Args:
            ids: (T,) tokens.
            starts: (documents + 1,) where documents begin, ending with T; one document if omitted.

        Raises:
            DataError: There is no token, an id is out of range, or `starts` does not ascend to T.
        """
        edges = (0, np.size(ids)) if starts is None else starts
        stream = with_starts(ids, edges, self.vocab_size)
        found: Floats = self.log_probabilities[0][stream]
        context = stream  # the (n − 1)-gram that ends at each place, −1 where it was never seen
        for n in range(2, self.order + 1):
            keys, log_probabilities = self.keys[n - 2], self.log_probabilities[n - 1]
            known = np.flatnonzero(context[:-1] >= 0)
            if known.size == 0:
                break
            before = context[known]
            here = known + 1
            found[here] += self.log_backoffs[n - 2][before]
            place, seen = _find(keys, before * (self.vocab_size + 1) + stream[here])
            context = np.full(stream.size, -1, np.int64)
            context[here[seen]] = place
            found[here[seen]] = log_probabilities[place]
        of_words: Floats = found[stream != self.vocab_size]
        return of_words

    def distribution(self, context: Sequence[int] = ()) -> Floats:
        """(V,) probability of every word after `context`.

        Args:
            context: All tokens of the document so far; the start of a document if empty.

        Raises:
            DataError: An id is out of range.
        """
        n_tokens = self.vocab_size + 1
        words = [self.vocab_size, *context]
        if any(not 0 <= word < self.vocab_size for word in words[1:]):
            raise DataError(f"the context holds ids outside a vocabulary of {self.vocab_size}")
        probabilities: Floats = np.exp(self.log_probabilities[0])
        for n in range(2, min(self.order, len(words) + 1) + 1):
            place = self._place(words[len(words) - (n - 1) :])
            if place < 0:
                break
            keys = self.keys[n - 2]
            low, high = np.searchsorted(keys, [place * n_tokens, (place + 1) * n_tokens])
            probabilities *= np.exp(self.log_backoffs[n - 2][place])
            following = keys[low:high] - place * n_tokens
            probabilities[following] = np.exp(self.log_probabilities[n - 1][low:high])
        return probabilities[:-1]

    def _place(self, words: Sequence[int]) -> int:
        """Where an n-gram stands in its level; −1 if it was never seen."""
        place = words[0]
        for keys, word in zip(self.keys, words[1:], strict=False):
            key = place * (self.vocab_size + 1) + word
            place = int(np.searchsorted(keys, key))
            if place == keys.size or keys[place] != key:
                return -1
        return place

    def perplexity(self, ids: ArrayLike, starts: ArrayLike | None = None) -> float:
        """exp of the mean negative log probability of the tokens; see `logprobs`."""
        return math.exp(-float(self.logprobs(ids, starts).mean()))

    def bits_per_byte(self, ids: ArrayLike, n_bytes: int, starts: ArrayLike | None = None) -> float:
        """Bits of code that a byte of text takes, where the tokens stand for `n_bytes` bytes."""
        if n_bytes <= 0:
            raise DataError(f"the tokens must stand for at least one byte, not {n_bytes}")
        return -float(self.logprobs(ids, starts).sum()) / math.log(2) / n_bytes

    def sample(
        self, n_tokens: int, seed: int, context: Sequence[int] = (), stop: int | None = None
    ) -> tuple[int, ...]:
        """Draw tokens one after the other.

        Args:
            n_tokens: At most so many.
            context: What stands before; it is not returned.
            stop: A token after which to stop, such as the end of text; it is returned.
        """
        chance = np.random.Generator(np.random.Philox(seed))
        words = list(context)
        for _ in range(n_tokens):
            upto = np.cumsum(self.distribution(words))
            drawn = np.searchsorted(upto, chance.random() * upto[-1], side="right")
            words.append(int(min(drawn, self.vocab_size - 1)))
            if words[-1] == stop:
                break
        return tuple(words[len(context) :])


def _find(
    keys: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The places of those wanted keys that are there, and (len(wanted),) which are."""
    # Ascending needles let each search begin where the last one ended, in memory still warm.
    order = np.argsort(wanted)
    place = np.empty(wanted.size, np.int64)
    place[order] = np.searchsorted(keys, wanted[order])
    seen = place < keys.size
    seen[seen] = keys[place[seen]] == wanted[seen]
    return place[seen], seen


def train(
    ids: ArrayLike,
    vocab_size: int,
    order: int = HIGHEST_ORDER,
    *,
    smoothing: Smoothing = "kneser-ney",
    starts: ArrayLike | None = None,
    add_k: float = 0.01,
) -> NGram:
    """Train an n-gram model.

    Args:
        ids: (T,) tokens, documents one after the other.
        vocab_size: V; tokens that never occur get their share of probability too.
        order: Length of the longest n-grams, 1 to 5.
        smoothing: `kneser-ney`: interpolated modified Kneser-Ney (Chen & Goodman 1998); `katz`:
            back-off with Good-Turing discounts (Katz 1987); `add-k`: a control.
        starts: (documents + 1,) where documents begin, ending with T; one document if omitted.
        add_k: What `add-k` adds to every count.

    Raises:
        RecipeError: The order or `add_k` is out of range.
        DataError: There is no token, an id is out of range, or the n-grams do not fit in 64 bits.
    """
    if not 1 <= order <= HIGHEST_ORDER:
        raise RecipeError(f"the order must lie between 1 and {HIGHEST_ORDER}, not be {order}")
    if not add_k > 0:
        raise RecipeError(f"what is added to every count must be positive, not {add_k}")
    if np.size(ids) * (vocab_size + 1) >= 1 << 63:
        raise DataError("so many tokens of so large a vocabulary cannot be numbered in 64 bits")
    edges = (0, np.size(ids)) if starts is None else starts
    levels = count(ids, edges, vocab_size, order)
    estimates, discounts = estimate(levels, smoothing, add_k)
    with np.errstate(divide="ignore"):  # the start symbol has probability 0, and log 0 is meant
        return NGram(
            vocab_size,
            smoothing,
            discounts,
            int(np.size(ids)),
            tuple(level.keys for level in levels[1:]),
            tuple(np.log(e.probabilities) for e in estimates),
            tuple(np.log(e.backoffs) for e in estimates[:-1]),
        )


# --- on disk -------------------------------------------------------------------------------


def save(
    model: NGram,
    out: Path,
    tokenizer: Path | None = None,
    *,
    inputs: Sequence[Path] = (),
    files: dict[str, Any] | None = None,
) -> None:
    """Write a model directory, whole or not at all, replacing an older one.

    Args:
        tokenizer: Directory of the tokenizer that made the ids; a copy travels with the model.
        inputs: What the model was made from, for its manifest.
        files: Further JSON files, by name, that belong to it.

    Raises:
        ArtifactError: `out` holds something else.
    """
    config = {
        "vocab_size": model.vocab_size,
        "order": model.order,
        "smoothing": model.smoothing,
        "discounts": [list(d) for d in model.discounts],
        "tokens": model.tokens,
        "n_grams": list(model.n_grams),
    }
    with build_directory(out) as aside:
        write_json(aside / _CONFIG, config)
        for name, value in (files or {}).items():
            write_json(aside / name, value)
        for name, array in _arrays(model).items():
            np.save(aside / name, array)
        if tokenizer is not None:
            (aside / TOKENIZER).mkdir()
            for name in _TOKENIZER_FILES:
                if (tokenizer / name).exists():
                    shutil.copyfile(tokenizer / name, aside / TOKENIZER / name)
        write_manifest(aside, kind="ngram", config=config, machine=machine(), inputs=inputs)


def load(directory: Path, *, verify: bool = False) -> NGram:
    """Open a model; its arrays stay on disk and are mapped into memory.

    Args:
        verify: Also hash every file.

    Raises:
        ArtifactError: It is missing, unfinished, damaged, or not an n-gram model.
    """
    read_manifest(directory, "ngram", verify=verify)
    config = read_json(directory / _CONFIG)
    try:
        order, vocab_size = int(config["order"]), int(config["vocab_size"])
        smoothing: Smoothing = config["smoothing"]
        discounts = tuple(tuple(map(float, level)) for level in config["discounts"])
        n_grams, tokens = [int(n) for n in config["n_grams"]], int(config["tokens"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(directory / _CONFIG, repr(error)) from None
    if not 1 <= order <= HIGHEST_ORDER or smoothing not in get_args(Smoothing):
        raise _damaged(directory / _CONFIG, f"order {order}, smoothing {smoothing}")
    sizes = [vocab_size + 1, *n_grams[1:]]

    def array(name: str, number: int, dtype: type[Any]) -> NDArray[Any]:
        path = directory / f"{name}_{number + 1}.npy"
        try:
            loaded: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(path, str(error)) from None
        if loaded.shape != (sizes[number],) or loaded.dtype != dtype:
            raise _damaged(path, f"{loaded.shape} of {loaded.dtype}, not ({sizes[number]},)")
        # A plain view of the mapped memory: numpy's own class for it costs a microsecond a step.
        return loaded.view(np.ndarray)

    return NGram(
        vocab_size,
        smoothing,
        discounts,
        tokens,
        tuple(array("keys", n, np.int64) for n in range(1, order)),
        tuple(array("log_probabilities", n, np.float64) for n in range(order)),
        tuple(array("log_backoffs", n, np.float64) for n in range(order - 1)),
    )


def _arrays(model: NGram) -> dict[str, NDArray[Any]]:
    named: dict[str, NDArray[Any]] = {}
    for n, keys in enumerate(model.keys, 2):
        named[f"keys_{n}.npy"] = keys
    for n, values in enumerate(model.log_probabilities, 1):
        named[f"log_probabilities_{n}.npy"] = values
    for n, values in enumerate(model.log_backoffs, 1):
        named[f"log_backoffs_{n}.npy"] = values
    return named


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(
        f"the n-gram model is damaged: {what}", where=str(path), fix="Train it again"
    )
