"""`isoflop chat`: questions in the form of the training text, everything else as it is."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

import isoflop
from isoflop.cli import chat
from isoflop.cli.main import main
from isoflop.data.word_problems import word_problem
from isoflop.models.generate import Continuation


class _Echo:
    """A model that writes a fixed text and remembers what it was asked."""

    decoder = SimpleNamespace(config=SimpleNamespace(max_seq_len=8))

    def __init__(self, text: str = " 19. The answer is 19.") -> None:
        self.text, self.asked = text, []

    def generate(self, prompt, max_new_tokens, **options):
        self.asked.append((prompt, max_new_tokens, options))
        return Continuation(tuple(range(len(prompt))), (1, 2), self.text, "stop")


@pytest.fixture
def model(monkeypatch):
    echo = _Echo()
    monkeypatch.setattr(chat, "load", lambda directory: echo)
    return echo


@pytest.mark.parametrize(
    "prompt",
    ["What is 12 + 7?", "12+7=", "12 + 7", "12 plus 7?", "how much is 12+7", "Compute: 12 + 7."],
)
def test_an_english_sum_gets_the_question_form_and_the_beginning_of_its_step(prompt):
    framed = chat.frame(prompt)
    assert framed.sent == "Question: What is 12 + 7?\nAnswer: 12 + 7 ="
    assert framed.sent[framed.shown_from :] == "12 + 7 ="


@pytest.mark.parametrize(
    "prompt", ["12加7等于多少？", "计算12+7", "12 加上 7 是多少?", "请问12加7等于几？"]
)
def test_a_chinese_sum_gets_the_chinese_form(prompt):
    framed = chat.frame(prompt)
    assert framed.sent == "问题：12 + 7等于多少？\n答案：12 + 7 ="
    assert framed.sent[framed.shown_from :] == "12 + 7 ="


@pytest.mark.parametrize(("prompt", "step"), [("9*8=", "9 × 8 ="), ("30减4", "30 - 4 =")])
def test_signs_are_those_of_the_training_text(prompt, step):
    assert chat.frame(prompt).sent.endswith(step)


@pytest.mark.parametrize("index", range(20))
def test_a_question_of_the_training_text_gets_the_very_form_it_had_there(index):
    text, language = word_problem(0, index)
    mark, answer = ("Question: ", "\nAnswer:") if language == "en" else ("问题：", "\n答案：")
    form = text[: text.index(answer) + len(answer)]
    question = form.removeprefix(mark).removesuffix(answer)
    for prompt in (question, mark + question, form):
        framed = chat.frame(prompt)
        assert (framed.kind, framed.sent) == ("question", form)


@pytest.mark.parametrize(
    "prompt", ["def f(x):\n    return", "for i in range(10):", "The sun", "x = 12 + 7", "  12"]
)
def test_other_text_is_continued_as_it_is(prompt):
    framed = chat.frame(prompt)
    assert (framed.kind, framed.sent, framed.shown_from) == ("text", prompt, 0)


def test_one_prompt_gives_one_answer_and_says_what_was_sent(model, capsys):
    assert main(["chat", "m", "--prompt", "What is 12 + 7?", "--max-new-tokens", "9"]) == 0
    out, err = capsys.readouterr()
    assert out == "12 + 7 = 19. The answer is 19.\n"
    assert repr("Question: What is 12 + 7?\nAnswer: 12 + 7 =") in err
    ((_, limit, options),) = model.asked
    assert (limit, options["stop"]) == (9, ("\n",))
    assert "tokens; the model saw the last 8" in err


def test_text_is_shown_with_what_continues_it_and_not_stopped_at_line_ends(model, capsys):
    model.text = "\n    return x"
    main(["chat", "m", "--prompt", "def f(x):"])
    assert capsys.readouterr().out == "def f(x):\n    return x\n"
    assert model.asked[0][2]["stop"] == ()


def test_json_holds_the_prompt_that_was_sent(model, capsys):
    assert main(["chat", "m", "--prompt", "12+7=", "--json", "--temperature", "0.5"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sent"] == "Question: What is 12 + 7?\nAnswer: 12 + 7 ="
    assert document["answer"] == "12 + 7 = 19. The answer is 19."
    assert (document["prompt"], document["kind"]) == ("12+7=", "question")
    assert model.asked[0][2]["temperature"] == 0.5


def test_lines_from_a_pipe_are_answered_one_by_one(model, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("12+7=\n\n12加7=\n"))
    assert main(["chat", "m"]) == 0
    assert capsys.readouterr().out == "12 + 7 = 19. The answer is 19.\n" * 2


def test_lines_from_a_pipe_make_one_json_document(model, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("12+7=\nThe sun"))
    assert main(["chat", "m", "--json"]) == 0
    turns = json.loads(capsys.readouterr().out)["turns"]
    assert [turn["kind"] for turn in turns] == ["question", "text"]


def test_input_that_is_not_text_is_an_error(model, capsys, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"\xff\xfe\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["chat", "m"]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_a_missing_unfinished_or_enclosing_directory_is_told(tmp_path, capsys):
    assert main(["chat", str(tmp_path / "nowhere"), "--prompt", "x"]) == 2
    assert "no such model directory" in capsys.readouterr().err
    assert main(["chat", str(tmp_path), "--prompt", "x"]) == 2
    assert "not a finished model" in capsys.readouterr().err
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "manifest.json").write_text("{}")
    assert main(["chat", str(tmp_path), "--prompt", "x"]) == 2
    assert f"Open {tmp_path / 'model'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [["--max-new-tokens", "0"], ["--temperature", "hot"], ["--seeed"]]
)
def test_options_that_cannot_be_used_are_told(model, flags, capsys):
    assert main(["chat", "m", "--prompt", "x", *flags]) == 2
    assert capsys.readouterr().out == ""


def test_help_and_a_wrong_path_need_no_torch(tmp_path):
    script = (
        "import sys; from isoflop.cli.main import main; code = main(sys.argv[1:]); "
        "print(code, 'torch' in sys.modules)"
    )
    for args, code in ((["--help"], 0), ([str(tmp_path / "nowhere")], 2)):
        ran = subprocess.run(
            [sys.executable, "-c", script, "chat", *args], capture_output=True, text=True
        )
        assert ran.stdout.splitlines()[-1] == f"{code} False"


def test_load_is_public_and_imported_on_demand():
    assert "load" in dir(isoflop)
    assert isoflop.load.__module__ == "isoflop.loading"
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        isoflop.lod  # noqa: B018


# --- models with a chat template -----------------------------------------------------------


@pytest.fixture
def talking(tiny_shards, tmp_path, monkeypatch):
    """A model with a template that answers from a script; the prompts it is given as text."""
    from isoflop.alignment import tools
    from isoflop.alignment.chat import Chat, saved_template
    from isoflop.data.tokenizer import load as load_tokenizer

    folder = tmp_path / "model"
    shutil.copytree(tiny_shards.tokenizer_directory, folder)
    (folder / "manifest.json").unlink(missing_ok=True)
    talk = Chat(load_tokenizer(folder))
    (folder / "chat_template.jinja").write_text(talk.template)
    assert saved_template(folder) == talk.template
    decoder = SimpleNamespace(config=SimpleNamespace(max_seq_len=160))
    monkeypatch.setattr(chat, "load", lambda directory: SimpleNamespace(decoder=decoder))
    names = {index: name.encode() for name, index in talk.tokenizer.special_ids.items()}
    prompts, script = [], []

    def generate(decoder, prompt, most, **options):
        tokens = talk.tokenizer.token_bytes
        prompts.append(b"".join(names.get(i, tokens[i]) for i in prompt).decode())
        return talk.tokenizer.encode(script.pop(0), special=True)

    monkeypatch.setattr(tools, "generate", generate)
    return folder, prompts, script


def test_a_conversation_is_held_with_what_was_said_before(talking, monkeypatch, capsys):
    folder, prompts, script = talking
    script += ["Hi.<|im_end|>", "You said hello.<|im_end|>", "What?<|im_end|>"]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"hello\nwhat did I say?\n{'long ' * 12}\n"))
    assert main(["chat", str(folder), "--system", "Be kind.", "--max-new-tokens", "20"]) == 0
    assert capsys.readouterr().out == "Hi.\nYou said hello.\nWhat?\n"
    start = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n"
    assert prompts[0] == f"{start}hello<|im_end|>\n<|im_start|>assistant\n"
    assert prompts[1] == (
        f"{prompts[0]}Hi.<|im_end|>\n<|im_start|>user\nwhat did I say?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    # The oldest turns go where all do not fit; what the system said stays.
    assert prompts[2].startswith(f"{start}what did I say?<|im_end|>")


def test_a_call_is_run_and_told(talking, capsys):
    folder, _, script = talking
    arguments = '{"expression": "12 × 12"}'
    script += [f"<|im_start|>calculator\n{arguments}<|im_end|>", "It is 144.<|im_end|>"]
    assert main(["chat", str(folder), "--prompt", "12 × 12?", "--json"]) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert (said["kind"], said["answer"], said["finish"]) == ("chat", "It is 144.", "end")
    assert said["calls"] == [{"name": "calculator", "arguments": arguments, "result": "144"}]
    assert f"[calculator {arguments} → 144]" in err


def test_a_model_without_a_template_takes_no_system_message(model, capsys):
    assert main(["chat", "m", "--system", "Be kind.", "--prompt", "?"]) == 2
    assert "no chat template" in capsys.readouterr().err
