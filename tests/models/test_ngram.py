from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.core.errors import ArtifactError, DataError, RecipeError
from isoflop.models.ngram import NGram, load, save, train
from isoflop.models.ngram_smoothing import FALLBACK_DISCOUNTS, Smoothing

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
METHODS = get_args(Smoothing)
START = -1
Gram = tuple[int, ...]


class Reference:
    """The three methods straight from their definitions, with dictionaries, one word at a time."""

    def __init__(self, documents: list[list[int]], vocab: int, order: int, k: float) -> None:
        self.vocab, self.order, self.k = vocab, order, k
        self.raw: list[Counter[Gram]] = [Counter() for _ in range(order + 2)]
        for document in documents:
            padded = [START, *document]
            for n in range(1, order + 2):
                self.raw[n].update(tuple(padded[i : i + n]) for i in range(len(padded) - n + 1))
        del self.raw[1][(START,)]
        self.continuation: list[Counter[Gram]] = [Counter() for _ in range(order + 1)]
        for n in range(1, order + 1):
            self.continuation[n] = Counter(gram[1:] for gram in self.raw[n + 1])
            for gram, times in self.raw[n].items():
                if n == order or gram[0] == START:
                    self.continuation[n][gram] = times

    def kneser_ney(self, context: Gram, word: int) -> float:
        n = len(context) + 1
        counts = self.continuation[n]
        lower = 1 / self.vocab if n == 1 else self.kneser_ney(context[1:], word)
        own = {g[-1]: c for g, c in counts.items() if g[:-1] == context}
        if not own:
            return lower
        d = self.discounts(counts)
        total = sum(own.values())
        left = sum(d[min(c, 3) - 1] for c in own.values()) / total
        count = own.get(word, 0)
        return (count - (d[min(count, 3) - 1] if count else 0)) / total + left * lower

    @staticmethod
    def discounts(counts: Counter[Gram]) -> tuple[float, ...]:
        n = [0, *(sum(c == r for c in counts.values()) for r in (1, 2, 3, 4))]
        if 0 in n[1:4]:
            return FALLBACK_DISCOUNTS
        y = n[1] / (n[1] + 2 * n[2])
        d = tuple(r - (r + 1) * y * n[r + 1] / n[r] for r in (1, 2, 3))
        return d if all(0 < x <= r for r, x in enumerate(d, 1)) else FALLBACK_DISCOUNTS

    def katz(self, context: Gram, word: int) -> float:
        n = len(context) + 1
        counts = self.raw[n]

        def lower(w: int) -> float:
            return 1 / self.vocab if n == 1 else self.katz(context[1:], w)

        own = {g[-1]: c for g, c in counts.items() if g[:-1] == context}
        if not own:
            return lower(word)
        d = self.turing(counts)
        kept = {w: c * (d[c - 1] if c <= 5 else 1.0) for w, c in own.items()}
        total = float(sum(own.values()))
        if len(own) == self.vocab:
            total = sum(kept.values())
        elif all(math.isclose(kept[w], own[w]) for w in own):
            total += 1
        if word in own:
            return kept[word] / total
        left = 1 - sum(kept.values()) / total
        return left * lower(word) / (1 - sum(lower(w) for w in own))

    @staticmethod
    def turing(counts: Counter[Gram]) -> list[float]:
        n = [sum(c == r for c in counts.values()) for r in range(8)]
        common = 6 * n[6] / n[1] if n[1] else 1.0
        factors = []
        for r in range(1, 6):
            d = 1.0
            if n[1] and n[r] and common < 1:
                d = ((r + 1) * n[r + 1] / (r * n[r]) - common) / (1 - common)
            factors.append(d if 0 < d <= 1 else 1.0)
        return factors

    def add_k(self, context: Gram, word: int) -> float:
        if len(context) < self.order - 1:
            return 1 / self.vocab
        counts = self.raw[self.order]
        total = sum(c for g, c in counts.items() if g[:-1] == context)
        return (counts[(*context, word)] + self.k) / (total + self.k * self.vocab)

    def logprobs(self, method: str, document: list[int]) -> list[float]:
        ask = {"kneser-ney": self.kneser_ney, "katz": self.katz, "add-k": self.add_k}[method]
        padded = [START, *document]
        return [
            math.log(ask(tuple(padded[max(0, i - self.order + 1) : i]), padded[i]))
            for i in range(1, len(padded))
        ]


def zipf(seed: int, vocab: int, size: int) -> list[int]:
    """Words as uneven as those of a language, each leaning on the one before."""
    rng = np.random.default_rng(seed)
    words = [0]
    for _ in range(size - 1):
        drawn = int(vocab * rng.random() ** 3)
        words.append((drawn + words[-1]) % vocab if rng.random() < 0.5 else drawn)
    return words


def joined(documents: list[list[int]]) -> tuple[list[int], list[int]]:
    starts = [0]
    for document in documents:
        starts.append(starts[-1] + len(document))
    return [word for document in documents for word in document], starts


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_every_probability_equals_that_of_the_definition(method: Smoothing, order: int) -> None:
    documents = [zipf(1, 17, 200), zipf(2, 17, 60), [3], zipf(3, 17, 90)]
    ids, starts = joined(documents)
    model = train(ids, 19, order, smoothing=method, starts=starts, add_k=0.3)
    reference = Reference(documents, 19, order, 0.3)
    asked = [zipf(4, 19, 80), zipf(1, 17, 30), [18]]
    test_ids, test_starts = joined(asked)
    expected = [p for document in asked for p in reference.logprobs(method, document)]
    found = model.logprobs(test_ids, test_starts)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(0, 5), max_size=12), min_size=1, max_size=6),
    context=st.lists(st.integers(0, 6), max_size=6),
    order=st.integers(1, 5),
    method=st.sampled_from(METHODS),
)
def test_the_probabilities_of_all_words_sum_to_one_in_any_context(
    documents: list[list[int]], context: list[int], order: int, method: Smoothing
) -> None:
    ids, starts = joined([*documents, [0]])
    model = train(ids, 7, order, smoothing=method, starts=starts)
    shares = model.distribution(context)
    assert shares.shape == (7,)
    assert (shares > 0).all()
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    # The same numbers as word by word.
    asked = [model.logprobs([*context, word])[-1] for word in range(7)]
    np.testing.assert_allclose(np.log(shares), asked, atol=1e-12)


