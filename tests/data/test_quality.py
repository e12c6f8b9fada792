from __future__ import annotations

import re

import pytest

from isoflop.core.errors import RecipeError
from isoflop.data.quality import (
    CHINESE_RULES,
    ENGLISH_RULES,
    FAMILIES,
    chosen_rules,
    first_failed,
)
from isoflop.data.signals import Measurer

MEASURER = Measurer()
ENGLISH = [*chosen_rules(ENGLISH_RULES, FAMILIES, {})]
PROSE = (
    "The old ferry crossed the river twice a day, carrying farmers and their carts to the market. "
    "When the bridge was built in the spring, most people said that it would not be missed. "
    "They were wrong, and the town soon found out why. Nobody could hear the news any more! "
    "For who would stop on a bridge to talk with a stranger about the price of wheat?\n"
    "So a teacher asked the council to bring the boat back, one day in each week. "
    "It took them two years to agree, but in the end the ferry sailed again with a full deck."
)
CHINESE_PROSE = (
    "老渡船每天两次过河，载着农民和他们的货车去市场。春天桥建成的时候，大多数人说不会再想念它了。"
    "他们错了，镇上很快就明白了原因：再也没有人能听到消息。谁会在桥上停下来，和陌生人谈论小麦的价格呢？\n"
    "于是有一位老师请求议会每周让渡船开一天。他们用了两年才同意，但最后船又满载着人出发了，大家都很高兴。"
)


def english_reason(text: str) -> str | None:
    return first_failed(tuple(ENGLISH), MEASURER.english(text))


def test_good_prose_passes_every_rule() -> None:
    assert english_reason(PROSE) is None
    rules = chosen_rules(CHINESE_RULES, FAMILIES, {})
    assert first_failed(rules, MEASURER.chinese(CHINESE_PROSE)) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Too short.", "gopher-quality.few-words"),
        (PROSE.replace(" ", ""), "gopher-quality.few-words"),
        ("\n".join([PROSE[:90]] * 8), "gopher-repetition.repeated-line-characters"),
        ("buy now cheap " * 60, "gopher-repetition.most-frequent-short-gram"),
        (
            "\n".join(f"- {s.strip()}" for s in re.split("[.?!\n]", PROSE)),
            "gopher-quality.bullet-lines",
        ),
        (PROSE.replace(" ", " #", 30), "gopher-quality.hashes"),
        (PROSE.replace("the", "x{y}"), "c4.curly-brackets"),
        (PROSE + "\nLorem ipsum dolor sit amet.", "c4.lorem-ipsum"),
        (PROSE.replace(".", ",").replace("!", ",").replace("?", ","), "c4.sentences"),
    ],
)
def test_bad_text_fails_the_rule_made_for_it(text: str, reason: str) -> None:
    # A few words also count as repeated, so each family is asked alone.
    rules = chosen_rules(ENGLISH_RULES, (reason.split(".")[0],), {})
    assert first_failed(rules, MEASURER.english(text)) == reason


def test_chinese_rules_drop_spam_lists_and_foreign_text() -> None:
    rules = chosen_rules(CHINESE_RULES, ("gopher-repetition", "gopher-quality", "fineweb"), {})

    def reason(text: str) -> str | None:
        return first_failed(rules, MEASURER.chinese(text))

    assert (reason("便宜手机批发" * 40) or "").startswith("gopher-repetition")
    assert (
        reason(
            "我们的朋友在这里等你，因为今天的天气很好，河边有很多人散步，孩子们也出来玩耍了。老船长站在岸上，望着远处的山，说起年轻时的故事。"
        )
        == "gopher-quality.few-words"
    )
    menu = "\n".join(f"{a}{b}" for a in "春夏秋冬东南西北" for b in "天地山水花鸟鱼虫")
    assert (reason(menu) or "") in ("gopher-quality.stop-words", "fineweb.unended-lines")
    assert reason(PROSE) == "gopher-quality.long-words"


def test_a_threshold_can_be_changed_by_name_alone() -> None:
    rules = chosen_rules(ENGLISH_RULES, ("gopher-quality",), {"gopher-quality.few-words": 1})
    assert {rule.name for rule in rules if rule.threshold == 1} == {"gopher-quality.few-words"}
    assert all(rule.family == "gopher-quality" for rule in rules)
    with pytest.raises(RecipeError, match=r"no quality rule: gopher\.words.*gopher-quality\.few"):
        chosen_rules(ENGLISH_RULES, FAMILIES, {"gopher.words": 1})


def test_a_value_at_the_threshold_passes() -> None:
    for rule in (*ENGLISH_RULES, *CHINESE_RULES):
        assert not rule.fails(rule.threshold)
        assert rule.fails(rule.threshold + (1e-6 if rule.side == "max" else -1e-6))
