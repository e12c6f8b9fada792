"""Prompt lookup against a search through the text."""

from __future__ import annotations

import random

from isoflop.serving.prompt_lookup import LONGEST, PromptLookup


def searched(tokens: list[int], most: int) -> list[int]:
    for size in range(min(LONGEST, len(tokens) - 1), 0, -1):
        for at in range(len(tokens) - size - 1, -1, -1):
            if tokens[at : at + size] == tokens[-size:]:
                return tokens[at + size : at + size + most]
    return []


def test_guesses_are_what_followed_where_the_last_tokens_stood_last() -> None:
    draw = random.Random(0)
    for _ in range(50):
        lookup, tokens = PromptLookup(), [draw.randrange(5) for _ in range(draw.randrange(1, 9))]
        for _ in range(60):
            most = draw.randrange(1, 6)
            assert lookup.guess(tokens, most) == searched(tokens, most)
            tokens += [draw.randrange(5) for _ in range(draw.randrange(1, 4))]
