"""Beam search against brute force and against transformers', alone and among other requests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from isoflop.core.errors import ArtifactError, RecipeError
from isoflop.loading import load
from isoflop.models.convert import save_model
from isoflop.models.decoder import Decoder
from isoflop.serving.engine import Engine
from isoflop.serving.request import Request
from isoflop.serving.sampler import Sampling
from isoflop.serving.service import open_service
from isoflop.serving.settings import EngineConfig, Settings

BYTES = [bytes([65 + index % 26]) for index in range(97)]


def logprob(decoder: Decoder, prompt: tuple[int, ...], ids: tuple[int, ...]) -> float:
    with torch.no_grad():
        logits = decoder(torch.tensor([[*prompt, *ids]]))[0].double()
    chosen = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return float(chosen.gather(-1, torch.tensor(ids)[:, None]).sum())


def test_as_many_beams_as_there_are_beginnings_find_the_likeliest_answers(
    decoder_of: Callable[..., Decoder],
) -> None:
    decoder, prompt = decoder_of(5), (1, 2, 3)
    every = sorted(product(range(5), repeat=3), key=lambda ids: -logprob(decoder, prompt, ids))
    (answers,) = Engine(decoder, BYTES).answer([Request(prompt, 3, beams=25, n=5)])
    assert [answer.ids for answer in answers] == every[:5]


def test_an_answer_that_ends_competes_by_its_mean_log_probability(
    decoder_of: Callable[..., Decoder],
) -> None:
    decoder, prompt, end = decoder_of(5), (1, 2, 3), 4
    answers = [
        ids[: ids.index(end) + 1] if end in ids else ids for ids in product(range(5), repeat=3)
    ]
    for penalty in (1.0, 2.0):
        # With more beams than there are answers all are found before as many have ended.
        request = Request(
            prompt, 3, beams=130, n=1, stop_ids=frozenset({end}), length_penalty=penalty
        )
        (best,) = Engine(decoder, BYTES, EngineConfig(cache_tokens=10_000)).answer([request])[0]
        wanted = max(
            set(answers), key=lambda ids: logprob(decoder, prompt, ids) / len(ids) ** penalty
        )
        assert best.ids == wanted
        assert best.finish == ("stop" if end in wanted else "length")


def test_beams_are_those_of_transformers(decoder_of: Callable[..., Decoder]) -> None:
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
    for end in (None, 7):
        said = theirs.generate(
            torch.tensor([prompt]), max_new_tokens=40, num_beams=4, num_return_sequences=3,
            do_sample=False, early_stopping=True, eos_token_id=end, pad_token_id=0,
        )  # fmt: skip
        request = Request(
            tuple(prompt), 40, beams=4, n=3, stop_ids=frozenset(() if end is None else (end,))
        )
        (answers,) = Engine(decoder, BYTES).answer([request])
        for answer, row in zip(answers, said[:, len(prompt) :].tolist(), strict=True):
            assert list(answer.ids) == row[: len(answer.ids)]


def test_a_search_among_other_requests_finds_the_same_and_leaves_nothing_behind(
    decoder_of: Callable[..., Decoder],
) -> None:
    decoder = decoder_of()
    beams = [Request(tuple(range(at, at + 70)), 40, beams=3, n=2) for at in (0, 9)]
    others = [Request(tuple(range(at, at + 50)), 30, Sampling(seed=at)) for at in range(6)]
    wanted = [Engine(decoder, BYTES).answer([request])[0] for request in (*beams, *others)]
    engine = Engine(decoder, BYTES, EngineConfig(cache_tokens=608, token_budget=40))
    got = engine.answer([*beams, *others])
    assert [[one.ids for one in answers] for answers in got] == [
        [one.ids for one in answers] for answers in wanted
    ]
    assert engine.load().blocks_held == 0
    number = engine.add(beams[0], lambda _: None)
    engine.step()
    assert engine.load().blocks_held > 0
    engine.cancel(number)
    assert engine.load().blocks_held == 0
    assert not engine.busy


def test_what_beams_cannot_do_is_refused(decoder_of: Callable[..., Decoder]) -> None:
    engine = Engine(decoder_of(), BYTES, EngineConfig(cache_tokens=192))
    for request, words in (
        (Request((1,), 3, beams=2, n=3), "3 answers are asked of 2 beams"),
        (Request((1,), 3, Sampling(top_k=3), beams=2), "own probabilities"),
        (Request((1,), 3, beams=2, stop=("a",)), "stop strings"),
        (Request((1,), 3, beams=2, logprobs=1), "log-probabilities"),
        (Request((1,) * 60, 100, beams=9), "so many beams"),
        (Request((1,), 0, beams=2), "at least one token"),
    ):
        with pytest.raises(RecipeError, match=words):
            engine.add(request, lambda _: None)


# --- over the network ----------------------------------------------------------------------


def test_the_api_tells_the_best_answers_of_a_search(served: Any, model_dir: Path) -> None:
    model = load(model_dir)
    ids = tuple(model.tokenizer.encode("loss token"))
    body = {"model": "tiny", "prompt": "loss token", "max_tokens": 12, "n": 2, "ignore_eos": True}
    status, said, _ = served.ask("/v1/completions", {**body, "beam_width": 3})
    assert status == 200
    (wanted,) = served.service.engine.__class__(
        model.decoder, served.service.vocabulary.bytes_of
    ).answer([Request(ids, 12, beams=3, n=2)])
    assert [choice["text"] for choice in said["choices"]] == [answer.text for answer in wanted]
    assert said["usage"]["completion_tokens"] == 24
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    status, said, _ = served.ask("/v1/chat/completions", {**chat, "beam_width": 2})
    assert (status, len(said["choices"])) == (200, 1)
    assert served.idle()
    for more, words in (
        ({"beam_width": 1}, "2 answers are asked of 1 beams"),
        ({"beam_width": 3, "temperature": 0.5}, "own probabilities"),
        ({"length_penalty": 2.0}, "goes with beam_width"),
        ({"beam_width": 3, "stop": "a"}, "stop strings"),
    ):
        status, said, _ = served.ask("/v1/completions", {**body, **more})
        assert status == 400
        assert words in said["error"]["message"]


def test_a_server_with_a_draft_model_says_the_same(
    served: Any,
    serving: Callable[..., AbstractContextManager[Any]],
    model_dir: Path,
    decoder_of: Callable[..., Decoder],
    tmp_path: Path,
) -> None:
    body = {"model": "tiny", "prompt": "loss token", "max_tokens": 40, "seed": 4}
    _, wanted, _ = served.ask("/v1/completions", body)
    vocab = load(model_dir).decoder.config.vocab_size
    small = decoder_of(vocab, d_model=16, n_layers=1, max_seq_len=256)
    save_model(small, tmp_path / "small", model_dir)
    with serving(draft_model=tmp_path / "small") as drafted:
        _, said, _ = drafted.ask("/v1/completions", body)
        assert drafted.service.engine.load().drafted > 0
    assert said["choices"] == wanted["choices"]
    other = tmp_path / "tokenizer"
    other.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (other / name).write_text((model_dir / name).read_text() + " ")
    save_model(small, tmp_path / "other", other)
    with pytest.raises(ArtifactError, match="not that of the model it guesses for"):
        open_service(model_dir, Settings(draft_model=tmp_path / "other"))
