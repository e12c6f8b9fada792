"""The engine: equal to the plain loop, bit by bit the same in any company, and nothing leaks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from isoflop.core.errors import RecipeError
from isoflop.models.config import DECODER_FORMS, ExpertsConfig
from isoflop.models.decoder import Decoder
from isoflop.models.generate import generate
from isoflop.serving.engine import Engine
from isoflop.serving.request import Answer, Output, Request
from isoflop.serving.sampler import Sampling
from isoflop.serving.settings import BLOCK, EngineConfig

BYTES = [bytes([65 + index % 26]) for index in range(97)]


def engine_of(decoder: Decoder, **config: int) -> Engine:
    engine = Engine(decoder, BYTES, EngineConfig(**config))
    assert engine.independent
    return engine


def random_requests(draw: random.Random, count: int) -> list[Request]:
    shared = tuple(draw.randrange(97) for _ in range(80))
    requests = []
    for _ in range(count):
        own = tuple(draw.randrange(97) for _ in range(draw.randrange(1, 60)))
        prompt = shared[: draw.choice([0, 32, 64, 80])] + own
        requests.append(
            Request(
                prompt,
                draw.randrange(1, 50),
                Sampling(
                    temperature=draw.choice([0.0, 0.7, 1.3]),
                    top_k=draw.choice([0, 9]),
                    top_p=draw.choice([1.0, 0.8]),
                    repetition_penalty=draw.choice([1.0, 1.2]),
                    seed=draw.randrange(1000),
                ),
                stop_ids=frozenset(draw.sample(range(97), 1)),
                logprobs=2,
                prompt_logprobs=draw.random() < 0.2,
            )
        )
    return requests


def alone(decoder: Decoder, requests: Sequence[Request]) -> list[Answer]:
    """Each request by an engine that has nothing else to do and guesses nothing ahead."""
    engine = engine_of(decoder, draft_tokens=0)
    return [engine.answer([request])[0][0] for request in requests]


def check_company(decoder: Decoder, seed: int, count: int) -> None:
    requests = random_requests(random.Random(seed), count)
    wanted = alone(decoder, requests)
    # A small cache preempts, a small budget cuts prompts into pieces.
    for config in ({}, {"cache_tokens": 256, "token_budget": 40}, {"draft_tokens": 0}):
        engine = engine_of(decoder, **config)
        got = [answers[0] for answers in engine.answer(requests)]
        assert [_plain(answer) for answer in got] == [_plain(answer) for answer in wanted]
        load = engine.load()
        assert load.blocks_held == load.running == load.waiting == 0
        assert ("cache_tokens" in config) == (load.preempted > 0)
        assert load.drafted == 0 if "draft_tokens" in config else load.drafted >= 0


def _plain(answer: Answer) -> tuple[object, ...]:
    return answer.ids, answer.text, answer.finish, answer.tokens, answer.prompt_tokens


def test_requests_alone_and_among_neighbours_give_the_same_bits(
    decoder_of: Callable[..., Decoder],
) -> None:
    check_company(decoder_of(), 0, 12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [{}, {"experts": ExpertsConfig(5, 2, 24)}, {**DECODER_FORMS["gpt2"], "n_kv_heads": 4}],
    ids=["Qwen3", "Qwen3-MoE", "GPT-2"],
)
def test_a_hundred_requests_alone_and_among_neighbours_give_the_same_bits(
    form: dict[str, object], decoder_of: Callable[..., Decoder]
) -> None:
    check_company(decoder_of(**form), 1, 100)


@pytest.mark.slow
def test_the_bits_are_the_same_at_a_real_width_and_on_two_threads(
    decoder_of: Callable[..., Decoder],
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        decoder = decoder_of(d_model=256, d_ff=704, n_heads=8, n_kv_heads=4, head_dim=32)
        check_company(decoder, 2, 32)
    finally:
        torch.set_num_threads(threads)


def test_greedy_tokens_are_those_of_the_plain_loop(decoder_of: Callable[..., Decoder]) -> None:
    decoder, draw = decoder_of(), random.Random(4)
    prompts = [[draw.randrange(97) for _ in range(length)] for length in (1, 32, 33, 90)]
    wanted = [generate(decoder, prompt, 40) for prompt in prompts]
    engine = engine_of(decoder)
    got = engine.answer([Request(tuple(p), 40, Sampling(temperature=0)) for p in prompts])
    assert [list(answers[0].ids) for answers in got] == wanted
    assert engine.load().accepted > 0


def test_greedy_tokens_are_those_of_transformers(decoder_of: Callable[..., Decoder]) -> None:
    transformers = pytest.importorskip("transformers")
    from isoflop.models.hugging_face_config import hugging_face_config
    from isoflop.models.hugging_face_tensors import links

    decoder = decoder_of()
    theirs = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**hugging_face_config(decoder.config))
    ).eval()
    own = dict(decoder.named_parameters())
    stored = {
        key: tensor.detach()
        for link in links(decoder.config, "Qwen3ForCausalLM")
        for key, tensor in zip(link.theirs, link.store([own[n] for n in link.ours]), strict=True)
    }
    theirs.load_state_dict(stored, strict=False)
    theirs.tie_weights()
    prompt = list(range(5, 60))
    said = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=30, do_sample=False, eos_token_id=None,
        pad_token_id=0,
    )  # fmt: skip
    got = engine_of(decoder).answer([Request(tuple(prompt), 30, Sampling(temperature=0))])
    assert list(got[0][0].ids) == said[0, len(prompt) :].tolist()


def test_log_probabilities_of_prompt_and_answer_are_those_of_one_reading(
    decoder_of: Callable[..., Decoder],
) -> None:
    decoder, prompt = decoder_of(), tuple(range(40))
    request = Request(prompt, 9, Sampling(temperature=0), logprobs=3, prompt_logprobs=True)
    (answer,) = engine_of(decoder).answer([request])[0]
    ids = [*prompt, *answer.ids]
    with torch.no_grad():
        logprobs = decoder(torch.tensor([ids]))[0].double().log_softmax(-1)
    scored = [*answer.prompt_tokens, *answer.tokens]
    assert [score.id for score in scored] == ids
    assert scored[0].logprob is None
    for place, score in enumerate(scored[1:]):
        assert score.logprob == pytest.approx(float(logprobs[place, score.id]), abs=2e-5)
        best = logprobs[place].topk(3)
        assert [index for index, _ in score.top] == best.indices.tolist()
        np.testing.assert_allclose([p for _, p in score.top], best.values, atol=2e-5)


def test_a_shared_prefix_is_computed_once(decoder_of: Callable[..., Decoder]) -> None:
    engine = engine_of(decoder_of())
    prompt = tuple(range(90))
    first = engine.answer([Request(prompt, 3, Sampling(temperature=0))])[0][0]
    again = engine.answer([Request(prompt, 3, Sampling(temperature=0))])[0][0]
    longer = engine.answer([Request((*prompt[:70], 1, 2), 3)])[0][0]
    assert (first.n_cached, again.n_cached, longer.n_cached) == (0, 2 * BLOCK, 2 * BLOCK)
    assert again.ids == first.ids
    assert engine.answer([Request(prompt[:64], 3)])[0][0].n_cached == BLOCK


def test_answers_to_one_prompt_differ_and_reuse_it(decoder_of: Callable[..., Decoder]) -> None:
    engine = engine_of(decoder_of())
    (answers,) = engine.answer([Request(tuple(range(70)), 12, Sampling(seed=3), n=4)])
    assert len({answer.ids for answer in answers}) == 4
    assert [answer.n_cached for answer in answers] == [0, 64, 64, 64]
    alone = engine.answer([Request(tuple(range(70)), 12, Sampling(seed=3), first_choice=2)])
    assert alone[0][0].ids == answers[2].ids


def test_a_stop_string_ends_the_answer_before_it(decoder_of: Callable[..., Decoder]) -> None:
    engine = engine_of(decoder_of())
    request = Request((1, 2, 3), 60, Sampling(seed=1))
    text = engine.answer([request])[0][0].text
    stop = text[7:9]
    cut = engine.answer([Request((1, 2, 3), 60, Sampling(seed=1), stop=(stop,), logprobs=0)])[0][0]
    assert cut.text == text[: text.index(stop)]
    assert cut.finish == "stop"
    assert len(cut.tokens) == len(cut.text)


def test_a_cancelled_request_leaves_nothing_behind(decoder_of: Callable[..., Decoder]) -> None:
    engine = engine_of(decoder_of())
    heard: list[Output] = []
    number = engine.add(Request(tuple(range(50)), 40, n=3), heard.append)
    other = engine.add(Request((5,), 6, Sampling(seed=8)), heard.append)
    for _ in range(4):
        engine.step()
    engine.cancel(number)
    engine.cancel(number)
    heard.clear()
    while engine.busy:
        engine.step()
    assert {output.choice for output in heard} == {0}
    assert heard[-1].finish == "length"
    assert engine.load().blocks_held == 0
    engine.cancel(other)


def test_an_embedding_is_the_mean_state_of_length_one(decoder_of: Callable[..., Decoder]) -> None:
    decoder, ids = decoder_of(), tuple(range(45))
    with torch.no_grad():
        mean = decoder.hidden(torch.tensor([ids]))[0].double().mean(0)
    engine = engine_of(decoder)
    (answer,) = engine.answer([Request(ids, 0, embed=True)])[0]
    assert answer.embedding is not None
    np.testing.assert_allclose(answer.embedding, mean / mean.norm(), atol=1e-5)
    assert answer.ids == ()


def test_requests_that_can_never_be_answered_are_refused(
    decoder_of: Callable[..., Decoder],
) -> None:
    engine = engine_of(decoder_of(), cache_tokens=64)
    for request, words in (
        (Request((), 3), "empty"),
        (Request((97,), 3), "outside"),
        (Request((1,), 3, Sampling(logit_bias={500: 1.0})), "logit_bias"),
        (Request((1,) * 190, 3), "context is 192"),
        (Request((1,) * 60, 30), "cache of 64"),
    ):
        with pytest.raises(RecipeError, match=words):
            engine.add(request, lambda _: None)
    assert not engine.busy
    with pytest.raises(RecipeError, match=r"cache_tokens = 1 .*; token_budget = 0"):
        EngineConfig(cache_tokens=1, token_budget=0)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_draft_model_changes_no_token(
    temperature: float, decoder_of: Callable[..., Decoder]
) -> None:
    decoder, draw = decoder_of(), random.Random(6)
    requests = [
        Request(tuple(draw.randrange(97) for _ in range(length)), 40, Sampling(temperature, seed=5))
        for length in (1, 40, 70)
    ]
    wanted = alone(decoder, requests)
    for draft in (decoder_of(), decoder_of(seed=1, d_model=16, n_layers=1)):
        for config in ({}, {"cache_tokens": 224, "token_budget": 40}):
            engine = Engine(decoder, BYTES, EngineConfig(draft_tokens=4, **config), draft)
            got = [answers[0] for answers in engine.answer(requests)]
            assert [answer.ids for answer in got] == [answer.ids for answer in wanted]
            load = engine.load()
            assert load.blocks_held == 0
            assert load.drafted > 0
            if draft.config == decoder.config and not config:
                assert load.accepted == load.drafted  # it is the model itself


def test_a_draft_model_of_other_tokens_is_refused(decoder_of: Callable[..., Decoder]) -> None:
    with pytest.raises(RecipeError, match="96 tokens, the model 97"):
        Engine(decoder_of(), BYTES, draft=decoder_of(96))
    with pytest.raises(RecipeError, match="context is 64"):
        Engine(decoder_of(), BYTES, draft=decoder_of(max_seq_len=64))
