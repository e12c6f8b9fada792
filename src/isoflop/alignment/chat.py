"""Conversations as token ids by a Jinja chat template, with the exact spans to learn from.

A template is rendered with a mark in the place of each text and the texts are put in afterwards,
as ids: so the spans are known without searching, a user's text can never become a control token,
and what a model wrote earlier stays the ids it was. Not for packing (`packed.py`) nor training
(`sft.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox

from isoflop.core.artifact import read_json
from isoflop.core.errors import DataError
from isoflop.data.tokenizer import Tokenizer

TEMPLATE_FILE = "chat_template.jinja"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}"
    "{{ '<|im_start|>' + call['function']['name'] + '\\n' }}"
    "{% if call['function']['arguments'] is string %}{{ call['function']['arguments'] }}"
    "{% else %}{{ call['function']['arguments'] | tojson }}{% endif %}"
    "{% endfor %}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML, the form of Qwen: its two control tokens are in every tokenizer of ours.

A call of a tool ends an assistant's turn: `<|im_start|>`, which stands nowhere else inside a turn,
the tool's name, a new line and the arguments as JSON. A turn of the role `tool` has the result.
"""
INST = (
    "{% set ns = namespace(system='') %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'tool' %}{{ raise_exception('it has no form for tools') }}{% endif %}"
    "{% if message['role'] == 'system' %}"
    "{% set ns.system = '<<SYS>>\\n' + message['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% elif message['role'] == 'user' %}"
    "{{ '[INST] ' + ns.system + message['content'] + ' [/INST]' }}{% set ns.system = '' %}"
    "{% else %}{{ ' ' + message['content'] + '<|endoftext|>' }}{% endif %}"
    "{% endfor %}"
)
"""The form of Llama 2 (Touvron et al. 2023), ended by our end of text."""
ALPACA = (
    "{% for message in messages %}"
    "{% if message['role'] == 'tool' %}{{ raise_exception('it has no form for tools') }}{% endif %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}"
    "{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}"
    "{% else %}{{ '### Response:\\n' + message['content'] + '<|endoftext|>\\n\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)
"""The form of Alpaca (Taori et al. 2023), ended by our end of text."""
TEMPLATES: Mapping[str, str] = {"chatml": CHATML, "inst": INST, "alpaca": ALPACA}

# Two characters of a private plane around the number of a text: no one writes them.
_OPEN, _CLOSE = "\U0010fffc", "\U0010fffd"
_MARK = re.compile(f"{_OPEN}(\\d+)(c?){_CLOSE}")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Segment:
    """A run of ids that belong together."""

    ids: tuple[int, ...]
    supervised: bool
    """Whether a model is to learn to write them."""
    content: bool
    """Text of a message, which may be cut; the template's own tokens may not."""


@dataclass(frozen=True)
class Encoded:
    """A conversation as ids."""

    ids: tuple[int, ...]
    supervised: tuple[bool, ...]
    """Of each id, whether a model is to learn to write it."""
    cut: bool = False
    """Whether it was longer."""

    @property
    def n_supervised(self) -> int:
        """Ids to learn."""
        return sum(self.supervised)


class Chat:
    """A tokenizer with a chat template.

    Args:
        template: Jinja, as in `chat_template.jinja` of transformers.
        where: What to call the template in messages.

    Raises:
        DataError: The template has an error, changes texts, or lets an assistant's turn end
            without a token to learn to stop at.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: str = CHATML, where: str = TEMPLATE_FILE
    ) -> None:
        self.tokenizer, self.template, self._where = tokenizer, template, where
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = self._refuse
        environment.filters["tojson"] = _as_json
        special = _special_names(tokenizer)
        try:
            self._compiled = environment.from_string(template, globals=special)
        except jinja2.TemplateError as error:
            raise self._wrong(f"the chat template is not valid: {error}") from None
        self.stop_id = self._find_stop()
        """Ends an assistant's turn."""

    def segments(
        self, messages: Sequence[Mapping[str, Any]], prompt: bool = False
    ) -> list[Segment]:
        """A conversation in parts, control tokens and texts apart.

        Args:
            messages: `{role, content}`; an assistant's may have `tool_calls` (in the form of
                OpenAI, one at most) and `ids`, what the whole turn was generated as (without the
                token that ended it), which are then taken as they are.
            prompt: End with what makes an assistant begin.

        Raises:
            DataError: The template refuses the conversation, a role is unknown, or a call is not
                in that form.
        """
        messages = [_plain(message) for message in messages]
        rendered = self._rendered(messages, prompt)
        segments: list[Segment] = []
        at, answered = 0, False
        for mark in _MARK.finditer(rendered):
            message = messages[int(mark.group(1))]
            is_call = bool(mark.group(2))
            segments += self._control(rendered[at : mark.start()], answered, to_the_end=is_call)
            answered = message["role"] == "assistant"
            if is_call:
                text = _arguments(message)
                segments.append(Segment(tuple(self.tokenizer.encode(text)), True, content=False))
            else:
                ids = message.get("ids") if answered else None
                if ids is None:
                    ids = self.tokenizer.encode(message["content"])
                segments.append(Segment(tuple(ids), answered, content=True))
            at = mark.end()
        segments += self._control(rendered[at:], answered)
        return [segment for segment in segments if segment.ids]

    def encode(
        self, messages: Sequence[Mapping[str, Any]], max_tokens: int | None = None
    ) -> Encoded:
        """The ids of a conversation and which of them to learn.

        A conversation that is too long is cut within a text or between turns, never within the
        template's tokens; what follows the last id to learn then goes too.

        Raises:
            DataError: As `segments`.
        """
        ids: list[int] = []
        supervised: list[bool] = []
        cut = False
        for segment in self.segments(messages):
            room = None if max_tokens is None else max_tokens - len(ids)
            kept = segment.ids
            if room is not None and len(kept) > room:
                cut = True
                kept = kept[:room] if segment.content else ()
            ids += kept
            supervised += [segment.supervised] * len(kept)
            if cut:
                break
        while cut and supervised and not supervised[-1]:
            ids.pop()
            supervised.pop()
        return Encoded(tuple(ids), tuple(supervised), cut)

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """The ids of a conversation that an assistant is to go on with.

        Raises:
            DataError: As `segments`.
        """
        return [index for segment in self.segments(messages, prompt=True) for index in segment.ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of what a model wrote, without the token that ended it; with U+FFFD at its end,
        so that it is no right answer, where it holds rows of the model that have no token."""
        known = [index for index in ids if index < self.tokenizer.vocab_size]
        return self.tokenizer.decode(known) + ("" if len(known) == len(ids) else "\ufffd")

    def call_ids(self, tool: str) -> tuple[int, ...] | None:
        """The ids with which an assistant begins to call a tool, a control token first; None if
        the template has no form for calls.

        Raises:
            DataError: The tool's name is none.
        """
        call = {"type": "function", "function": {"name": tool, "arguments": "?"}}
        turns: list[dict[str, Any]] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        _call_of(turns[1])
        try:
            opening = next(s for s in self.segments(turns) if s.supervised and not s.content).ids
        except DataError:
            return None
        return opening if opening[0] in set(self.tokenizer.special_ids.values()) else None

    def result_ids(self, result: str) -> list[int]:
        """The ids from the end of a turn that called a tool to where the assistant goes on.

        Raises:
            DataError: As `segments`.
        """
        turns = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "!"},
            {"role": "tool", "content": result},
        ]
        segments = self.segments(turns, prompt=True)
        last = max(number for number, segment in enumerate(segments) if segment.supervised)
        return [index for segment in segments[last + 1 :] for index in segment.ids]

    def _control(self, text: str, after_answer: bool, to_the_end: bool = False) -> list[Segment]:
        """The template's own text; after an answer a model learns the part up to its first special
        token, which ends the turn, or all of it before the arguments of a call."""
        ids = tuple(self.tokenizer.encode(text, special=True))
        if not after_answer or to_the_end:
            return [Segment(ids, to_the_end, content=False)]
        special = set(self.tokenizer.special_ids.values())
        end = next((place for place, index in enumerate(ids) if index in special), -1) + 1
        return [Segment(ids[:end], True, False), Segment(ids[end:], False, False)]

    def _rendered(self, messages: Sequence[Mapping[str, Any]], prompt: bool) -> str:
        marked, wanted = [], []
        for number, message in enumerate(messages):
            copy = {**message, "content": f"{_OPEN}{number}{_CLOSE}"}
            wanted.append((str(number), ""))
            if message.get("tool_calls"):
                name, mark = _call_of(message)[0], f"{_OPEN}{number}c{_CLOSE}"
                function = {"name": name, "arguments": mark}
                copy["tool_calls"] = [{"type": "function", "function": function}]
                wanted.append((str(number), "c"))
            marked.append(copy)
        try:
            rendered = self._compiled.render(messages=marked, add_generation_prompt=prompt)
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise self._wrong(f"the chat template refuses this conversation: {error}") from None
        found = _MARK.findall(rendered)
        if found != wanted:
            raise self._wrong(
                f"the chat template writes the texts {[a + b for a, b in found]} of "
                f"{[a + b for a, b in wanted]} (c: a call's arguments): each must stand there "
                "once, in order"
            )
        return rendered

    def _find_stop(self) -> int:
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        ends = [s for s in self.segments(messages) if s.supervised and not s.content]
        if not ends:
            raise self._wrong(
                "no special token follows an assistant's text: a model could not learn to stop"
            )
        return ends[-1].ids[-1]

    def _refuse(self, message: str) -> None:
        raise jinja2.TemplateError(message)

    def _wrong(self, what: str) -> DataError:
        return DataError(what, where=self._where, fix="Mend the template, or take chatml")


def _plain(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message after checking its role, without the calls that its ids already hold."""
    if message.get("role") not in ROLES:
        raise DataError(f"the role {message.get('role')!r} is none of {', '.join(ROLES)}")
    if message.get("ids") is not None and message.get("tool_calls"):
        return {key: value for key, value in message.items() if key != "tool_calls"}
    return message


def _call_of(message: Mapping[str, Any]) -> tuple[str, Any]:
    """Name and arguments of a message's one call."""
    calls = message["tool_calls"]
    if not isinstance(calls, list) or len(calls) != 1:
        raise DataError("a turn may call one tool", fix="Put each call in a turn of its own")
    call = calls[0] if isinstance(calls[0], dict) else {}
    function = call["function"] if isinstance(call.get("function"), dict) else {}
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "arguments" not in function:
        raise DataError(
            "a call is not in the form {function: {name, arguments}}",
            fix="A name has letters, digits, _ and -, at most 64",
        )
    return name, function["arguments"]


def _arguments(message: Mapping[str, Any]) -> str:
    given = _call_of(message)[1]
    return given if isinstance(given, str) else _as_json(given)


def _as_json(value: Any) -> str:
    """As the `tojson` of transformers: no character is escaped that need not be."""
    return json.dumps(value, ensure_ascii=False)


def open_chat(tokenizer: Tokenizer, name: str | None = None) -> Chat:
    """The chat of a template's name or file; else of the one in the tokenizer's directory, and of
    `chatml` if there is none.

    Raises:
        DataError: There is no such template, or it cannot be used.
    """
    if name is not None:
        if name in TEMPLATES:
            return Chat(tokenizer, TEMPLATES[name], name)
        try:
            return Chat(tokenizer, Path(name).read_text(encoding="utf-8"), name)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"no such chat template ({error})",
                where=name,
                fix=f"Give a file, or one of {', '.join(TEMPLATES)}",
            ) from None
    own = saved_template(tokenizer.directory)
    return Chat(tokenizer) if own is None else Chat(tokenizer, own, str(tokenizer.directory))


def saved_template(directory: Path) -> str | None:
    """The chat template of a model directory, from its file or from `tokenizer_config.json`."""
    path = directory / TEMPLATE_FILE
    if path.exists():
        return path.read_text(encoding="utf-8")
    config = directory / "tokenizer_config.json"
    found = read_json(config).get("chat_template") if config.exists() else None
    return found if isinstance(found, str) else None


def _special_names(tokenizer: Tokenizer) -> dict[str, str]:
    """`bos_token`, `eos_token` and `pad_token`, which templates may write."""
    path = tokenizer.directory / "tokenizer_config.json"
    config = read_json(path) if path.exists() else {}
    names = {}
    for key in ("bos_token", "eos_token", "pad_token"):
        value = config.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        names[key] = value if isinstance(value, str) else ""
    return names
