"""`isoflop chat`: ask a model, or have it continue a text; not for serving it to others.

A model with a chat template (one of `isoflop sft`) holds a conversation: it sees the turns before,
and may call the calculator. The base model of a demo knows questions in one form, that of the word
problems it was trained on (`data/word_problems.py`). What looks like a question is put in that
form, and what was really sent is shown.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, parse_arguments
from isoflop.core.console import print_result, warn
from isoflop.core.errors import RecipeError
from isoflop.loading import load

if TYPE_CHECKING:
    from isoflop.alignment.chat import Chat
    from isoflop.models.decoder import Decoder
    from isoflop.models.generate import Model


@dataclass(frozen=True)
class ChatArguments(Arguments):
    """Ask a model, or have it continue a text: one --prompt, or line after line."""

    model: Positional[Path]
    """A model directory: `model/` in that of a demo or a run."""
    prompt: str | None = None
    """One question or text. Without it, lines are read from the terminal or a pipe."""
    max_new_tokens: int = 128
    """Most tokens to write."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; 1 samples as the model believes."""
    seed: int = 0
    """Fixes the samples."""
    system: str | None = None
    """What a model with a chat template is told before the conversation."""


@dataclass(frozen=True)
class Framed:
    """A user's text in the form the model was trained on."""

    kind: Literal["question", "text"]
    sent: str
    """The prompt that the model continues."""
    shown_from: int
    """Where in `sent` begins what is shown with the continuation."""


@dataclass(frozen=True)
class Turn:
    """One exchange."""

    prompt: str
    """What the user wrote."""
    kind: str
    """`chat`: a turn of a conversation, by the model's template; `question`: put in the form of
    the word problems; `text`: continued as it is."""
    sent: str
    """The prompt that the model continued, special tokens left out."""
    text: str
    """What it wrote after `sent`."""
    answer: str
    """What the user sees: the answer with its worked step, or the text continued."""
    finish: str
    """`end` of the document, `stop` at the end of the answer, or `length`."""
    prompt_tokens: int
    new_tokens: int
    seconds: float
    calls: tuple[dict[str, str], ...] = ()
    """Tools that were called: `{name, arguments, result}`."""


def run(args: list[str]) -> int:
    """Run the command; 0, or 2 (raised) if the model or an option cannot be used."""
    arguments = parse_arguments(ChatArguments, args, "chat")
    if arguments.max_new_tokens < 1:
        raise RecipeError("it must be at least 1", where="--max-new-tokens")
    ask = _asker(load(arguments.model), arguments)
    if arguments.prompt is not None:
        turn = ask(arguments.prompt)
        print_result({"model": arguments.model, **asdict(turn)}, turn.answer, arguments.json)
        return 0
    turns = []
    for line in _lines(arguments):
        turns.append(ask(line))
        if not arguments.json:
            print(turns[-1].answer, flush=True)
    if arguments.json:
        document: dict[str, Any] = {"model": arguments.model, "turns": [asdict(t) for t in turns]}
        print_result(document, "", json_mode=True)
    return 0


def _asker(model: Model, arguments: ChatArguments) -> Callable[[str], Turn]:
    """What answers a line: a conversation if the model has a chat template, else each by itself."""
    from isoflop.alignment.chat import open_chat, saved_template
    from isoflop.data.tokenizer import load as load_tokenizer

    if saved_template(arguments.model) is None:
        if arguments.system is not None:
            raise RecipeError(
                "the model has no chat template, so it takes no system message",
                where="--system",
                fix="Fine-tune it with `isoflop sft`",
            )
        return partial(_ask, model, arguments=arguments)
    chat = open_chat(load_tokenizer(arguments.model))
    system: list[Mapping[str, Any]] = []
    if arguments.system is not None:
        system.append({"role": "system", "content": arguments.system})
    return partial(_say, model.decoder, chat, system, [], arguments=arguments)


