"""Which forward pass the engine takes, and that both write the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from isoflop.compression.quantize import plan_bits, quantize_decoder
from isoflop.models.config import DECODER_FORMS, ExpertsConfig
from isoflop.models.convert import load_weights, save_model, write_variant
from isoflop.models.decoder import Decoder
from isoflop.models.decoder_weights import DecoderWeights, weights_of
from isoflop.models.native import calls
from isoflop.models.native.build import library
from isoflop.models.packed_weights import Packed
from isoflop.serving.engine import Engine
from isoflop.serving.forward import PagedDecoder, Unit, rows_are_independent
from isoflop.serving.native_forward import NativePagedDecoder, paged
from isoflop.serving.request import Request
from isoflop.serving.sampler import Sampling
from isoflop.serving.settings import BLOCK

native_only = pytest.mark.skipif(
    library().functions is None, reason=f"no native library: {library().why}"
)
BYTES = [bytes([65 + index % 26]) for index in range(97)]


@native_only
def test_the_native_pass_is_taken_where_the_form_is_its_own(
    decoder_of: Callable[..., Decoder],
) -> None:
    gpt2 = {**DECODER_FORMS["gpt2"], "n_kv_heads": 4}
    experts = {"experts": ExpertsConfig(4, 2, 16)}
    for changes in ({}, DECODER_FORMS["llama"]):
        assert isinstance(paged(decoder_of(**changes), 4), NativePagedDecoder)
        with calls.plain_torch():
            assert isinstance(paged(decoder_of(**changes), 4), PagedDecoder)
    for changes in (gpt2, experts, {"window": 9}, {"qkv_bias": True}):
        assert isinstance(paged(decoder_of(**changes), 4), PagedDecoder)


@native_only
def test_native_rows_are_the_same_bits_in_any_company(decoder_of: Callable[..., Decoder]) -> None:
    assert rows_are_independent(NativePagedDecoder(weights_of(decoder_of()), 8), 128)


@pytest.mark.parametrize("bits", [32, 8, 4])
def test_with_and_without_the_native_library_the_engine_writes_the_same(
    bits: int, decoder_of: Callable[..., Decoder]
) -> None:
    decoder, draw = decoder_of(), random.Random(3)
    weights = weights_of(decoder)
    if bits < 32:
        found = quantize_decoder(decoder, plan_bits(decoder, bits, 32))
        weights = DecoderWeights(decoder.config, {**weights.tensors, **found})
    requests = [
        Request(
            tuple(draw.randrange(97) for _ in range(length)), 60,
            Sampling(temperature, seed=length), logprobs=1, prompt_logprobs=True,
        )
        for length, temperature in ((1, 0.0), (33, 0.0), (70, 0.8))
    ]  # fmt: skip
    said = Engine(weights, BYTES).answer(requests)
    with calls.plain_torch():
        plain = Engine(weights, BYTES).answer(requests)
    for (ours,), (theirs,) in zip(said, plain, strict=True):
        assert ours.ids == theirs.ids
        for one, other in zip(
            (*ours.prompt_tokens[1:], *ours.tokens), (*theirs.prompt_tokens[1:], *theirs.tokens),
            strict=True,
        ):  # fmt: skip
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


@pytest.mark.parametrize("plain", [False, True])
def test_a_copied_block_is_read_like_its_source(
    plain: bool, decoder_of: Callable[..., Decoder]
) -> None:
    decoder = decoder_of()
    model = PagedDecoder(decoder, 8) if plain else paged(decoder, 8)
    ids = list(range(BLOCK + 5))
    model.hidden([Unit(ids[:BLOCK], 0, (0,)), Unit(ids[BLOCK:], BLOCK, (0, 1))])
    model.copy_block(1, 6)
    model.copy_block(0, 7)
    more = [Unit((3,), BLOCK + 5, blocks) for blocks in ((0, 1), (7, 6))]
    one, other = model.hidden(more)
    assert torch.equal(one, other)


def test_packed_weights_of_a_directory_are_kept_packed(
    decoder_of: Callable[..., Decoder], tmp_path: Path
) -> None:
    decoder = decoder_of()
    save_model(decoder, tmp_path / "full")
    found = quantize_decoder(decoder, plan_bits(decoder, 4, 32))
    (tmp_path / "small").mkdir()
    write_variant(decoder, tmp_path / "full", tmp_path / "small", tmp_path / "small", found)
    full, small = load_weights(tmp_path / "full"), load_weights(tmp_path / "small")
    assert full.tensors.keys() == small.tensors.keys() == dict(decoder.named_parameters()).keys()
    assert {n for n, one in small.tensors.items() if isinstance(one, Packed)} == found.keys()
    assert small.n_bytes < full.n_bytes / 3
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(full.decoder()(ids), decoder(ids))
    request = Request(tuple(range(40)), 30, Sampling(temperature=0))
    said = [Engine(one, BYTES).answer([request])[0][0].ids for one in (small, small.decoder())]
    assert said[0] == said[1]
