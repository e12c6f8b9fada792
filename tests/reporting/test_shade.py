"""Tokens of samples shaded by how much they surprised the model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from isoflop.reporting.page import build
from isoflop.reporting.records import Report, Sample
from isoflop.reporting.shade import pieces


class Bytes:
    """A tokenizer whose tokens are bytes."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", "replace")


@pytest.mark.parametrize("text", ["plain", "中文 and déjà", "", "😀"])
def test_the_pieces_are_the_text_and_its_whole_surprise(text: str) -> None:
    codec = Bytes()
    ids = codec.encode(text)
    found = pieces(codec, ids, [0.5] * len(ids))
    assert "".join(piece for piece, _ in found) == text
    assert sum(bits for _, bits in found) == pytest.approx(0.5 * len(ids))
    assert [piece for piece, _ in found] == list(text)


def test_a_character_that_was_cut_off_is_the_last_piece() -> None:
    (first, rest) = pieces(Bytes(), [65, 0xE4, 0xB8], [1.0, 2.0, 3.0])
    assert first == ("A", 1.0)
    assert rest[1] == 5.0


def test_shades_follow_the_surprise_and_the_key_explains_them() -> None:
    surprisal = (("sure", 0.2), (" likely", 2.0), (" odd", 12.0))
    page = build(Report("S", "", samples=(Sample(1, 1.0, "p", "sure likely odd", surprisal),)))
    assert '<span class="u0" title="0.2 bits">sure</span>' in page
    assert '<span class="u1" title="2.0 bits"> likely</span>' in page
    assert '<span class="u4" title="12.0 bits"> odd</span>' in page
    assert "bits per token" in page


def test_a_text_that_is_not_what_was_scored_stays_unshaded() -> None:
    page = build(Report("S", "", samples=(Sample(1, 1.0, "p", "other", (("sure", 0.2),)),)))
    assert "0.2 bits" not in page
    assert "other" in page