def _say(
    decoder: Decoder,
    chat: Chat,
    system: list[Mapping[str, Any]],
    turns: list[list[Mapping[str, Any]]],
    text: str,
    arguments: ChatArguments,
) -> Turn:
    """A turn of a conversation, which is added to `turns`; the oldest go where all do not fit."""
    from isoflop.alignment.tools import answer

    turns.append([{"role": "user", "content": text}])
    began, context = time.perf_counter(), decoder.config.max_seq_len
    while True:
        ids = chat.prompt_ids([*system, *(message for turn in turns for message in turn)])
        if len(turns) == 1 or len(ids) + arguments.max_new_tokens <= context:
            break
        del turns[0]
    if len(ids) > context:
        warn(f"the prompt has {len(ids)} tokens; the model saw the last {context}")
    said = answer(
        decoder, chat, ids, arguments.max_new_tokens,
        temperature=arguments.temperature, seed=arguments.seed,
    )  # fmt: skip
    turns[-1] += said.messages
    for call in said.calls:
        print(f"[{call.name} {call.arguments} → {call.result}]", file=sys.stderr, flush=True)
    return Turn(
        prompt=text,
        kind="chat",
        sent=chat.decode(ids),
        text=said.text,
        answer=said.text,
        finish="end" if said.ended else "length",
        prompt_tokens=len(ids),
        new_tokens=said.new_tokens,
        seconds=time.perf_counter() - began,
        calls=tuple(vars(call) for call in said.calls),
    )


def _ask(model: Model, prompt: str, arguments: ChatArguments) -> Turn:
    framed = frame(prompt)
    began = time.perf_counter()
    said = model.generate(
        framed.sent,
        arguments.max_new_tokens,
        temperature=arguments.temperature,
        seed=arguments.seed,
        stop=("\n",) if framed.kind == "question" else (),
    )
    seconds = time.perf_counter() - began
    context = model.decoder.config.max_seq_len
    if len(said.prompt_ids) > context:
        warn(f"the prompt has {len(said.prompt_ids)} tokens; the model saw the last {context}")
    if framed.sent != prompt:
        print(f"[sent to the model: {framed.sent!r}]", file=sys.stderr, flush=True)
    return Turn(
        prompt=prompt,
        kind=framed.kind,
        sent=framed.sent,
        text=said.text,
        answer=(framed.sent[framed.shown_from :] + said.text).strip("\n"),
        finish=said.finish,
        prompt_tokens=len(said.prompt_ids),
        new_tokens=len(said.ids),
        seconds=seconds,
    )


def _lines(arguments: ChatArguments) -> Iterator[str]:
    """The lines a user types or pipes in, without empty ones, until the input ends."""
    if not sys.stdin.isatty():
        try:
            yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        except UnicodeDecodeError as error:
            raise RecipeError(f"the text is not UTF-8 ({error.reason})", where="stdin") from None
        return
    print(f"{arguments.model}: ask, or begin a text and it goes on. Ctrl-D ends.", file=sys.stderr)
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        try:
            line = input()
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return
        if line.strip():
            yield line


# --- the form of the word problems ---------------------------------------------------------

_SUM = re.compile(
    r"(?:(?:what(?:'s| is)|how much is|calculate|compute|计算|请问|算一下)\s*[:：]?\s*)?"
    r"(?P<a>\d+)\s*(?P<sign>[-+*x×−加减乘]|plus|minus|times|加上|减去|乘以)\s*(?P<b>\d+)"
    r"\s*(?:=|＝|等于|是|得)?\s*(?:多少|几)?\s*[?？。.]?",
    re.IGNORECASE,
)
_SIGNS = {
    "+": "+", "加": "+", "加上": "+", "plus": "+",
    "-": "-", "−": "-", "减": "-", "减去": "-", "minus": "-",
    "*": "×", "x": "×", "×": "×", "乘": "×", "乘以": "×", "times": "×",
}  # fmt: skip
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def frame(prompt: str) -> Framed:
    """Put a question in the form of the word problems; leave any other text as it is.

    A bare sum (`12+7=`, `What is 12 + 7?`, `12加7等于多少？`) also gets the beginning of the worked
    step, `12 + 7 =`: the model has seen sums in steps, never as a question of their own.
    """
    text = prompt.strip()
    bare = _SUM.fullmatch(text)
    if bare:
        step = f"{bare['a']} {_SIGNS[bare['sign'].lower()]} {bare['b']}"
        if _CHINESE.search(text):
            return _question(f"问题：{step}等于多少？\n答案：", f"{step} =")
        return _question(f"Question: What is {step}?\nAnswer: ", f"{step} =")
    if text.startswith(("Question:", "问题：")):
        answered = "\nAnswer:" in text or "\n答案：" in text
        form = "" if answered else "\nAnswer:" if text.startswith("Question:") else "\n答案："
        return _question(text + form, "")
    if text.endswith(("?", "？")):
        if _CHINESE.search(text):
            return _question(f"问题：{text}\n答案：", "")
        return _question(f"Question: {text}\nAnswer:", "")
    return Framed("text", prompt, shown_from=0)


def _question(form: str, begun: str) -> Framed:
    return Framed("question", form + begun, shown_from=len(form))
