"""The native decoding step against the decoder in float64, and its rows against themselves."""

from __future__ import annotations

import copy
import ctypes
from array import array
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from isoflop.compression.quantize import plan_bits, quantize_decoder
from isoflop.models.build import build_model
from isoflop.models.config import DECODER_FORMS, DecoderConfig, ExpertsConfig, RopeScaling
from isoflop.models.decoder import Decoder
from isoflop.models.decoder_weights import DecoderWeights, weights_of
from isoflop.models.initialise import initialise
from isoflop.models.native import build, calls, decode
from isoflop.models.native.build import Library, library
from isoflop.models.native.decode import NativeDecoder, decodes, has_native_form
from isoflop.models.packed_weights import Packed

pytestmark = pytest.mark.skipif(
    library().functions is None, reason=f"no native library: {library().why}"
)
LLAMA = DECODER_FORMS["llama"]
FORMS: Mapping[str, Mapping[str, object]] = {
    "Qwen3": {},
    "Llama, untied": {**LLAMA, "tie_embeddings": False},
    "Llama 3.1": {**LLAMA, "rope_scaling": RopeScaling(8.0, 1.0, 4.0, 64)},
    "widths of no whole register": {"d_model": 40, "d_ff": 50, "head_dim": 10},
    "wide heads": {"d_model": 64, "head_dim": 80, "n_heads": 6, "n_kv_heads": 3, "d_ff": 128},
}
TABLE = array("i", [5, 1, 2])
LENGTH = 75


def make(**changes: object) -> Decoder:
    sizes: dict[str, object] = {
        "vocab_size": 97, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
        "head_dim": 8, "d_ff": 64, "max_seq_len": 96,
    }  # fmt: skip
    model = build_model(DecoderConfig(**{**sizes, **changes}))  # type: ignore[arg-type]
    initialise(model, 0)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5, generator=draw)
            elif "embed" in name or not parameter.any():
                parameter.normal_(0.0, 0.4, generator=draw)
    assert isinstance(model, Decoder)
    return model.eval()


def packed(decoder: Decoder, bits: int, group: int) -> DecoderWeights:
    weights = weights_of(decoder)
    if bits == 32:
        return weights
    found = quantize_decoder(decoder, plan_bits(decoder, bits, group))
    return DecoderWeights(decoder.config, {**weights.tensors, **found})


def ids_of(length: int = LENGTH) -> list[int]:
    drawn: list[int] = torch.randint(
        97, (length,), generator=torch.Generator().manual_seed(1)
    ).tolist()
    return drawn


def at_once(weights: DecoderWeights, ids: list[int]) -> Tensor:
    native = NativeDecoder(weights, 8, 32)
    places = array("i", range(len(ids)))
    states = native.states(array("i", ids), places, TABLE, array("i", [0] * len(ids)))
    return native.logits(states)


