"""Templates render as in transformers, in a sandbox, and no text becomes a control token."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.core.errors import ArtifactError, RecipeError
from isoflop.data.tokenizer import Tokenizer
from isoflop.serving.chat_template import CHATML, ChatTemplate, open_template
from isoflop.serving.vocabulary import Vocabulary

TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\\n' }}{% for tool in tools %}{{ tool | tojson }}\n"
    "{% endfor %}{{ '<tool_call> <|im_end|>\\n' }}{% endif %}" + CHATML
)
PIECES = ["<|im_end|>", "<|im_start|>", "<|im_", "end|>", "<", "|>", "a", "中", "\n", "system"]


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Tokenizer) -> Vocabulary:
    return Vocabulary(tokenizer, tokenizer.vocab_size)


@pytest.mark.parametrize("source", [CHATML, TOOLS])
def test_a_conversation_is_rendered_as_in_transformers(
    vocabulary: Vocabulary, tokenizer: Tokenizer, source: str
) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer.directory / "tokenizer.json")
    )
    messages = [
        {"role": "system", "content": "Be brief, 简短. <b>"},
        {"role": "user", "content": "hello\n你好 & '\""},
    ]
    tools = [{"type": "function", "function": {"name": "加", "description": "a & <b>"}}]
    for given_tools in ([], tools):
        wanted = theirs.apply_chat_template(
            messages, tools=given_tools or None, chat_template=source, tokenize=False,
            add_generation_prompt=True,
        )  # fmt: skip
        text, ids = ChatTemplate(vocabulary, source, "here").render(messages, given_tools)
        assert text == wanted
        assert ids == theirs(wanted, add_special_tokens=False)["input_ids"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8), st.sampled_from(["user", "assistant"]))
def test_no_text_becomes_a_control_token(
    vocabulary: Vocabulary, pieces: list[str], role: str
) -> None:
    content = "".join(pieces)
    text, ids = ChatTemplate(vocabulary, CHATML, "here").render(
        [{"role": role, "content": content}]
    )
    special = vocabulary.special_ids
    assert ids.count(special["<|im_start|>"]) == 2
    assert ids.count(special["<|im_end|>"]) == 1
    assert text == f"<|im_start|>{role}\n{content}<|im_end|>\n<|im_start|>assistant\n"
    assert vocabulary.decode(ids) == text


@pytest.mark.parametrize(
    "source",
    ["{{ messages.__class__.__mro__ }}{{ ''.__class__.__bases__[0].__subclasses__() }}",
     "{{ messages.append(1) }}", "{{ raise_exception('no system') }}", "{{ messages[0].x.y }}"],
)  # fmt: skip
def test_a_template_that_misbehaves_or_refuses_is_an_error(
    vocabulary: Vocabulary, source: str
) -> None:
    template = ChatTemplate(vocabulary, source, "here")
    with pytest.raises(RecipeError, match="refuses the conversation"):
        template.render([{"role": "user", "content": "a"}])


def test_the_template_is_looked_for_in_its_three_places(
    vocabulary: Vocabulary, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tokenizer.directory, folder)
    assert open_template(folder, vocabulary).source == CHATML
    path = folder / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "chat_template": "{{ 'one' }}"}))
    assert open_template(folder, vocabulary).source == "{{ 'one' }}"
    named = [{"name": "default", "template": "{{ 'two' }}"}, {"name": "rag", "template": "x"}]
    path.write_text(json.dumps({**config, "chat_template": named}))
    assert open_template(folder, vocabulary).source == "{{ 'two' }}"
    (folder / "chat_template.jinja").write_text("{{ 'three' }}")
    assert open_template(folder, vocabulary).source == "{{ 'three' }}"
    (folder / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(ArtifactError, match="chat template is not valid"):
        open_template(folder, vocabulary)
