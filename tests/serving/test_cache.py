"""Blocks: every one is held or free, a prefix is found just if it is equal, content lives on."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.serving.cache import BlockPool, block_hashes
from isoflop.serving.settings import BLOCK


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_counts_stay_right_through_any_sequence_of_uses(seed: int) -> None:
    draw = random.Random(seed)
    pool = BlockPool(6)
    held: list[int] = []
    keys: dict[int, bytes] = {}
    for step in range(80):
        act = draw.choice(["allocate", "find", "publish", "release"])
        if act == "allocate":
            block = pool.allocate()
            assert (block is None) == (len(set(held)) == 6)
            if block is not None:
                assert block not in held
                keys.pop(block, None)
                held.append(block)
        elif act == "find" and keys:
            block, key = draw.choice(list(keys.items()))
            assert pool.find(key) == block
            held.append(block)
        elif act == "publish" and held:
            block = draw.choice(held)
            if block not in keys:
                keys[block] = str(step).encode()
                pool.publish(block, keys[block])
        elif act == "release" and held:
            block = held.pop(draw.randrange(len(held)))
            pool.release(block)
        assert pool.n_held == len(set(held))
        assert pool.n_free == 6 - pool.n_held


def test_a_hash_covers_all_tokens_before_it_and_full_blocks_alone() -> None:
    tokens = list(range(3 * BLOCK + 5))
    hashes = block_hashes(tokens)
    assert len(hashes) == 3
    assert block_hashes(tokens[: 2 * BLOCK]) == hashes[:2]
    changed = block_hashes([7, *tokens[1:]])
    assert not set(changed) & set(hashes)


def test_the_longest_unused_content_is_forgotten_first() -> None:
    pool = BlockPool(2)
    first, second = pool.allocate(), pool.allocate()
    assert first is not None
    assert second is not None
    pool.publish(first, b"first")
    pool.publish(second, b"second")
    pool.release(second)
    pool.release(first)
    assert pool.allocate() == second
    assert pool.find(b"second") is None
    assert pool.find(b"first") == first


def test_releasing_a_free_block_is_refused() -> None:
    pool = BlockPool(1)
    with pytest.raises(ValueError, match="more often"):
        pool.release(0)