def test_perplexity_and_bits_per_byte_are_means_of_the_log_probabilities() -> None:
    model = train(zipf(0, 30, 500), 30, 3)
    test = zipf(9, 30, 100)
    mean = float(model.logprobs(test).mean())
    assert model.perplexity(test) == pytest.approx(math.exp(-mean))
    assert model.bits_per_byte(test, 250) == pytest.approx(-mean / math.log(2) * 100 / 250)
    with pytest.raises(DataError, match="at least one byte"):
        model.bits_per_byte(test, 0)


def test_nothing_is_foretold_across_the_border_of_two_documents() -> None:
    first, second = zipf(1, 9, 40), zipf(2, 9, 30)
    model = train(zipf(0, 9, 300), 9, 4)
    both = model.logprobs(first + second, [0, 40, 70])
    np.testing.assert_array_equal(both, [*model.logprobs(first), *model.logprobs(second)])


def test_samples_follow_the_distribution_and_the_seed() -> None:
    model = train([0, 1, 2] * 50 + [0, 2], 3, 2)
    drawn = [model.sample(1, seed, [0])[0] for seed in range(2000)]
    shares = np.bincount(drawn, minlength=3) / 2000
    np.testing.assert_allclose(shares, model.distribution([0]), atol=0.04)
    assert model.sample(20, 5) == model.sample(20, 5) != model.sample(20, 6)
    assert len(model.sample(20, 5)) == 20
    assert model.sample(50, 1, stop=2)[-1] == 2


@pytest.mark.parametrize("method", METHODS)
def test_a_model_comes_back_from_disk_as_it_was(tmp_path: Path, method: Smoothing) -> None:
    model = train(zipf(0, 12, 300), 12, 3, smoothing=method)
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    save(model, tmp_path / "model", tokenizer, files={"cutoffs.json": {"all": [1.0]}})
    again = load(tmp_path / "model", verify=True)
    test = zipf(5, 12, 100)
    np.testing.assert_array_equal(again.logprobs(test), model.logprobs(test))
    assert (again.order, again.vocab_size, again.discounts) == (3, 12, model.discounts)
    assert isinstance(again.keys[0].base, np.memmap)
    assert (tmp_path / "model" / "tokenizer" / "tokenizer.json").read_text() == "{}"
    assert json.loads((tmp_path / "model" / "cutoffs.json").read_text()) == {"all": [1.0]}


@pytest.mark.parametrize("harm", ["missing", "cut", "config", "swapped"])
def test_a_damaged_model_is_refused_by_name(tmp_path: Path, harm: str) -> None:
    save(train(zipf(0, 12, 300), 12, 3), tmp_path / "m")
    keys = tmp_path / "m" / "keys_3.npy"
    if harm == "missing":
        keys.unlink()
    elif harm == "cut":
        keys.write_bytes(keys.read_bytes()[:-8])
    elif harm == "swapped":
        keys.write_bytes((tmp_path / "m" / "keys_2.npy").read_bytes())
    else:
        (tmp_path / "m" / "config.json").write_text('{"order": 3}')
    with pytest.raises(ArtifactError, match="config.json" if harm == "config" else "keys_3"):
        load(tmp_path / "m")


def test_an_impossible_request_is_refused() -> None:
    with pytest.raises(RecipeError, match="between 1 and 5, not be 6"):
        train([0, 1], 2, 6)
    with pytest.raises(RecipeError, match="must be positive"):
        train([0, 1], 2, 2, smoothing="add-k", add_k=0)
    model = train([0, 1], 2, 2)
    with pytest.raises(DataError, match="outside a vocabulary of 2"):
        model.distribution([2])
    with pytest.raises(DataError, match="vocabulary of 2"):
        model.logprobs([0, 2])


def wikitext(part: str) -> list[str]:
    path = SHARED / "data" / "wikitext-2" / f"{part}.txt"
    if not path.exists():
        pytest.skip("WikiText-2 is not here")
    lines = path.read_text("utf-8").split("\n")
    return [word for line in lines for word in (*line.split(), "<eos>")]


def test_on_wikitext_kneser_ney_gains_with_every_order_and_beats_the_others() -> None:
    trained, asked = wikitext("valid"), wikitext("test")
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(["<unk>", *trained]))}
    ids = [vocabulary[word] for word in trained]
    test = [vocabulary.get(word, 0) for word in asked]

    def model(order: int, method: Smoothing) -> NGram:
        return train(ids, len(vocabulary), order, smoothing=method)

    found = {
        (method, order): model(order, method).perplexity(test)
        for method in METHODS
        for order in (1, 2, 3)
    }
    best = [found["kneser-ney", order] for order in (1, 2, 3)]
    assert best == sorted(best, reverse=True)
    for order in (2, 3):
        assert best[order - 1] < found["katz", order] < found["add-k", order]
    # Measured once, so that a change of the formulas is noticed.
    assert best == pytest.approx([557.03, 245.05, 231.39], abs=0.01)