def wanted_logits(weights: DecoderWeights, ids: list[int]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = weights.decoder().double()(torch.tensor([ids]))[0]
    return logits


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bits", [32, 8, 4])
def test_logits_are_those_of_the_decoder_in_float64(form: str, bits: int) -> None:
    weights = packed(make(**FORMS[form]), bits, 32)
    torch.testing.assert_close(
        at_once(weights, ids_of()).double(), wanted_logits(weights, ids_of()), rtol=1e-4, atol=3e-5
    )


@pytest.mark.parametrize("group", [64, 128])
def test_wider_groups_of_4_bits_are_read_as_they_lie(group: int) -> None:
    weights = packed(make(d_model=128, d_ff=128, n_heads=2, head_dim=64), 4, group)
    ids = ids_of()
    logits = at_once(weights, ids)
    torch.testing.assert_close(logits.double(), wanted_logits(weights, ids), rtol=1e-4, atol=3e-5)
    native = NativeDecoder(weights, 8, 32)
    for i in range(len(ids)):
        one = native.states(array("i", ids[i : i + 1]), array("i", [i]), TABLE, array("i", [0]))
        assert torch.equal(native.logits(one)[0], logits[i])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bits", [32, 8, 4])
def test_rows_one_by_one_some_or_all_at_once_on_any_threads_are_the_same_bits(
    form: str, bits: int
) -> None:
    weights, ids = packed(make(**FORMS[form]), bits, 32), ids_of(70)
    whole = at_once(weights, ids)
    before = torch.get_num_threads()
    for threads, sizes in ((1, [1] * 70), (2, [2, 3, 4, 5, 6, 7, 1, 42])):
        torch.set_num_threads(threads)
        try:
            native, parts, start = NativeDecoder(weights, 8, 32), [], 0
            for size in sizes:
                here = range(start, start + size)
                states = native.states(
                    array("i", [ids[i] for i in here]), array("i", here), TABLE,
                    array("i", [0] * size),
                )  # fmt: skip
                parts.append(native.logits(states))
                start += size
        finally:
            torch.set_num_threads(before)
        assert torch.equal(torch.cat(parts), whole)


def test_sequences_of_different_lengths_do_not_see_each_other() -> None:
    weights, ids = weights_of(make()), ids_of()
    native = NativeDecoder(weights, 8, 32)
    first = ids[:40]
    places = array("i", [*range(40), *range(3)])
    tables = array("i", [3, 0, 6])  # two blocks of one sequence, one of the other
    states = native.states(
        array("i", [*first, *ids[50:53]]), places, tables, array("i", [0] * 40 + [2] * 3)
    )
    torch.testing.assert_close(states[:40], _states(weights, first), rtol=0, atol=0)
    torch.testing.assert_close(states[40:], _states(weights, ids[50:53]), rtol=0, atol=0)


def _states(weights: DecoderWeights, ids: list[int]) -> Tensor:
    native = NativeDecoder(weights, 8, 32)
    return native.states(
        array("i", ids), array("i", range(len(ids))), TABLE, array("i", [0] * len(ids))
    )


def test_only_forms_and_formats_that_the_step_knows_are_taken() -> None:
    for changes in (
        DECODER_FORMS["gpt2"], {"window": 9}, {"experts": ExpertsConfig(4, 2, 16)},
        {**LLAMA, "positions": "alibi"}, {**LLAMA, "qkv_bias": True}, {"activation": "geglu"},
    ):  # fmt: skip
        assert not has_native_form(make(**{"n_kv_heads": 4, **changes}).config)
    decoder = make()
    assert decodes(weights_of(decoder))
    assert not decodes(weights_of(copy.deepcopy(decoder).double()))
    assert not decodes(packed(decoder, 4, 8))  # half a register
    with calls.plain_torch():
        assert not decodes(weights_of(decoder))


def test_float16_scales_are_read_in_all_their_forms() -> None:
    # The one place where a conversion is written out by hand, on machines without one of theirs.
    decoder = make()
    weights = packed(decoder, 4, 32)
    name = "layers.0.mlp.up_proj.weight"
    matrix = weights.tensors[name]
    assert isinstance(matrix, Packed)
    assert matrix.offset is not None
    scale = matrix.scale.clone()
    scale[0, 0], scale[1, 0], scale[2, 0] = 6e-8, 3e-5, -0.0  # subnormal twice, and minus nought
    odd = Packed(matrix.codes, scale, matrix.offset)
    changed = DecoderWeights(weights.config, {**weights.tensors, name: odd})
    torch.testing.assert_close(
        at_once(changed, ids_of()).double(), wanted_logits(changed, ids_of()), rtol=1e-4, atol=3e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("march", ["x86-64-v3", "x86-64"])
def test_other_registers_compute_the_same(
    march: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "avx2" not in build._instructions():
        pytest.skip("not a processor of that kind")
    compiler = build._compiler()
    assert compiler is not None
    flags = tuple(f"-march={march}" if f.startswith("-march") else f for f in build.FLAGS)
    monkeypatch.setattr(build, "FLAGS", flags)
    build._build(compiler, tmp_path / "other.so")
    other = Library(ctypes.CDLL(str(tmp_path / "other.so")), "")
    monkeypatch.setattr(decode, "library", lambda: other)
    for bits in (32, 8, 4):
        test_logits_are_those_of_the_decoder_in_float64("Qwen3", bits)
        test_logits_are_those_of_the_decoder_in_float64("wide heads", bits)
        test_rows_one_by_one_some_or_all_at_once_on_any_threads_are_the_same_bits("Qwen3", bits)
    test_logits_are_those_of_the_decoder_in_float64("widths of no whole register", 8)
    test_float16_scales_are_read_in_all_their_forms()
