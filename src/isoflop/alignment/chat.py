"""Conversations as token ids by a Jinja chat template, with the exact spans to learn from.

A template is rendered with a mark in the place of each text and the texts are put in afterwards,
as ids: so the spans are known without searching, a user's text can never become a control token,
and what a model wrote earlier stays the ids it was. Not for packing (`packed.py`) nor training
(`sft.py`).
"""

from __future__ import annotations

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
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML, the form of Qwen: its two control tokens are in every tokenizer of ours."""
INST = (
    "{% set ns = namespace(system='') %}"
    "{% for message in messages %}"
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
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}")


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
        special = _special_names(tokenizer)
        try:
            self._compiled = environment.from_string(template, globals=special)
        except jinja2.TemplateError as error:
            raise self._wrong(f"the chat template is not valid: {error}") from None
        self.stop_id = self._find_stop()

    def segments(
        self, messages: Sequence[Mapping[str, Any]], prompt: bool = False
    ) -> list[Segment]:
        """A conversation in parts, control tokens and texts apart.

        Args:
            messages: `{role, content}`; an assistant's may have `ids`, what it was generated as
                (without the token that ended it), which are then taken as they are.
            prompt: End with what makes an assistant begin.

        Raises:
            DataError: The template refuses the conversation.
        """
        rendered = self._rendered(messages, prompt)
        segments: list[Segment] = []
        at, answered = 0, False
        for mark in _MARK.finditer(rendered):
            segments += self._control(rendered[at : mark.start()], answered)
            message = messages[int(mark.group(1))]
            answered = message["role"] == "assistant"
            ids = message.get("ids")
            if ids is None or not answered:
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
        """The text of what a model wrote, without the token that ended it."""
        return self.tokenizer.decode(ids)

    def _control(self, text: str, after_answer: bool) -> list[Segment]:
        """The template's own text; the part up to its first special token ends an answer."""
        ids = tuple(self.tokenizer.encode(text, special=True))
        if not after_answer:
            return [Segment(ids, False, content=False)]
        special = set(self.tokenizer.special_ids.values())
        end = next((place for place, index in enumerate(ids) if index in special), -1) + 1
        return [Segment(ids[:end], True, False), Segment(ids[end:], False, False)]

    def _rendered(self, messages: Sequence[Mapping[str, Any]], prompt: bool) -> str:
        marked = [
            {**message, "content": f"{_OPEN}{number}{_CLOSE}"}
            for number, message in enumerate(messages)
        ]
        try:
            rendered = self._compiled.render(messages=marked, add_generation_prompt=prompt)
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise self._wrong(f"the chat template refuses this conversation: {error}") from None
        found = [int(mark.group(1)) for mark in _MARK.finditer(rendered)]
        if found != [*range(len(messages))]:
            raise self._wrong(
                f"the chat template writes the texts {found} of {len(messages)} messages: each "
                "must stand there once, in order"
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


def open_chat(tokenizer: Tokenizer, name: str | None = None) -> Chat:
    """The chat of a template's name or file; else of the one in the tokenizer's directory, and of
    `chatml` if there is none.

    Raises:
        DataError: There is no such template, or it cannot be used.
    """
    if name in TEMPLATES:
        return Chat(tokenizer, TEMPLATES[name], name)
    if name is not None:
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
