"""Likelihoods against transformers' own log-softmax on the exported model, one item at a time."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from isoflop.core.errors import DataError
from isoflop.data.word_problems import word_problem
from isoflop.evaluation.likelihood import (
    bits_per_byte,
    encode_pair,
    loglikelihood,
    loglikelihood_rolling,
    rolling_windows,
    score_ids,
)

WINDOW = 64


@pytest.fixture(scope="module")
def theirs(model_directory):
    """transformers' model and tokenizer from the same directory."""
    model = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(model_directory)


@torch.no_grad()
def _reference(model, context, continuation):
    """(logprobs, hits) of ids by a whole reading, float64 softmax."""
    whole = (list(context) + list(continuation))[-(WINDOW + 1) :]
    logits = model(torch.tensor([whole[:-1]])).logits[0].double().log_softmax(-1)
    rows = logits[-len(continuation) :]
    targets = torch.tensor(list(continuation))
    return rows.gather(-1, targets[:, None])[:, 0].tolist(), (rows.argmax(-1) == targets).tolist()


def _pairs(n, seed=0):
    """(context, continuation) of many lengths, some shared, some too long for the window."""
    draw = random.Random(seed)
    pairs = []
    for i in range(n):
        text = "".join(
            word_problem(seed, draw.randrange(900))[0] for _ in range(draw.choice((1, 2)))
        )
        cut = draw.randrange(1, len(text) - 1)
        pairs.append((text[:cut], text[cut : cut + draw.randrange(1, 30)]))
        if i % 3 == 0:
            pairs += [(text[:cut], option) for option in (" A", " B", " seven apples", "个苹果")]
    return pairs


def test_every_pair_has_the_log_probability_that_transformers_gives_it(subject, theirs):
    model, their_codec = theirs
    pairs = _pairs(25)
    found = loglikelihood(subject, pairs)
    assert any(item.truncated for item in found)
    assert any(item.greedy != found[0].greedy or not item.greedy for item in found)
    for (context, continuation), item in zip(pairs, found, strict=True):
        spaces = len(context) - len(context.rstrip())
        kept = context[: len(context) - spaces]
        moved = context[len(kept) :] + continuation
        before = their_codec(kept)["input_ids"] if kept else [their_codec.eos_token_id]
        whole = their_codec(kept + moved)["input_ids"]
        after = whole[len(before) :] if kept else whole
        if not after:
            continue  # the seam's own rule, below
        logprobs, hits = _reference(model, before, after)
        assert item.token_logprobs == pytest.approx(logprobs, abs=2e-5)
        assert list(item.token_hits) == hits
        assert item.n_bytes == len(continuation.encode())


def test_a_greedy_continuation_is_known_as_one(subject):
    prompt = tuple(subject.tokenizer.encode("Question: Tom has"))
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(5):
            ids.append(int(subject.decoder(torch.tensor([ids]))[0, -1].argmax()))
    other = (*ids[len(prompt) : -1], (ids[-1] + 1) % 400)
    right, wrong = score_ids(subject, [(prompt, tuple(ids[len(prompt) :])), (prompt, other)])
    assert right.greedy
    assert not wrong.greedy
    assert wrong.token_hits == (True,) * 4 + (False,)


