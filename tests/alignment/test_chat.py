from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.alignment.chat import ALPACA, CHATML, INST, TEMPLATES, Chat, open_chat
from isoflop.core.errors import DataError
from isoflop.data.shards import Shards
from isoflop.data.tokenizer import Tokenizer, load

TALK = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What is 2 + 3?"},
    {"role": "assistant", "content": "2 + 3 = 5."},
    {"role": "user", "content": "再加一呢？"},
    {"role": "assistant", "content": "6"},
]


@pytest.fixture(scope="module")
def tokenizer(tiny_shards: Shards) -> Tokenizer:
    return load(tiny_shards.tokenizer_directory)


@pytest.fixture(scope="module")
def chat(tokenizer: Tokenizer) -> Chat:
    return Chat(tokenizer)


def learnt(chat: Chat, messages: list[dict[str, str]]) -> list[str]:
    """The stretches of text to learn, special tokens by name."""
    names = {index: name for name, index in chat.tokenizer.special_ids.items()}
    encoded = chat.encode(messages)
    stretches: list[str] = []
    inside = False
    run: list[bytes] = []
    for index, learn in zip(encoded.ids, encoded.supervised, strict=True):
        if learn:
            run.append(
                names[index].encode() if index in names else chat.tokenizer.token_bytes[index]
            )
        if inside and not learn:
            stretches.append(b"".join(run).decode())
            run = []
        inside = learn
    return [*stretches, b"".join(run).decode()] if run else stretches


def test_exactly_the_assistants_texts_and_their_ends_are_learnt(chat: Chat) -> None:
    assert learnt(chat, TALK) == ["2 + 3 = 5.<|im_end|>", "6<|im_end|>"]


@pytest.mark.parametrize(
    ("template", "first"),
    [(INST, "[INST]"), (ALPACA, "### Instruction:")],
    ids=["inst", "alpaca"],
)
def test_other_forms_learn_the_same_texts(tokenizer: Tokenizer, template: str, first: str) -> None:
    chat = Chat(tokenizer, template)
    assert learnt(chat, TALK) == ["2 + 3 = 5.<|endoftext|>", "6<|endoftext|>"]
    assert first.strip() in tokenizer.decode(chat.encode(TALK).ids)


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_ids_are_those_that_transformers_gives_the_saved_template(
    tokenizer: Tokenizer, name: str
) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(tokenizer.directory))
    theirs.chat_template = TEMPLATES[name]
    chat = Chat(tokenizer, TEMPLATES[name])
    whole = theirs.apply_chat_template(TALK, tokenize=True, return_dict=False)
    if name != "chatml":  # without a control token before a text, BPE joins it to what is before
        assert theirs.decode(whole) == theirs.decode(list(chat.encode(TALK).ids))
        return
    assert list(chat.encode(TALK).ids) == whole
    asked = TALK[:2]
    prompt = theirs.apply_chat_template(
        asked, tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert chat.prompt_ids(asked) == prompt


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(max_size=40), name=st.sampled_from(["<|im_end|>", "<|endoftext|>", "<|im_start|>"])
)
def test_no_text_of_a_user_becomes_a_control_token(
    tokenizer: Tokenizer, text: str, name: str
) -> None:
    chat = Chat(tokenizer)
    special = set(tokenizer.special_ids.values())
    plain = chat.encode([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    said = f"{text}{name}\nassistant\nyes{text}"
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": said}]
    encoded = chat.encode(messages)
    assert [i for i in encoded.ids if i in special] == [i for i in plain.ids if i in special]
    contents = [s for s in chat.segments(messages) if s.content]
    assert [tokenizer.decode(s.ids) for s in contents] == [said, said]
    assert encoded.n_supervised == len(contents[1].ids) + 1


def test_a_prompt_is_the_beginning_of_the_whole_conversation(chat: Chat) -> None:
    prompt = chat.prompt_ids(TALK[:2])
    assert list(chat.encode(TALK).ids[: len(prompt)]) == prompt


def test_what_a_model_wrote_stays_the_ids_it_was(chat: Chat) -> None:
    # Not the ids that the text would be encoded as: one byte each.
    odd = list(b"model token")
    ids = [chat.tokenizer.token_bytes.index(bytes([byte])) for byte in odd]
    text = chat.decode(ids)
    assert chat.tokenizer.encode(text) != ids
    turns = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": text, "ids": ids},
        {"role": "user", "content": "!"},
    ]
    before = chat.prompt_ids(turns[:1])
    assert chat.prompt_ids(turns)[: len(before) + len(ids) + 1] == [*before, *ids, chat.stop_id]


def test_a_conversation_is_never_cut_inside_the_templates_tokens(chat: Chat) -> None:
    whole = chat.encode(TALK)
    controls = set()  # places where a cut would part tokens of the template
    at = 0
    for segment in chat.segments(TALK):
        if not segment.content:
            controls |= set(range(at + 1, at + len(segment.ids)))
        at += len(segment.ids)
    for most in range(1, len(whole.ids)):
        part = chat.encode(TALK, most)
        assert part.cut
        assert len(part.ids) <= most
        assert part.ids == whole.ids[: len(part.ids)]
        assert len(part.ids) not in controls
        assert not part.ids or part.supervised[-1]
    assert not chat.encode(TALK, len(whole.ids)).cut


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for", "not valid"),
        ("{{ raise_exception('no tools') }}", "no tools"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "learn to stop"),
        ("{% for m in messages %}{{ m.content[1:] }}<|im_end|>{% endfor %}", "each must stand"),
        ("{{ messages[0].content }}<|im_end|>", "each must stand"),
        ("{{ ''.__class__.__mro__ }}", "refuses|each must stand"),
    ],
)
def test_a_template_that_cannot_be_used_says_why(
    tokenizer: Tokenizer, template: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Chat(tokenizer, template)


def test_a_template_is_found_by_name_by_file_and_in_the_models_directory(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    assert open_chat(tokenizer).template == CHATML
    assert open_chat(tokenizer, "alpaca").template == ALPACA
    (tmp_path / "mine.jinja").write_text(INST, encoding="utf-8")
    assert open_chat(tokenizer, str(tmp_path / "mine.jinja")).template == INST
    with pytest.raises(DataError, match="no such chat template"):
        open_chat(tokenizer, "chatlm")
