from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

import pytest

from isoflop.core.errors import DataError, RecipeError
from isoflop.data.answers import final_answer, is_right
from isoflop.data.instruct import BAD_ROWS, generate, instruct
from isoflop.data.instruct_recipe import InstructRecipe, InstructSource

ARITHMETIC = ("sum", "difference", "product", "quotient", "expression")


def solved(question: str) -> Fraction:
    """The value of the expression in a question, by Python's own arithmetic on fractions."""
    found = re.search(r"[\d(][\d\s()+×÷-]*", question)
    assert found is not None
    text = re.sub(r"\d+", r"Fraction(\g<0>)", found[0].replace("×", "*").replace("÷", "/"))
    return eval(text, {"Fraction": Fraction})  # only digits and signs got here


def test_every_answer_to_arithmetic_is_what_fractions_give_and_the_wrong_one_is_not() -> None:
    source = InstructSource("generated", problems=ARITHMETIC, difficulty=(1, 3), count=2000)
    problems = [*generate(source, 0)]
    assert len(problems) == 2000
    for problem in problems:
        assert solved(problem.question) == Fraction(problem.answer)
        assert is_right(problem.solution(), problem.answer)
        assert not is_right(problem.solution(problem.wrong), problem.answer)


def test_every_step_of_generated_work_is_true() -> None:
    for problem in generate(InstructSource("generated", difficulty=(1, 3), count=3000), 1):
        for left, right in re.findall(r"([\d(][\d ()+×÷-]*) = (-?\d+)", problem.steps):
            assert solved(left) == int(right), problem


def test_the_same_seed_makes_the_same_problems_and_none_twice() -> None:
    source = InstructSource("generated", count=500)
    questions = [p.question for p in generate(source, 3)]
    assert questions == [p.question for p in generate(source, 3)]
    assert len(set(questions)) == 500
    assert questions != [p.question for p in generate(source, 4)]


def test_no_family_is_on_both_sides_and_rows_are_in_the_forms_of_the_contract(
    tmp_path: Path,
) -> None:
    source = InstructSource("generated", count=600, preferences=50)
    made = instruct(InstructRecipe((source,), held_out_fraction=0.3), tmp_path / "set")
    train, held_out = (made.rows("supervised", s) for s in ("train", "held_out"))
    assert not {r["family"] for r in train} & {r["family"] for r in held_out}
    assert 0.2 < len(held_out) / (len(train) + len(held_out)) < 0.4
    assert [m["role"] for m in train[0]["messages"]] == ["user", "assistant"]
    assert {"prompt", "answer"} <= made.rows("verifiable", "train")[0].keys()
    assert {"prompt", "chosen", "rejected"} <= made.rows("preference", "train")[0].keys()


BAD = [
    ("{", "not JSON"),
    ('{"prompt": "a"}', "no known set of keys"),
    ('{"prompt": "a", "completion": " "}', "empty assistant turn"),
    ('{"messages": [{"role": "assistant", "content": "a"}]}', "broken role order"),
    ('{"messages": [{"role": "robot", "content": "a"}]}', "unknown role"),
    ('{"prompt": "a", "chosen": "b", "rejected": "b"}', "chosen and rejected are the same"),
    ('{"prompt": "a", "answer": ""}', "missing answer"),
    (json.dumps({"prompt": "x" * 100_000, "completion": "b"}), "too long"),
    ('{"prompt": "a",  "completion": "good"}', "duplicate"),
]


def test_bad_rows_are_listed_by_file_and_line_with_counts(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = ['{"prompt": "a", "completion": "good"}', *(line for line, _ in BAD)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = InstructSource("jsonl", path=path)
    made = instruct(InstructRecipe((source,), held_out_fraction=0.0), tmp_path / "set")
    bad = [json.loads(line) for line in (tmp_path / "set" / BAD_ROWS).read_text().splitlines()]
    assert [(row["line"], row["reason"]) for row in bad] == [
        (number, reason) for number, (_, reason) in enumerate(BAD, 2)
    ]
    assert {row["file"] for row in bad} == {str(path)}
    assert made.summary["sources"]["jsonl"] == {
        "kept": 1, "dropped": {reason: 1 for _, reason in sorted(BAD, key=lambda b: b[1])}
    }  # fmt: skip
    with pytest.raises(DataError, match=r"9 rows cannot be used: .*rows\.jsonl:2: not JSON"):
        instruct(InstructRecipe((source,), on_bad_row="stop"), tmp_path / "other")


def test_answers_are_compared_as_numbers_and_as_text() -> None:
    assert final_answer("3 + 4 = 7. The answer is 7.") == "7"
    assert is_right("答案是07。", "7")
    assert is_right("The answer is 1,000.", "1000")
    assert not is_right("The answer is 17.", "7")
    assert is_right("The answer is Yes.", "yes")


def test_an_unknown_problem_and_an_impossible_recipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no kind of problem `sums`"):
        instruct(InstructRecipe((InstructSource("generated", problems=("sums",)),)), tmp_path / "x")
    with pytest.raises(RecipeError, match="difficulty 3–1"):
        InstructRecipe((InstructSource("generated", difficulty=(3, 1)),))
