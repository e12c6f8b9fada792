"""Text from tokens: whole characters, no leaked stop string, the same whatever the cuts."""

from __future__ import annotations

import random

import pytest

from isoflop.serving.text_stream import TextStream

ALPHABET = (
    list("ab \n#STOP") + list("中文模型，。🙂👩‍👩‍👧é") + ["停止", "###", "STOP", "ST", "🙂🙂"]
)
STOPS = ["STOP", "停止", "###", "🙂🙂", "\n\n", "ab a", "S", "b#"]


def cut(data: bytes, draw: random.Random) -> list[bytes]:
    """The bytes in random pieces, empty ones among them."""
    pieces = []
    while data:
        size = draw.choice([0, 1, 1, 2, 3, 5, 9])
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def before_stop(text: str, stops: list[str]) -> str:
    """By the definition: the prefix that first holds a stop string, less the longest such."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - len(max(found, key=len))]
    return text


def check_one(draw: random.Random) -> None:
    text = "".join(draw.choices(ALPHABET, k=draw.randrange(0, 40)))
    stops = draw.sample(STOPS, draw.randrange(0, 4))
    stream = TextStream(stops)
    parts = []
    for piece in cut(text.encode(), draw):
        parts.append(stream.push(piece))
        assert "\ufffd" not in parts[-1]
        so_far = "".join(parts)
        assert text.startswith(so_far)
        assert not any(stop in so_far for stop in stops)
        assert stream.released == len(so_far)
        if stream.stopped is not None:
            break
    parts.append(stream.finish())
    assert "".join(parts) == before_stop(text, stops)
    assert (stream.stopped is not None) == (before_stop(text, stops) != text)


def test_random_cuts_leak_nothing_and_join_to_the_whole_text() -> None:
    draw = random.Random(0)
    for _ in range(500):
        check_one(draw)


@pytest.mark.slow
def test_ten_thousand_random_cuts_leak_nothing_and_join_to_the_whole_text() -> None:
    draw = random.Random(1)
    for _ in range(10_000):
        check_one(draw)


def test_bytes_that_are_no_text_come_out_as_when_decoded_at_once() -> None:
    draw = random.Random(2)
    for _ in range(300):
        data = bytes(draw.choices([0x41, 0xE4, 0xBD, 0xA0, 0xF0, 0x9F, 0xFF], k=12)) + b"."
        stream = TextStream()
        got = "".join(stream.push(piece) for piece in cut(data, draw)) + stream.finish()
        assert got == data.decode("utf-8", "replace")


def test_a_character_cut_off_by_the_end_is_left_out() -> None:
    stream = TextStream()
    assert stream.push("好".encode() + "中".encode()[:2]) == "好"
    assert stream.finish() == ""


def test_what_was_held_for_a_stop_string_comes_at_the_end() -> None:
    stream = TextStream(["STOP"])
    assert stream.push(b"go ST") == "go "
    assert stream.push(b"O") == ""
    assert stream.finish() == "STO"
    assert stream.stopped is None
