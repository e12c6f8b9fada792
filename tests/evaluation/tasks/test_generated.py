"""Generated items: gold answers that are right, options that differ, draws that repeat."""

from __future__ import annotations

import random

import pytest

from isoflop.evaluation.task import Settings
from isoflop.evaluation.tasks import in_context, minimal_pairs
from isoflop.evaluation.tasks.arithmetic import carries
from isoflop.evaluation.tasks.documents import articles
from isoflop.evaluation.tasks.sequences import induction

ANSWERS = {
    "icl_copying": lambda question: question,
    "icl_reversing": lambda question: question[::-1],
    "icl_counting": lambda question: str(len(question.split())),
}


@pytest.mark.parametrize("name", in_context.RULES)
@pytest.mark.parametrize("shots", [0, 1, 4, 16])
def test_examples_keep_their_rule_and_the_answer_is_among_distinct_options(name, shots):
    rule, _ = in_context.RULES[name]
    places = set()
    for seed in range(60):
        examples, options = rule(random.Random(seed), shots + 1)
        assert len(examples) == shots + 1
        assert len(set(options)) == len(options)
        places.add(options.index(examples[-1][1]))
        for question, answer in examples:
            if name in ANSWERS:
                assert answer == ANSWERS[name](question)
    assert len(places) == len(options)


def test_a_mapping_is_one_and_shows_what_it_asks():
    rule, _ = in_context.RULES["icl_mapping"]
    for seed in range(40):
        examples, _ = rule(random.Random(seed), 17)
        assert len(dict(examples)) == len(set(examples)) == 4
        assert examples[-1] in examples[:-1]


def test_two_classes_are_parted_by_a_line():
    rule, _ = in_context.RULES["icl_linear"]
    lines = [(1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (1, -2)]
    for seed in range(20):
        examples, _ = rule(random.Random(seed), 30)
        points = [(*map(int, q.split()), answer) for q, answer in examples]
        assert any(
            len({(a * (2 * x - 9) + b * (2 * y - 9) > 0, answer) for x, y, answer in points}) == 2
            for a, b in lines
        )


def test_generated_pairs_differ_and_come_once():
    for kinds in minimal_pairs.KINDS.values():
        for kind, make in kinds:
            draw = random.Random(kind)
            for _ in range(100):
                good, bad = make(draw)
                assert good != bad
                assert good.endswith((".", "。", "？"))


@pytest.mark.parametrize(
    ("a", "b", "sign", "wanted"),
    [(12, 34, "+", 0), (19, 3, "+", 1), (999, 1, "+", 3), (95, 7, "+", 2), (20, 3, "-", 1),
     (1000, 1, "-", 3), (57, 23, "-", 0), (100, 99, "-", 2)],
)  # fmt: skip
def test_carries_and_borrows_are_counted_as_by_hand(a, b, sign, wanted):
    assert carries(a, b, sign) == wanted


def test_carries_are_what_the_digits_lose():
    draw = random.Random(0)
    for _ in range(200):
        a, b = draw.randrange(10_000), draw.randrange(10_000)

        def digits(n):
            return sum(map(int, str(n)))

        assert carries(a, b, "+") == (digits(a) + digits(b) - digits(a + b)) / 9
        big, small = max(a, b), min(a, b)
        assert carries(big, small, "-") == (digits(small) + digits(big - small) - digits(big)) / 9


def test_articles_are_cut_at_their_titles_and_nothing_is_lost():
    text = " \n = One = \n \n a . \n = = Part = = \n b . \n = Two = \n c\n"
    parts = articles(text)
    assert "".join(parts) == text.removeprefix(" \n")
    assert [part.splitlines()[0].strip() for part in parts] == ["= One =", "= Two ="]
    assert articles("no title\n") == ["no title\n"]


def test_induction_reads_the_second_copy_alone(subject):
    found = induction(subject, Settings(limit=3))
    assert [record.weight for record in found.records] == [31.0] * 3
    assert found.chance == 1 / subject.decoder.config.vocab_size