@pytest.mark.parametrize("form", [{}, {"head_dim": 32, "d_model": 64}], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_pair_has_the_same_bits_alone_and_in_any_company(subject_of, form, threads, request):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(threads)
    subject = subject_of(**form)  # heads of 32 are read natively
    pairs = _pairs(12)
    together = loglikelihood(subject, pairs)
    shuffled = list(range(len(pairs)))
    random.Random(3).shuffle(shuffled)
    again = loglikelihood(replace(subject, batch_tokens=200), [pairs[i] for i in shuffled])
    for place, i in enumerate(shuffled):
        assert again[place] == together[i]
    for i in range(0, len(pairs), 5):
        assert loglikelihood(subject, [pairs[i]]) == [together[i]]


@pytest.mark.parametrize(
    "form",
    [
        {"window": 9},
        {"positions": "alibi"},
        {"positions": "learned"},
        {"max_seq_len": 20},
        {"head_dim": 32, "d_model": 64},
    ],
    ids=str,
)
def test_other_forms_of_model_are_scored_as_by_a_whole_reading(subject_of, form):
    other = subject_of(**form)
    limit = other.decoder.config.max_seq_len
    pairs = [encode_pair(other, *pair) for pair in _pairs(6, seed=2)]
    pairs = [(context, continuation[:limit]) for context, continuation in pairs]
    for (context, continuation), item in zip(pairs, score_ids(other, pairs), strict=True):
        whole = [*context, *continuation][-(limit + 1) :]
        with torch.no_grad():
            logits = other.decoder(torch.tensor([whole[:-1]]))[0].log_softmax(-1)
        rows = logits[-len(continuation) :]
        wanted = rows.gather(-1, torch.tensor(continuation)[:, None])[:, 0].tolist()
        assert item.token_logprobs == pytest.approx(wanted, abs=2e-5)


# --- where the context ends ----------------------------------------------------------------


def test_trailing_spaces_of_the_context_go_to_the_continuation(subject):
    assert encode_pair(subject, "Tom has 3 ", "apples") == encode_pair(
        subject, "Tom has 3", " apples"
    )
    assert encode_pair(subject, "Tom has\n", "3") == encode_pair(subject, "Tom has", "\n3")


def test_the_continuation_is_what_both_texts_have_more_than_the_context(subject):
    encode = subject.tokenizer.encode
    context, continuation = encode_pair(subject, "Question: How", " many apples")
    assert list(context) == encode("Question: How")
    assert list(context + continuation) == encode("Question: How many apples")


@pytest.mark.parametrize("context", ["", " ", "\n"])
def test_an_empty_context_is_the_start_token(subject, context):
    before, after = encode_pair(subject, context, "apples")
    assert before == (subject.start_id,)
    assert list(after) == subject.tokenizer.encode(context + "apples")


def test_a_merge_that_swallows_the_whole_seam_leaves_its_token_to_the_continuation(subject):
    encode = subject.tokenizer.encode
    assert len(encode("apples")) == len(encode("apple")) - 1 or len(encode(" apples")) == 1
    context, continuation = encode_pair(subject, "Tom has 3 app", "les")
    assert continuation
    assert list(context + continuation) == encode("Tom has 3 apples")


def test_a_continuation_without_text_or_room_is_refused(subject):
    with pytest.raises(DataError, match="continuation is empty"):
        loglikelihood(subject, [("a", "")])
    with pytest.raises(DataError, match="rolling windows"):
        loglikelihood(subject, [("a", "one two three " * 60)])


# --- documents -----------------------------------------------------------------------------


@given(st.integers(1, 90), st.integers(1, 17))
def test_windows_predict_each_token_once_after_what_stands_before_it(length, window):
    text = list(range(100, 100 + length))
    stream = [7, *text]
    predicted = []
    for context, continuation in rolling_windows(text, 7, window):
        assert len(context) >= 1
        assert len(continuation) >= 1
        assert len(context) + len(continuation) <= window + 1
        end = 1 + len(predicted)
        assert list(context) == stream[end - len(context) : end]
        predicted += continuation
    assert predicted == text


def test_the_last_window_is_filled_with_context():
    windows = list(rolling_windows(range(10), 99, 4))
    assert windows == [
        ((99,), (0, 1, 2, 3)),
        ((3,), (4, 5, 6, 7)),
        ((5, 6, 7), (8, 9)),
    ]


def test_documents_are_scored_as_transformers_scores_their_windows(subject, theirs):
    model, _ = theirs
    texts = ["".join(word_problem(1, i)[0] for i in range(n)) for n in (1, 2, 5)]
    texts.append("")
    found = loglikelihood_rolling(subject, texts)
    for text, item in zip(texts, found, strict=True):
        ids = subject.tokenizer.encode(text)
        wanted = []
        for context, continuation in rolling_windows(ids, subject.start_id, WINDOW):
            wanted += _reference(model, context, continuation)[0]
        assert item.token_logprobs == pytest.approx(wanted, abs=2e-5)
        assert (len(item.token_logprobs), item.n_bytes) == (len(ids), len(text.encode()))


def test_documents_are_never_joined(subject):
    texts = [word_problem(1, i)[0] for i in range(6)]
    together = loglikelihood_rolling(subject, texts)
    assert together == [loglikelihood_rolling(subject, [text])[0] for text in texts]


def test_bits_per_byte_weigh_documents_by_their_bytes(subject):
    short, long = loglikelihood_rolling(subject, ["a", "问题：小明有三个苹果。" * 5])
    nats = -(short.logprob + long.logprob)
    assert bits_per_byte([short, long]) == pytest.approx(
        nats / math.log(2) / (short.n_bytes + long.n_bytes)
    )
    assert bits_per_byte([short, long]) != pytest.approx(
        (bits_per_byte([short]) + bits_per_byte([long])) / 2
    )
    with pytest.raises(DataError, match="empty"):
        bits_per_byte([])
