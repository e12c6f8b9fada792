from __future__ import annotations

import re

import pytest

from isoflop.data.documents import Document
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources import read_source
from isoflop.data.tokenizer import Tokenizer
from isoflop.data.word_problems import word_problem

OPERATIONS = {"+": int.__add__, "-": int.__sub__, "×": int.__mul__}
FORMS = {
    "en": re.compile(r"Question: (.+\?)\nAnswer: (.+)\. The answer is (\d+)\.\n"),
    "zh": re.compile(r"问题：(.+？)\n答案：(.+)。答案是(\d+)。\n"),
}
PROBLEMS = [word_problem(7, index) for index in range(3000)]


def test_every_worked_step_is_true_and_leads_to_the_answer() -> None:
    for text, language in PROBLEMS:
        form = FORMS[language].fullmatch(text)
        assert form, text
        question, work, answer = form.groups()
        given = [int(number) for number in re.findall(r"\d+", question)]
        result, used = None, []
        for step in re.split("[,，] ?", work):
            left, sign, right, equals = re.fullmatch(r"(\d+) (.) (\d+) = (\d+)", step).groups()  # type: ignore[union-attr]
            if result is None:
                used.append(int(left))
            else:
                assert int(left) == result, text
            used.append(int(right))
            result = OPERATIONS[sign](int(left), int(right))
            assert result == int(equals), text
        assert used == given, text  # the steps use the numbers of the story, in its order
        assert result == int(answer)
        assert 0 <= result <= 63


def test_a_problem_depends_on_its_seed_and_index_alone() -> None:
    alone = [word_problem(7, index) for index in reversed(range(100))]
    assert alone[::-1] == PROBLEMS[:100]
    assert [word_problem(8, index) for index in range(100)] != PROBLEMS[:100]


def test_this_is_what_they_look_like() -> None:
    """Golden texts: a change of the generator changes every corpus, and must be meant."""
    assert word_problem(0, 0)[0] == GOLDEN_EN
    assert word_problem(0, 1)[0] == GOLDEN_ZH


GOLDEN_EN = (
    "Question: Paul has 17 stamps and sells 13. How many stamps are left?\n"
    "Answer: 17 - 13 = 4. The answer is 4.\n"
)
GOLDEN_ZH = (
    "问题：小雨有6个抽屉，每个里面有9块饼干，另外还有5块。小雨一共有多少块饼干？\n"
    "答案：6 × 9 = 54，54 + 5 = 59。答案是59。\n"
)


def test_english_and_chinese_come_in_equal_parts() -> None:
    found = read_source(SourceConfig("word-problems", documents=100), 0)
    languages = [document.language for document in found if isinstance(document, Document)]
    assert languages.count("en") == languages.count("zh") == 50


def test_few_problems_are_drawn_twice() -> None:
    assert len(set(PROBLEMS)) > 0.95 * len(PROBLEMS)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_problem_fits_a_short_context(language: str, tokenizer: Tokenizer) -> None:
    texts = [text for text, its in PROBLEMS if its == language]
    lengths = sorted(len(ids) for ids in tokenizer.encode_batch(texts))
    assert lengths[len(lengths) // 2] <= 90  # with as few as 512 tokens
    assert lengths[-1] <= 160
