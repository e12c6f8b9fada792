"""`isoflop.evaluate` and `isoflop eval`: what is written, that it repeats, and what is refused."""

from __future__ import annotations

import json
import math

import pytest

import isoflop
from isoflop.cli.main import main
from isoflop.core.artifact import read_manifest
from isoflop.core.errors import RecipeError
from isoflop.evaluation.likelihood import loglikelihood_rolling
from isoflop.evaluation.tasks.registry import TASKS

OFFLINE = [name for name, task in TASKS.items() if task.takes != "needs a file"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of every form that tasks read."""
    folder = tmp_path_factory.mktemp("files")
    mmlu = folder / "mmlu.csv"
    mmlu.write_text('"2 + 2?",3,4,5,6,B\n"A, or B?",x,y,z,w,A\n')
    ceval = folder / "ceval.csv"
    ceval.write_text("id,question,A,B,C,D,answer,explanation\n0,一加一等于____,1,2,3,4,B,简单\n")
    questions = folder / "questions.jsonl"
    questions.write_text(
        '{"question": "Up?", "choices": ["yes", "no"], "answer": 1}\n'
        '{"question": "Down?", "choices": {"text": ["a", "b", "c"], "label": ["1", "2", "3"]}, '
        '"answerKey": "3"}\n'
    )
    blimp = folder / "blimp.jsonl"
    blimp.write_text('{"sentence_good": "He runs.", "sentence_bad": "He run.", "UID": "agree"}\n')
    wiki = folder / "wiki.txt"
    wiki.write_text(" \n = One = \n \n Some <unk> text . \n\n = Two = \n\n == Part == \n More .\n")
    texts = folder / "texts.jsonl"
    texts.write_text(
        '{"text": "Tom has 3 apples.", "language": "en"}\n'
        '{"text": "小明有三个苹果。小明有三个苹果。", "language": "zh"}\n'
    )
    lambada = folder / "lambada.jsonl"
    lambada.write_text('{"text": "Tom has three apples"}\n')
    return folder


@pytest.fixture(scope="module")
def evaluation(model_directory, files, tmp_path_factory):
    """Every task with two items a group; (what Python returns, the directory, the tasks)."""
    tasks = [
        *OFFLINE,
        f"multiple_choice={files / 'mmlu.csv'}", f"multiple_choice={files / 'ceval.csv'}",
        f"multiple_choice={files / 'questions.jsonl'}",
        f"minimal_pairs={files / 'blimp.jsonl'}", f"perplexity={files / 'wiki.txt'}",
        f"bits_per_byte={files / 'texts.jsonl'}", f"cloze={files / 'lambada.jsonl'}",
    ]  # fmt: skip
    out = tmp_path_factory.mktemp("evaluation") / "out"
    return isoflop.evaluate(model_directory, tasks, out, limit=2), out, tasks


def test_every_task_has_a_score_with_interval_chance_and_items(evaluation):
    found, out, tasks = evaluation
    read_manifest(out, "evaluation", verify=True)
    results = json.loads((out / "results.json").read_text())
    assert len(results) == len(tasks)
    assert results == json.loads(json.dumps(found.document()))
    for name, figures in results.items():
        assert figures["n"] >= 1, name
        if figures["low"] is not None:
            assert figures["low"] <= figures["score"] <= figures["high"]
        if figures["metric"] == "accuracy":
            assert 0 < figures["chance"] <= 0.5
    assert results["icl_mapping"]["chance"] == 0.25
    assert set(results["icl_mapping"]["groups"]) == {
        *(f"k={k}" for k in (0, 1, 2, 4, 8, 16)), "k=16, answers shuffled",
    }  # fmt: skip


def test_items_keep_every_options_log_probability_and_give_the_score_again(evaluation):
    _, out, _ = evaluation
    results = json.loads((out / "results.json").read_text())
    rows = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    for name, figures in results.items():
        mine = [row for row in rows if row["task"] == name and row["counts"]]
        assert len(mine) == figures["n"]
        total = math.fsum(row["score"] for row in mine) / math.fsum(row["weight"] for row in mine)
        assert total == pytest.approx(figures["score"])
        for row in mine:
            if figures["metric"] == "accuracy":
                logprobs = row["detail"]["logprobs"]
                assert len(logprobs) == len(row["detail"]["options"])
                best = logprobs.index(max(logprobs))
                assert row["score"] == (best == row["detail"]["gold"])


def test_files_are_read_as_they_are_meant(evaluation):
    _, out, _ = evaluation
    rows = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    of = {
        name: [row["detail"] for row in rows if row["task"] == name]
        for name in {r["task"] for r in rows}
    }
    assert of["multiple_choice:mmlu"][0]["context"] == "2 + 2?\nA. 3\nB. 4\nC. 5\nD. 6\nAnswer:"
    assert [item["gold"] for item in of["multiple_choice:mmlu"]] == [1, 0]
    assert of["multiple_choice:ceval"][0]["context"].endswith("D. 4\n答案：")
    assert of["multiple_choice:ceval"][0]["options"] == ["A", "B", "C", "D"]
    assert [item["gold"] for item in of["multiple_choice:questions"]] == [1, 2]
    assert of["minimal_pairs:blimp"][0]["options"] == ["He runs.", "He run."]
    assert of["cloze:lambada"][0]["gold"] == " apples"
    assert len(of["perplexity:wiki"]) == 2


def test_bits_per_byte_of_a_group_are_those_of_its_texts(evaluation, subject):
    found, _, _ = evaluation
    groups = found.results["bits_per_byte:texts"].groups
    (one,) = loglikelihood_rolling(subject, ["Tom has 3 apples."])
    assert groups["en"].score == pytest.approx(-one.logprob / math.log(2) / 17)
    assert groups["en"].low is None  # one document tells no interval


def test_the_same_command_gives_the_same_bytes(evaluation, model_directory, tmp_path):
    _, out, _ = evaluation
    names = ["minimal_pairs", "icl_linear", "instructions"]
    isoflop.evaluate(model_directory, names, tmp_path / "a", limit=2, batch_tokens=500)
    again = [json.loads(line) for line in (tmp_path / "a" / "items.jsonl").read_text().splitlines()]
    before = [json.loads(line) for line in (out / "items.jsonl").read_text().splitlines()]
    assert [row for row in before if row["task"] in names] == sorted(
        again, key=lambda row: OFFLINE.index(row["task"])
    )


def test_the_command_compares_item_by_item(evaluation, model_directory, tmp_path, capsys):
    _, out, _ = evaluation
    args = ["eval", str(model_directory), "--tasks", "cloze,induction", "--compare", str(out)]
    assert main([*args, "-o", str(tmp_path / "a"), "--limit", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    difference = document["comparison"]["differences"]["cloze"]
    assert (difference["value"], difference["p"], difference["n"]) == (0, 1, 4)
    assert main([*args, "-o", str(tmp_path / "b"), "--limit", "1"]) == 0
    page = capsys.readouterr().out
    assert "the items are not the same" in page
    assert "95 % interval" in page
    assert "at chance" in page


def test_the_list_shows_every_task(capsys):
    assert main(["eval", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(TASKS)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (["clozes"], "Did you mean `cloze`"), ([], "no task is named"),
        (["perplexity"], "perplexity=PATH"), (["arithmetic=x"], "takes no file"),
        (["cloze", "cloze"], "named twice"), (["cloze=nowhere.jsonl"], "no such file"),
    ],
)  # fmt: skip
def test_tasks_that_cannot_be_run_are_refused_before_the_model_is_read(tasks, said):
    with pytest.raises(RecipeError, match=said):
        isoflop.evaluate("nowhere", tasks)


@pytest.mark.parametrize(
    ("name", "content", "task"),
    [
        ("a.jsonl", '{"question": "x"}', "multiple_choice"),
        ("a.csv", "q,A,B,C,D,Z\n", "multiple_choice"),
        ("a.jsonl", '{"sentence_good": "x"}', "minimal_pairs"),
        ("a.jsonl", '{"text": "one"}', "cloze"),
        ("a.jsonl", "[]", "bits_per_byte"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(model_directory, tmp_path, capsys, name, content, task):
    path = tmp_path / name
    path.write_text(content)
    args = ["eval", str(model_directory), "--tasks", f"{task}={path}", "-o", str(tmp_path / "out")]
    assert main(args) == 2
    assert f"{path}:1: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "task", ["cloze", "minimal_pairs", "multiple_choice", "texts", "perplexity", "bits_per_byte"]
)
def test_a_file_that_is_no_text_is_named(model_directory, tmp_path, capsys, task):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xff\xfe{")
    args = ["eval", str(model_directory), "--tasks", f"{task}={path}", "-o", str(tmp_path / "out")]
    assert main(args) == 2
    assert f"{path}: the text is not UTF-8" in capsys.readouterr().err


def test_a_byte_order_mark_and_a_line_separator_in_a_string_are_no_trouble(
    model_directory, tmp_path
):
    path = tmp_path / "a.jsonl"
    row = '{"question": "one\u2028two", "choices": ["x", "y"], "answer": "B"}'
    path.write_bytes(b"\xef\xbb\xbf" + row.encode() + b"\r\n")
    found = isoflop.evaluate(model_directory, [f"multiple_choice={path}"])
    assert found.results["multiple_choice:a"].scored.n == 1


def test_further_figures_stand_in_words_below_the_table(model_directory, tmp_path, capsys):
    args = ["eval", str(model_directory), "--tasks", "cloze", "--limit", "2", "-o"]
    assert main([*args, str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    extra = json.loads((tmp_path / "out" / "results.json").read_text())["cloze"]["extra"]
    assert f"cloze, beside it: accuracy_per_byte {extra['accuracy_per_byte']:.4g}; " in said
