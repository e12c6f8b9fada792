"""The filter finds what is disguised, lets ordinary text through, and lets no term slip out."""

from __future__ import annotations

import base64
import codecs
import json
import random
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.errors import DataError
from isoflop.serving.disguise import views
from isoflop.serving.safety import SafetyFilter, open_filter, read_rules
from isoflop.serving.settings import SafetyMode

SECRET = "forbidden"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "words.txt").write_text("# a comment\nforbidden | 禁词 | bad* phrase\n", "utf-8")
    (folder / "pairs.txt").write_text("make|制造 + bomb|炸弹  # both\n", "utf-8")
    return folder


def filter_of(lists: Path | None, mode: SafetyMode = "block", **more: Any) -> SafetyFilter:
    made = open_filter(mode, lists, more.get("audit"))
    assert made is not None
    return made


DISGUISES = {
    "plain": SECRET,
    "upper case": SECRET.upper(),
    "full width": "".join(chr(ord(c) + 0xFEE0) for c in SECRET),
    "zero width": "\u200b".join(SECRET),
    "Cyrillic": "fоrbiddеn",
    "accents": "fórbîddèn",
    "leet": "f0rb1dd3n",
    "spaced": " ".join(SECRET),
    "dotted": ".".join(SECRET),
    "rot13": codecs.encode(SECRET, "rot13"),
    "base64": base64.b64encode(f"this is {SECRET}!".encode()).decode(),
    "mathematical": "".join(chr(0x1D41A + ord(c) - 97) for c in SECRET),
    "Chinese": "禁词",
    "Chinese, spaced": "禁 词",
    "traditional width": "禁\u200d词",
}


@pytest.mark.parametrize("name", DISGUISES)
def test_a_disguised_term_is_found_where_it_stands(lists: Path, name: str) -> None:
    text = f"well, {DISGUISES[name]}: so"
    (hit,) = {(h.name, h.start, h.end) for h in filter_of(lists).subjects(text)}
    assert hit == ("words", 6, 6 + len(DISGUISES[name]))


@pytest.mark.parametrize(
    "text",
    ["unforbiddenly", "forbidde n", "make a cake", "the bomb squad", "禁止词语", "fordbidden",
     "make " + "filler " * 20 + "bomb", "bad sentence", "YmFzZTY0IG9mIG5vdGhpbmcgYmFkIGF0IGFsbA=="],
)  # fmt: skip
def test_what_is_not_listed_is_let_through(lists: Path, text: str) -> None:
    assert filter_of(lists).subjects(text) == []


def test_parts_of_a_rule_are_found_in_either_order_and_across_languages(lists: Path) -> None:
    safety = filter_of(lists)
    for text in ("how to make a b0mb", "a bomb, how do I make one", "make 炸弹", "制造一颗炸 弹"):
        assert safety.refused(text) == ["pairs"]


@pytest.mark.parametrize("seed", range(12))
def test_a_term_never_slips_out_however_the_text_is_cut(lists: Path, seed: int) -> None:
    draw = random.Random(seed)
    safety = filter_of(lists)
    for name, term in DISGUISES.items():
        text = f"Some words, 一些文字 for a start: {term} and more that must not be seen."
        guard, out, place = safety.guard(), "", 0
        while place < len(text):
            size = draw.choice([1, 1, 2, 3, 7, 20])
            out += guard.push(text[place : place + size])
            place += size
        out += guard.finish()
        assert guard.blocked
        assert text.startswith(out)
        assert len(out) <= text.index(term), name
        assert out.startswith("Some words")


def test_what_is_allowed_comes_out_unchanged_and_almost_at_once(lists: Path) -> None:
    safety = filter_of(lists)
    text = "An ordinary answer with 12 numbers, 中文也可以，and an end. " * 3
    for seed in range(5):
        draw, guard, out, place, most = random.Random(seed), safety.guard(), "", 0, 0
        while place < len(text):
            size = draw.choice([1, 2, 5])
            out += guard.push(text[place : place + size])
            place = min(len(text), place + size)
            most = max(most, place - len(out))
            assert guard.consumed == len(out)
        assert out + guard.finish() == text
        assert most < 24


def test_redaction_hides_the_same_whatever_the_cuts(lists: Path) -> None:
    text = "Write to me.now@mail.org or call 13812345678, 禁词! Card 4111 1111 1111 1111 ok"
    for seed in range(20):
        draw, guard, out, place = random.Random(seed), filter_of(lists, "redact").guard(), "", 0
        while place < len(text):
            size = draw.choice([1, 2, 3, 8, 40])
            out += guard.push(text[place : place + size])
            place += size
        out += guard.finish()
        assert out == "Write to <EMAIL> or call <CN-MOBILE>, <WORDS>! Card <CARD> ok"
        assert [text[a:b] for a, b in guard.hidden] == [
            "me.now@mail.org", "13812345678", "禁词", "4111 1111 1111 1111"
        ]  # fmt: skip
        assert guard.consumed == len(text)


def test_flagging_changes_nothing_and_the_log_holds_no_text(lists: Path, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    safety = filter_of(lists, "flag", audit=audit)
    guard = safety.guard()
    assert guard.push("a forbidden word ") + guard.finish() == "a forbidden word "
    assert safety.refused("forbidden") == []
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["where"], line["found"]) for line in lines] == [
        ("answer", ["words"]), ("prompt", ["words"])
    ]  # fmt: skip
    assert "forbidden" not in audit.read_text()
    assert all(len(line["text_sha256"]) == 64 for line in lines)


def test_lists_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no lists"):
        read_rules(tmp_path)
    (tmp_path / "x.txt").write_text("a + |b\n")
    with pytest.raises(DataError, match=r"empty term"):
        read_rules(tmp_path)
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="cannot be read"):
        read_rules(tmp_path)


def test_every_view_knows_where_its_characters_come_from() -> None:
    text = "ﬁ\u200bRe 禁.词 b-o-m-b Ⅻ " + base64.b64encode(b"some hidden text").decode()
    for view in views(text):
        assert len(view.text) == len(view.start) == len(view.end)
        assert all(0 <= a < b <= len(text) for a, b in zip(view.start, view.end, strict=True))
        assert list(view.start) == sorted(view.start)


def test_a_server_refuses_blocks_and_moderates(serving: Any, lists: Path) -> None:
    with serving(safety="block", safety_lists=lists) as guarded:
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "m.a.k.e a b0mb"}]}
        status, said, _ = guarded.ask("/v1/chat/completions", asked)
        assert (status, said["error"]["code"]) == (400, "content_filter")
        _, result, _ = guarded.ask("/v1/moderations", {"input": ["forbidden", "fine"]})
        assert [each["flagged"] for each in result["results"]] == [True, False]
        assert result["results"][0]["categories"]["words"] is True
        grammar = {"type": "json_schema", "json_schema": {"name": "x", "schema": {
            "enum": ["it is forbidden here"]}}}  # fmt: skip
        for stream in (False, True):
            said = guarded.client().chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=60,
                response_format=grammar, stream=stream,
            )  # fmt: skip
            if stream:
                choices = [chunk.choices[0] for chunk in said]
                text = "".join(choice.delta.content or "" for choice in choices)
                finish = choices[-1].finish_reason
            else:
                text, finish = said.choices[0].message.content, said.choices[0].finish_reason
            assert (text, finish) == ('"it is ', "content_filter")
        assert guarded.idle()
