"""Clusters against every pair compared by plain sets, and components against scipy's."""

from __future__ import annotations

import random
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from isoflop.data.minhash import signatures
from isoflop.data.near_duplicates import (
    Components,
    ShingleSets,
    confirmed_clusters,
    equal_pairs,
    members,
    near_clusters,
)
from isoflop.data.shingles import shingle_sets

EDGES = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=40)


@settings(deadline=None)
@given(first=EDGES, second=EDGES)
def test_components_are_those_of_scipy(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    components = Components(20)
    for batch in (first, second):
        a, b = np.array(batch, np.int64).reshape(-1, 2).T
        components.join(a, b)
    labels = components.labels()
    edges = np.array(first + second, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(edges.shape[1]), tuple(edges)), shape=(20, 20))
    _, expected = connected_components(graph, directed=False)
    least = [int(np.flatnonzero(expected == label)[0]) for label in expected]
    assert labels.tolist() == least


@settings(deadline=None)
@given(keys=st.lists(st.integers(0, 5), max_size=30), seed=st.integers(0, 5))
def test_every_pair_under_one_key_is_met_once_the_smaller_first(keys: list[int], seed: int) -> None:
    nodes = np.random.default_rng(seed).permutation(len(keys))
    found = [
        pair
        for first, second in equal_pairs(np.array(keys, np.uint64), nodes)
        for pair in zip(first.tolist(), second.tolist(), strict=True)
    ]
    by_node = dict(zip(nodes.tolist(), keys, strict=True))
    expected = [(a, b) for a, b in combinations(range(len(keys)), 2) if by_node[a] == by_node[b]]
    assert sorted(found) == expected


def planted(seed: int) -> list[str]:
    """Sixteen texts in words of their own, each with copies of which a part is changed."""
    draw = random.Random(seed)
    texts: list[str] = []
    for family in range(16):
        size = draw.randrange(60, 400)
        tokens = [f"f{family}w{draw.randrange(5000)}" for _ in range(size)]
        texts.append(" ".join(tokens))
        for share in (0.0, 0.01, 0.02, 0.04, 0.08):
            changed = [f"x{draw.randrange(10**9)}" if draw.random() < share else t for t in tokens]
            texts.append("\n".join(changed))
    draw.shuffle(texts)
    return texts


def clusters_of(texts: list[str], rank: NDArray[np.int64], similarity: float) -> NDArray[np.int64]:
    signature = signatures(texts)
    loose = near_clusters(signature, rank, similarity)
    rows = np.full(len(texts), -1)
    some = members(loose)
    rows[some] = np.arange(some.size)
    sets = ShingleSets(rows, *shingle_sets([texts[i] for i in some]))
    return confirmed_clusters(signature, rank, loose, sets, similarity)


def similar_pairs(texts: list[str], similarity: float) -> NDArray[np.int64]:
    """(2, P) every pair whose sets of fives of words are similar."""
    sets = [{tuple(t.split()[i : i + 5]) for i in range(len(t.split()) - 4)} for t in texts]
    pairs = [
        (i, j)
        for i, j in combinations(range(len(texts)), 2)
        if len(sets[i] & sets[j]) >= similarity * len(sets[i] | sets[j])
    ]
    return np.array(pairs).T


@pytest.mark.parametrize("similarity", [0.8, 0.9])
def test_clusters_are_the_components_of_all_similar_pairs(similarity: float) -> None:
    texts = planted(1)
    expected = Components(len(texts))
    expected.join(*similar_pairs(texts, similarity))
    found = clusters_of(texts, np.arange(len(texts)), similarity)
    assert found.tolist() == expected.labels().tolist()


def test_from_a_similarity_of_seven_tenths_few_pairs_are_missed_and_none_is_made_up() -> None:
    texts = planted(1)
    first, second = similar_pairs(texts, 0.7)
    expected = Components(len(texts))
    expected.join(first, second)
    found = clusters_of(texts, np.arange(len(texts)), 0.7)
    assert (found[first] == found[second]).mean() > 0.98
    assert (expected.labels()[found] == expected.labels()).all()


def test_the_same_documents_survive_in_whatever_order_they_are_read() -> None:
    texts = planted(2)
    rank = np.random.default_rng(0).permutation(len(texts))
    found = clusters_of(texts, rank, 0.7)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(texts))
        again = clusters_of([texts[i] for i in order], rank[order], 0.7)
        assert (again == found[order]).all()


def test_the_best_of_a_cluster_stands_for_it() -> None:
    texts = planted(3)
    rank = np.random.default_rng(1).permutation(len(texts))
    found = clusters_of(texts, rank, 0.7)
    assert members(found).size > 40
    for label in np.unique(found):
        assert rank[found == label].min() == label


def test_an_estimate_alone_does_not_join_what_the_sets_keep_apart() -> None:
    # Pairs a little below the threshold: many signatures agree above it, no set does.
    texts = []
    for pair in range(60):
        tokens = [f"p{pair}w{n}" for n in range(404)]
        texts += [" ".join(tokens), " ".join(tokens[74:] + [f"p{pair}x{n}" for n in range(74)])]
    signature, rank = signatures(texts), np.arange(120)
    assert members(near_clusters(signature, rank, 0.7)).size > 60
    assert members(clusters_of(texts, rank, 0.7)).size == 0  # 326 of 474 shingles: 0.688
