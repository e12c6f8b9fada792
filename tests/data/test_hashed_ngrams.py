from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.data.hashed_ngrams import MAX_CHARACTERS, hashed_ngrams

MASK = (1 << 64) - 1
PINNED = [
    112966,
    258946,
    489760,
    529794,
    540782,
    605779,
    672508,
    791604,
    801184,
    832287,
    841212,
    970470,
]


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def token(characters: str) -> int:
    powers = [pow(0x9E3779B97F4A7C15, i % 64 + 1, 1 << 64) for i in range(len(characters))]
    return mix(sum(ord(c) * p for c, p in zip(characters, powers, strict=True)) & MASK)


def pair(a: int, b: int) -> int:
    return mix((0xD1342543DE82EF95 * a + b) & MASK)


def expected(tokens: list[str], triples: list[tuple[str, str, str]], bits: int) -> dict[int, float]:
    """The features of these tokens and triples, straight from the module's first lines."""
    numbers = [token(t) for t in tokens]
    numbers += [pair(token(a), token(b)) for a, b in pairwise(tokens)]
    numbers += [pair(pair(token(a), token(b)), token(c)) for a, b, c in triples]
    counts = Counter(number >> (64 - bits) for number in numbers)
    values = {bucket: 1 + math.log(n) for bucket, n in counts.items()}
    length = math.sqrt(sum(v * v for v in values.values()))
    return {bucket: v / length for bucket, v in sorted(values.items())}


@pytest.mark.parametrize(
    ("text", "tokens", "triples"),
    [
        ("Hello, hello world!", ["hello", ",", "hello", "world", "!"], []),
        ("ÀÉ Ωμέγα ПРИВЕТ x2", ["àé", "ωμέγα", "привет", "x2"], []),
        (
            "我爱 北京ab",
            ["我", "爱", "北", "京", "ab"],
            [("我", "爱", "北"), ("爱", "北", "京")],
        ),
        ("한국。😀", ["한", "국", "。", "😀"], []),
        ("𠀀𠀁𠀂", ["𠀀", "𠀁", "𠀂"], [("𠀀", "𠀁", "𠀂")]),
        ("a" * 150, ["a" * 150], []),
        ("\x00 \u3000\ud800\n", [], []),
    ],
)
def test_features_are_those_the_documentation_spells_out(
    text: str, tokens: list[str], triples: list[tuple[str, str, str]]
) -> None:
    buckets, values = hashed_ngrams(text, 20)
    wanted = expected(tokens, triples, 20)
    assert buckets.tolist() == list(wanted)
    assert values.tolist() == pytest.approx(list(wanted.values()), abs=1e-15)


def test_the_numbers_never_change() -> None:
    # Weights on disk belong to these numbers: a change would need a new version of the features.
    buckets, _ = hashed_ngrams("Good text. 好文章", 20)
    assert buckets.tolist() == PINNED


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.integers(1, 31))
def test_any_text_has_features_of_length_one_or_none(text: str, bits: int) -> None:
    buckets, values = hashed_ngrams(text, bits)
    assert (np.diff(buckets) > 0).all()
    assert buckets.size == 0 or (buckets[0] >= 0 and buckets[-1] < 1 << bits)
    assert values @ values == pytest.approx(1.0 if buckets.size else 0.0)
    assert not (values < 0).any()


def test_a_very_long_document_is_judged_by_its_beginning() -> None:
    start = "word " * (MAX_CHARACTERS // 5)
    np.testing.assert_array_equal(hashed_ngrams(start, 20)[0], hashed_ngrams(start + "end", 20)[0])
