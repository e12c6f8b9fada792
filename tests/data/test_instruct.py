from __future__ import annotations

import json
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.errors import DataError, RecipeError
from isoflop.data.answers import final_answer, is_right
from isoflop.data.duplicates_recipe import DecontaminateConfig, EvaluationSet
from isoflop.data.instruct import BAD_ROWS, InstructSet, generate, instruct
from isoflop.data.instruct_recipe import InstructRecipe, InstructSource
from isoflop.data.instruct_rows import BadRow, checked

ARITHMETIC = ("sum", "difference", "product", "quotient", "expression")


def solved(question: str) -> Fraction:
    """The value of the expression in a question, by Python's own arithmetic on fractions."""
    found = re.search(r"[\d(][\d\s()+×÷-]*", question)
    assert found is not None
    text = re.sub(r"\d+", r"Fraction(\g<0>)", found[0].replace("×", "*").replace("÷", "/"))
    return eval(text, {"Fraction": Fraction})  # only digits and signs got here


def test_long_products_have_as_many_digits_as_the_difficulty_says() -> None:
    source = InstructSource(
        "generated", problems=("long-product",), difficulty=(4, 4), count=100, work="calculator"
    )
    for problem in generate(source, seed=3):
        one, other = problem.expression.split(" × ")
        assert len(one) == len(other) == 4
        assert problem.answer == str(int(one) * int(other))
        # Of one family with a product of the same numbers, so that both lie on one side.
        assert problem.family.startswith("product/")


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


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return path


def made_of(tmp_path: Path, *sources: InstructSource, **options: Any) -> InstructSet:
    recipe = InstructRecipe(sources, **{"held_out_fraction": 0.0, **options})
    return instruct(recipe, tmp_path / "set")


def test_programs_pass_their_tests_and_the_wrong_ones_do_not() -> None:
    source = InstructSource(
        "generated", problems=("code-number", "code-list"), difficulty=(1, 3), count=300
    )
    for problem in generate(source, 2):
        exec(f"{problem.solution()}\n{problem.tests}", {})  # of our own making
        with pytest.raises((AssertionError, TypeError)):
            exec(f"{problem.solution(problem.wrong)}\n{problem.tests}", {})


def test_generated_calls_ask_for_what_the_question_asks_and_get_the_answer(tmp_path: Path) -> None:
    kinds = (*ARITHMETIC, "units")
    source = InstructSource(
        "generated", problems=kinds, difficulty=(1, 4), count=600, work="calculator"
    )
    for row in made_of(tmp_path, source).rows("supervised", "train"):
        asked, call, result, said = row["messages"]
        arguments = call["tool_calls"][0]["function"]["arguments"]
        assert (
            solved(arguments["expression"])
            == Fraction(result["content"])
            == Fraction(row["answer"])
        )
        if row["problem"] != "units":
            assert solved(asked["content"]) == Fraction(row["answer"])
        assert is_right(said["content"], row["answer"])


def test_what_is_no_calculation_cannot_be_solved_by_calls(tmp_path: Path) -> None:
    source = InstructSource("generated", problems=("sum", "rank"), work="calculator")
    with pytest.raises(RecipeError, match="`rank` is no calculation"):
        made_of(tmp_path, source)


def test_a_table_of_questions_becomes_conversations_by_its_templates(tmp_path: Path) -> None:
    rows = [
        {"q": "Capital of France?", "a": "Paris", "why": "It is its seat.", "topic": "towns"},
        {"q": "Capital of Peru?", "a": "", "why": "?", "topic": "towns"},
        {"q": "2 + 2?", "a": 4, "why": "2 + 2 = 4.", "topic": "sums"},
    ]
    source = InstructSource(
        "question-answers", path=write_rows(tmp_path / "table.jsonl", rows), question="q",
        answer="a", steps="why", family="topic", prompt_template="Question on {topic}: {question}",
        completion_template="{steps} The answer is {answer}.",
    )  # fmt: skip
    made = made_of(tmp_path, source)
    assert [
        [m["content"] for m in row["messages"]] for row in made.rows("supervised", "train")
    ] == [
        ["Question on towns: Capital of France?", "It is its seat. The answer is Paris."],
        ["Question on sums: 2 + 2?", "2 + 2 = 4. The answer is 4."],
    ]
    assert [row["answer"] for row in made.rows("verifiable", "train")] == ["Paris", "4"]
    assert made.summary["sources"]["question-answers"]["dropped"] == {"missing answer": 1}


