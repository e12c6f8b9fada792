from __future__ import annotations

import re

import numpy as np
import pytest

from isoflop.data.tokenizer import Tokenizer
from isoflop.data.word_problems import DRILL_LENGTH, generate, word_problem

OPERATIONS = {"+": int.__add__, "-": int.__sub__}
FORMS = {
    "en": re.compile(r"Question: (.+\?)\nAnswer: (.+)\. The answer is (\d+)\.\n"),
    "zh": re.compile(r"问题：(.+？)\n答案：(.+)。答案是(\d+)。\n"),
}
PROBLEMS = [word_problem(7, index) for index in range(3000)]


def test_every_worked_step_is_true_and_leads_to_the_answer() -> None:
    for text, language in PROBLEMS:
        problems = list(FORMS[language].finditer(text))
        assert "".join(problem.group() for problem in problems) == text
        for problem in problems:
            question, work, answer = problem.groups()
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
            assert 0 <= result <= 9


def test_half_of_the_documents_drill_bare_sums_and_all_facts_are_few() -> None:
    counts = [len(re.findall(r"The answer is|答案是", text)) for text, _ in PROBLEMS]
    assert set(counts) == {1, DRILL_LENGTH}
    assert 0.45 < np.mean(np.array(counts) == DRILL_LENGTH) < 0.55
    drills = "".join(text for (text, _), count in zip(PROBLEMS, counts, strict=True) if count > 1)
    facts = set(re.findall(r"\d+ [-+] \d+ = \d+", drills))
    assert len(facts) == 36 + 45  # every sum and difference within the digits, no other


def test_a_problem_depends_on_its_seed_and_index_alone() -> None:
    alone = [word_problem(7, index) for index in reversed(range(100))]
    assert alone[::-1] == PROBLEMS[:100]
    assert [word_problem(8, index) for index in range(100)] != PROBLEMS[:100]


def test_this_is_what_they_look_like() -> None:
    """Golden texts: a change of the generator changes every corpus, and must be meant."""
    assert word_problem(0, 2)[0] == GOLDEN_EN
    assert word_problem(0, 1)[0] == GOLDEN_ZH
    assert word_problem(0, 0)[0].startswith(GOLDEN_DRILL)


GOLDEN_EN = (
    "Question: Ivan has 9 shells and loses 1. How many shells are left?\n"
    "Answer: 9 - 1 = 8. The answer is 8.\n"
)
GOLDEN_ZH = (
    "问题：小明有7个苹果，小芳有3个。小明比小芳多多少个苹果？\n答案：7 - 3 = 4。答案是4。\n"
)
GOLDEN_DRILL = "Question: What is 7 - 4?\nAnswer: 7 - 4 = 3. The answer is 3.\nQuestion: What is"


def test_english_and_chinese_come_in_equal_parts() -> None:
    languages = [document.language for document in generate("w", 0, 100)]
    assert languages.count("en") == languages.count("zh") == 50


def test_few_problems_are_drawn_twice() -> None:
    assert len(set(PROBLEMS)) > 0.95 * len(PROBLEMS)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_problem_fits_a_short_context(language: str, tokenizer: Tokenizer) -> None:
    texts = [text for text, its in PROBLEMS if its == language]
    lengths = sorted(len(ids) for ids in tokenizer.encode_batch(texts))
    assert lengths[len(lengths) // 4] <= 128  # a story in the context of the demo, with 512 tokens
    assert lengths[-1] <= 360  # a drill
