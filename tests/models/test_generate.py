"""Generation against reading everything again for each token, and sampling against its law."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from isoflop.core.errors import RecipeError
from isoflop.models.generate import Model, choose, generate


class _Letters:
    """A tokenizer of 26 letters, a newline (26) and the end of a document (27)."""

    eos_id = 27

    def encode(self, text):
        return [26 if c == "\n" else ord(c) - 97 for c in text]

    def decode(self, ids):
        return "".join("\n" if i == 26 else chr(97 + i) for i in ids if i < 27)


@torch.no_grad()
def _without_cache(decoder, prompt, count):
    """Greedy continuation by the rule of the docstring, each token from a whole reading."""
    limit = decoder.config.max_seq_len
    seen, new = prompt[-limit:], []
    while len(new) < count:
        new.append(int(decoder(torch.tensor([seen]))[0, -1].argmax()))
        seen = [*seen, new[-1]]
        if len(seen) > limit:
            seen = seen[-max(1, limit // 2) :]
    return new


@pytest.mark.parametrize("length", [1, 5, 16, 40])
def test_text_with_a_cache_is_that_without_also_past_the_window(any_decoder, length):
    small = any_decoder
    assert small.config.max_seq_len == 32
    prompt = [(7 * i + 3) % small.config.vocab_size for i in range(length)]
    assert generate(small, prompt, 70) == _without_cache(small, prompt, 70)


@pytest.mark.parametrize("length", [5])
def test_every_form_writes_with_a_cache_what_it_writes_without(any_form, length):
    prompt = [(7 * i + 3) % 97 for i in range(length)]
    assert generate(any_form, prompt, 40) == _without_cache(any_form, prompt, 40)


def test_a_model_of_one_position_still_writes(decoder_of):
    decoder = decoder_of(max_seq_len=1)
    assert generate(decoder, [1, 2], 5) == _without_cache(decoder, [1, 2], 5)


def test_a_stop_id_ends_the_text_and_is_its_last(decoder_of):
    decoder = decoder_of()
    free = generate(decoder, [1, 2, 3], 20)
    stop = free[5]
    assert generate(decoder, [1, 2, 3], 20, stop_ids=[stop]) == free[: free.index(stop) + 1]
    assert generate(decoder, [1, 2, 3], 0) == []


def test_samples_are_fixed_by_the_seed(decoder_of):
    decoder = decoder_of()
    torch.manual_seed(0)
    first = generate(decoder, [1], 20, temperature=1.0, seed=5)
    torch.manual_seed(1)
    assert generate(decoder, [1], 20, temperature=1.0, seed=5) == first
    assert generate(decoder, [1], 20, temperature=1.0, seed=6) != first


def test_generation_leaves_gradients_on_for_the_caller(decoder_of):
    generate(decoder_of(), [1], 3)
    assert torch.is_grad_enabled()


def _frequencies(logits, **options):
    n = 4000
    settings = {"temperature": 1.0, "top_k": None, "top_p": None, **options}
    # An even grid of uniforms: frequencies are probabilities to 1/n, with no chance in them.
    drawn = Counter(choose(logits, uniform=(i + 0.5) / n, **settings) for i in range(n))
    return [drawn[i] / n for i in range(len(logits))]


def test_samples_follow_the_softmax_at_each_temperature():
    logits = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.5])
    for temperature in (0.5, 1.0, 2.0):
        expected = (logits.double() / temperature).softmax(0).tolist()
        assert _frequencies(logits, temperature=temperature) == pytest.approx(expected, abs=1e-3)


def test_top_k_and_top_p_keep_the_likeliest_and_their_proportions():
    logits = torch.tensor([0.4, 0.1, 0.3, 0.2]).log()
    assert _frequencies(logits, top_k=2) == pytest.approx([4 / 7, 0, 3 / 7, 0], abs=1e-3)
    # 0.4 + 0.3 < 0.75: the token that crosses it is kept.
    expected = [4 / 9, 0, 3 / 9, 2 / 9]
    assert _frequencies(logits, top_p=0.75) == pytest.approx(expected, abs=1e-3)
    assert _frequencies(logits, top_p=1e-9) == [1, 0, 0, 0]
    assert _frequencies(logits, top_p=1.0) == pytest.approx([0.4, 0.1, 0.3, 0.2], abs=1e-3)
    assert _frequencies(logits, temperature=0.0) == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "the prompt is empty"),
        ([97], {}, "ids outside 0 … 96"),
        ([-1], {}, "ids outside"),
        ([1], {"temperature": -1.0}, "temperature = -1.0"),
        ([1], {"temperature": float("nan")}, "temperature = nan"),
        ([1], {"top_k": 0}, "top_k = 0"),
        ([1], {"top_p": 1.5}, "top_p = 1.5"),
    ],
)
def test_impossible_requests_are_refused(decoder_of, prompt, options, message):
    with pytest.raises(RecipeError, match=message):
        generate(decoder_of(), prompt, 3, **options)


# --- Model ---------------------------------------------------------------------------------


@pytest.fixture
def model(decoder_of):
    return Model(decoder_of(vocab_size=28), _Letters())


def test_log_probabilities_are_those_of_each_token_after_the_ones_before(model):
    ids = model.tokenizer.encode("hello")
    expected = [
        model.logits(ids[:i])[-1].double().log_softmax(-1)[ids[i]].item() for i in range(1, 5)
    ]
    assert model.logprobs("hello").tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.equal(model.logprobs(ids), model.logprobs("hello"))
    assert model.logprobs("h").shape == (0,)


def test_a_text_longer_than_the_context_has_no_logits(model):
    with pytest.raises(RecipeError, match="33 tokens do not fit the model's context of 32"):
        model.logits([0] * 33)


def _writes(model, text):
    """Make the decoder write `text` whatever it is given."""
    script = iter(text)

    def hidden(ids, document=None, cache=None):
        cache.extend(0, torch.zeros(1, 1, ids.shape[1], 1), torch.zeros(1, 1, ids.shape[1], 1))
        index = next(script, 0)
        return torch.full((1, ids.shape[1], 1), float(index))

    model.decoder.hidden = hidden
    model.decoder.lm_head = torch.nn.Module()
    model.decoder.lm_head.forward = lambda x: torch.nn.functional.one_hot(x.long(), 28)[0].float()


@pytest.mark.parametrize(
    ("written", "text", "finish", "n_ids"),
    [
        ("abc\ndef", "abc", "stop", 4),
        ("abcdefghijklmnop", "abcdefgh", "length", 8),
        ("ab", "ab", "end", 3),
        ("abxyz", "ab", "stop", 4),
    ],
)
def test_a_continuation_tells_why_it_ends(model, written, text, finish, n_ids):
    _writes(model, [*model.tokenizer.encode(written), 27])
    seen = []
    said = model.generate("q", 8, stop=("\n", "xy"), on_text=seen.append)
    assert (said.text, said.finish, len(said.ids)) == (text, finish, n_ids)
    assert seen[-1] == text