def test_alpaca_and_inst_forms_are_read_as_conversations(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Translate.", "input": "chat", "output": "cat"},
        {"instruction": "Greet.", "input": "", "output": "Hello."},
        {
            "text": "<s>[INST] <<SYS>>\nBe short.\n<</SYS>>\n\nHi? [/INST] Hi. </s>"
            "<s>[INST] Bye? [/INST] Bye.</s>"
        },
        {"text": "[INS] One? [/INS] Two."},
        {"text": "[INST] One?"},
    ]  # fmt: skip
    source = InstructSource("jsonl", path=write_rows(tmp_path / "rows.jsonl", rows))
    first, second, third, fourth = made_of(tmp_path, source).rows("supervised", "train")
    assert (first["prompt"], first["completion"]) == ("Translate.\n\nchat", "cat")
    assert second["prompt"] == "Greet."
    assert [(m["role"], m["content"]) for m in third["messages"]] == [
        ("system", "Be short."), ("user", "Hi?"), ("assistant", "Hi."),
        ("user", "Bye?"), ("assistant", "Bye."),
    ]  # fmt: skip
    assert [m["content"] for m in fourth["messages"]] == ["One?", "Two."]


def test_evaluation_items_are_kept_out_of_training(tmp_path: Path) -> None:
    item = "Which planet of the solar system has the most moons known to astronomers today?"
    write_rows(tmp_path / "eval.jsonl", [{"question": item}])
    rows = [
        {"prompt": f"Please tell me: {item}", "completion": "Saturn."},
        {"prompt": "a", "completion": "b"},
    ]
    source = InstructSource("jsonl", path=write_rows(tmp_path / "rows.jsonl", rows))
    tasks = (EvaluationSet(tmp_path / "eval.jsonl"),)
    made = made_of(tmp_path, source, decontaminate=DecontaminateConfig(tasks=tasks))
    assert [row["prompt"] for row in made.rows("supervised", "train")] == ["a"]
    assert made.summary["sources"]["jsonl"]["dropped"] == {"evaluation item": 1}


def test_flawed_answers_are_dropped_with_the_reason_and_kept_on_demand(tmp_path: Path) -> None:
    flawed = {
        "the answer repeats itself": "again and again " * 20,
        "the answer repeats the question": "Say it, please",
        "broken characters": "caf\ufffd",
        "speaks of being a language model": "As an AI language model, I have no taste.",
    }
    rows = [{"prompt": "Say it, please", "completion": text} for text in flawed.values()]
    rows.append({"prompt": "Say it, please", "completion": "It. " + " ".join(map(str, range(60)))})
    source = InstructSource("jsonl", path=write_rows(tmp_path / "rows.jsonl", rows))
    made = made_of(tmp_path, source)
    assert made.summary["sources"]["jsonl"] == {
        "kept": 1,
        "dropped": dict.fromkeys(sorted(flawed), 1),
    }
    assert made_of(tmp_path, source, drop_flawed=False).summary["sources"]["jsonl"]["kept"] == 5


def _called(*after: dict[str, Any], **function: Any) -> dict[str, Any]:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    return {"messages": [{"role": "user", "content": "?"}, call, *after]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (_called(name="f", arguments={}), "a tool call without its result"),
        (_called({"role": "user", "content": "?"}, name="f", arguments={}), "broken role order"),
        (_called(name="f<|im_end|>", arguments={}), "a tool call without a name"),
        (_called(name="f"), "a tool call without arguments"),
        ({"messages": [{"role": "user", "content": "?", "tool_calls": [{}]}]},
         "not one tool call of an assistant"),
    ],
)  # fmt: skip
def test_calls_out_of_form_are_bad_rows(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        checked(row)


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
    ('{"prompt": "c",  "chosen": "d", "rejected": "e"}', "duplicate"),
]


def test_bad_rows_are_listed_by_file_and_line_with_counts(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    good = [
        '{"prompt": "a", "completion": "good"}',
        '{"prompt": "c", "chosen": "d", "rejected": "e"}',
    ]
    lines = [*good, *(line for line, _ in BAD)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    source = InstructSource("jsonl", path=path)
    made = instruct(InstructRecipe((source,), held_out_fraction=0.0), tmp_path / "set")
    bad = [json.loads(line) for line in (tmp_path / "set" / BAD_ROWS).read_text().splitlines()]
    assert [(row["line"], row["reason"]) for row in bad] == [
        (number, reason) for number, (_, reason) in enumerate(BAD, 3)
    ]
    assert {row["file"] for row in bad} == {str(path)}
    assert made.summary["sources"]["jsonl"] == {
        "kept": 2, "dropped": dict(sorted(Counter(reason for _, reason in BAD).items()))
    }  # fmt: skip
    with pytest.raises(DataError, match=r"10 rows cannot be used: .*rows\.jsonl:3: not JSON"):
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
