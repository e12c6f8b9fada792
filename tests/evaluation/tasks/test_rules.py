"""Each rule on texts that keep it and texts that break it, in both languages."""

from __future__ import annotations

import random
import re

import pytest

from isoflop.evaluation.tasks.rules import (
    RULES,
    instruction,
    kept_loosely,
    sentences,
    together,
    words,
)

# Texts for the numbers that a draw may give: {n} is the number, {word} the word in the wording.
KEPT = {
    "at most words": ("a short answer", "短答"),
    "at least words": ("word " * 30, "字" * 30),
    "bullet points": (lambda n: "- one\n" * n, lambda n: "* 一\n" * n),
    "sentences": (lambda n: "It rains. " * n, lambda n: "下雨了。" * n),
    "paragraphs": (lambda n: "\n\n".join(["one"] * n), lambda n: "\n\n".join(["一"] * n)),
    "no comma": ("no such mark; none.", "没有这个标点。"),
    "ends with a question": ("Is it so?", "是吗？"),
    "quotation marks": ('"All of it."', "“全部。”"),
    "title": ("<<A walk>> It rained.", "《散步》下雨了。"),
    "places to fill in": (lambda n: "[name] " * n, lambda n: "【姓名】" * n),
    "lower case": ("all small.", "全是小写 abc。"),
    "json": ('{"a": 1}', '```json\n{"答": 1}\n```'),
    "postscript": ("Text.\nP.S. More.", "正文。\nP.S. 还有。"),
    "no digits": ("twelve", "十二"),
}
BROKEN = {
    "at most words": ("word " * 61, "字" * 61),
    "at least words": ("too short", "短"),
    "bullet points": ("- one\n- two\n- three\n- four\n- five", "没有"),
    "sentences": ("One. Two. Three. Four. Five.", ""),
    "paragraphs": ("one", "一\n二"),
    "no comma": ("one, two", "一，二"),
    "ends with a question": ("Is it so? Yes.", "是。"),
    "quotation marks": ('He said "no".', "他说“不”。"),
    "title": ("A walk. It rained.", "<标题>"),
    "places to fill in": ("no place", "()"),
    "lower case": ("Not small.", "A"),
    "json": ("[1]", "{a: 1}"),
    "postscript": ("Text. P.S.", "附言"),
    "no digits": ("12", "１２"),
}


@pytest.mark.parametrize("rule", KEPT)
@pytest.mark.parametrize("seed", range(6))
def test_a_text_that_keeps_the_rule_passes_and_one_that_breaks_it_fails(rule, seed):
    asked = instruction(rule, random.Random(seed))
    number = int((re.findall(r"\d+", asked.en) or [0])[0])
    for text in KEPT[rule]:
        assert asked.check(text(number) if callable(text) else text), (asked.en, text)
    for text in BROKEN[rule]:
        assert not asked.check(text), (asked.en, text)


@pytest.mark.parametrize("seed", range(6))
def test_rules_about_words_look_for_whole_words(seed):
    asked = instruction("word", random.Random(seed))
    (en,), (zh,) = re.findall('"(.+)"', asked.en), re.findall("“(.+)”", asked.zh)
    assert asked.check(f"A {en.upper()}, of course.")
    assert asked.check(f"有{zh}。")
    assert not asked.check(f"A {en}ish thing.")
    forbidden = instruction("word forbidden", random.Random(seed))
    (en,) = re.findall('"(.+)"', forbidden.en)
    assert forbidden.check(f"A {en}ish thing.")
    assert not forbidden.check(f"{en.title()}!")
    assert not forbidden.check("")
    often = instruction("word often", random.Random(seed))
    (en,), (n,) = re.findall('"(.+)"', often.en), re.findall(r"\d", often.en)
    assert often.check(f"{en} " * int(n))
    assert not often.check(f"{en} " * (int(n) - 1))


@pytest.mark.parametrize("rule", ["first word", "last sentence"])
def test_rules_about_the_ends_of_a_text_look_there(rule):
    asked = instruction(rule, random.Random(0))
    (en,), (zh,) = re.findall('"(.+)"', asked.en), re.findall("“(.+)”", asked.zh)
    for said in (en, zh):
        first, last = f"{said} it rained all day", f"It rained all day. {said}"
        assert asked.check(first) == (rule == "first word")
        assert asked.check(last) == (rule == "last sentence")


def test_loose_forgives_an_introduction_and_asterisks():
    asked = instruction("json", random.Random(0))
    assert not asked.check('Here it is:\n{"a": 1}')
    assert kept_loosely(asked.check, 'Here it is:\n{"a": 1}')
    assert kept_loosely(asked.check, '*{"a": 1}*')
    assert not kept_loosely(asked.check, "neither")


def test_there_are_fifteen_rules_and_each_is_asked_in_both_languages():
    assert len(RULES) >= 15
    seen = set()
    for seed in range(400):
        chosen = together(random.Random(seed), 3)
        assert 1 <= len(chosen) <= 3
        assert len({one.rule for one in chosen}) == len(chosen)
        for one in chosen:
            seen.add(one.rule)
            assert one.en
            assert any("\u4e00" <= c <= "\u9fff" for c in one.zh)
    assert seen == set(RULES)


def test_words_and_sentences_are_counted_in_both_scripts():
    assert words("It's a well-known fact。很好") == ["It's", "a", "well-known", "fact", "很", "好"]
    assert len(sentences("It costs 3.50 today. Fine! 好。是吗？")) == 4
