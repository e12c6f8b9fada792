"""Conversations as token ids by the model's own chat template; not for training on them.

The template of a model directory is Jinja and untrusted: it is rendered in a sandbox. Text of the
conversation never becomes a special token, whatever it spells.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from isoflop.core.artifact import read_json
from isoflop.core.errors import ArtifactError, RecipeError
from isoflop.serving.vocabulary import Vocabulary

TEMPLATE, TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') }}"
    "{{ '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The form of a conversation with a model that brings none: ChatML without a default system prompt
and without tools."""
TURN_END = "<|im_end|>"
ENDS = (TURN_END, "<|endoftext|>", "<|eot_id|>", "</s>", "<|end|>")
"""Special tokens that end a turn, where the vocabulary has them."""

_BREAK = "\U0010fff7"
"""Put inside special tokens that a user spells, and taken out after rendering; of a private plane
that no text uses."""


class ChatTemplate:
    """A model's chat template.

    Raises:
        ArtifactError: It is no valid Jinja.
    """

    def __init__(self, vocabulary: Vocabulary, source: str, where: str) -> None:
        self.vocabulary, self.source = vocabulary, source
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = time.strftime
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ArtifactError(f"the chat template is not valid: {error}", where=where) from None
        self.calls_by_tag = "<tool_call>" in source
        """Whether calls are written as in Qwen and Hermes: `<tool_call>{JSON}</tool_call>`."""
        self.calls_by_turn = not self.calls_by_tag and "tool_calls" in source
        """Whether a call is `<|im_start|>`, the tool's name, a new line and JSON at the end of a
        turn, as Isoflop trains it."""
        special = vocabulary.special_ids
        self.stop_ids = frozenset(special[name] for name in ENDS if name in special)
        # What a user spells is broken wherever a special token begins, even one cut off by the end.
        names = [name for name in special if len(name) > 1]
        starts = {name[:size] for name in names for size in range(1, len(name))}
        whole = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        cut = "|".join(re.escape(part) for part in sorted(starts, key=len, reverse=True))
        self._spelled = re.compile(f"(?:{whole})|(?:{cut})$") if names else None

    @property
    def knows_tools(self) -> bool:
        """Whether conversations may have tools."""
        return self.calls_by_tag or self.calls_by_turn

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[str, list[int]]:
        """The prompt that an assistant's answer continues, as text and as ids.

        Raises:
            RecipeError: The template refuses the conversation.
        """
        special = {"bos_token": "", "eos_token": TURN_END, "pad_token": ""}
        try:
            text = self._template.render(
                messages=self._broken(list(messages)),
                tools=self._broken(list(tools)) or None,
                add_generation_prompt=True,
                **special,
            )
            text.encode()  # halves of surrogate pairs are no text
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            KeyError,
            AttributeError,
            RecursionError,
        ) as error:
            raise RecipeError(
                f"the model's chat template refuses the conversation: {error}", where="messages"
            ) from None
        return text.replace(_BREAK, ""), self._encoded(text)

    def _encoded(self, text: str) -> list[int]:
        ids: list[int] = []
        after = 0
        for match in self.vocabulary.special_pattern.finditer(text):
            ids += self._plain(text[after : match.start()])
            ids.append(self.vocabulary.special_ids[match.group()])
            after = match.end()
        ids += self._plain(text[after:])
        return ids

    def _plain(self, text: str) -> list[int]:
        return self.vocabulary.encode(text.replace(_BREAK, ""), special=False)

    def _broken(self, value: Any) -> Any:
        """The value with every special token that its strings spell broken in two."""
        if isinstance(value, str):
            if self._spelled is None:
                return value
            return self._spelled.sub(_cut_in_two, value.replace(_BREAK, ""))
        if isinstance(value, Mapping):
            return {key: self._broken(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._broken(item) for item in value]
        return value


def _cut_in_two(match: re.Match[str]) -> str:
    found = match.group()
    return found[0] + _BREAK + found[1:]


def open_template(directory: Path, vocabulary: Vocabulary) -> ChatTemplate:
    """The chat template of a model directory: its `chat_template.jinja`, else the one in its
    `tokenizer_config.json`, else `CHATML`.

    Raises:
        ArtifactError: It cannot be read or is no valid Jinja.
    """
    path = directory / TEMPLATE
    if path.exists():
        return ChatTemplate(vocabulary, path.read_text(encoding="utf-8"), str(path))
    config = directory / TOKENIZER_CONFIG
    found = read_json(config).get("chat_template") if config.exists() else None
    if isinstance(found, list):  # several by name, as some models have them
        named = {each.get("name"): each.get("template") for each in found}
        found = named.get("default")
    if isinstance(found, str):
        return ChatTemplate(vocabulary, found, str(config))
    return ChatTemplate(vocabulary, CHATML, "Isoflop's ChatML")


def _to_json(value: Any, indent: int | None = None) -> str:
    # As transformers does: no escapes for HTML, and letters of all scripts as they are.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
