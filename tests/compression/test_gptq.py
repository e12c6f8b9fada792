"""GPTQ against brute force, and the layout of packed weights."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from isoflop.compression.gptq import gptq, gptq_decoder, output_error
from isoflop.compression.quantize import (
    grid_of,
    matrices,
    plan_bits,
    quantize,
    quantize_decoder,
    stored_bytes,
)
from isoflop.data.loader import Windows
from isoflop.models.config import DECODER_FORMS, DecoderConfig, ExpertsConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise


def random_layer(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """A matrix and the second moment of inputs that hang together, as real ones do."""
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(columns, columns, generator=draw)
    inputs = torch.randn(4 * columns, columns, generator=draw) @ mixed
    return torch.randn(rows, columns, generator=draw), inputs.T @ inputs


def tiny(seed: int = 0, **more: object) -> Decoder:
    sizes = {"vocab_size": 40, "d_model": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2}
    config = DecoderConfig(**sizes, head_dim=16, d_ff=64, max_seq_len=16, **more)  # type: ignore[arg-type]
    decoder = Decoder(config)
    initialise(decoder, seed)
    return decoder.eval()


def some_windows(n: int = 8, vocab: int = 40) -> Windows:
    ids = torch.randint(vocab, (n, 17), generator=torch.Generator().manual_seed(1)).numpy()
    return Windows(ids[:, :-1], ids[:, 1:], (ids[:, :-1] * 0).astype("int32"))


@pytest.mark.parametrize(("bits", "group"), [(8, 32), (4, 32), (4, 16)])
def test_no_weight_is_further_from_its_value_than_half_a_step(bits: int, group: int) -> None:
    weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
    packed = quantize(weight, bits, group)
    step = packed.scale.float().repeat_interleave(64 // packed.scale.shape[1], 1)
    slack = 2e-3 * weight.abs().max()  # the ends of a 4-bit grid are rounded to float16
    assert ((packed.unpack() - weight).abs() <= step / 2 + slack).all()
    assert packed.bits == bits


def test_rows_of_zeros_and_of_one_value_come_back() -> None:
    weight = torch.stack((torch.zeros(32), torch.full((32,), 0.5)))
    assert torch.equal(quantize(weight, 8, 32).unpack(), weight)
    assert torch.allclose(quantize(weight, 4, 32).unpack(), weight, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("bits", "group"), [(4, 16), (4, 32), (8, 32)])
def test_gptq_never_changes_outputs_more_than_rounding_to_nearest(
    bits: int, group: int, seed: int
) -> None:
    weight, moment = random_layer(8, 32, seed)
    ours = output_error(weight, gptq(weight, moment, bits, group), moment)
    assert ours <= output_error(weight, quantize(weight, bits, group), moment)


def test_on_two_columns_gptq_finds_what_brute_force_finds_given_its_first_column() -> None:
    # With the first code fixed, the best second one is found by trying all sixteen.
    for seed in range(20):
        weight, moment = random_layer(1, 2, seed)
        codes = gptq(weight, moment, 4, 2).codes
        first, second = int(codes[0, 0]) & 15, int(codes[0, 0]) >> 4
        grid = grid_of(weight, 4)
        damped = moment.double() + 0.01 * moment.diagonal().double().mean() * torch.eye(2)

        def error(one: int, two: int, w: Tensor = weight, g=grid, m: Tensor = damped) -> float:  # type: ignore[no-untyped-def]
            change = (w - g.values(torch.tensor([[float(one), float(two)]]))).double()
            return (change @ m @ change.T).item()

        assert first == int(grid.codes(weight)[0, 0])
        assert second == min(range(16), key=lambda two: error(first, two))


def test_on_four_columns_gptq_comes_near_the_best_of_all_codes() -> None:
    better = 0
    for seed in range(3):
        weight, moment = random_layer(1, 4, seed)
        grid = grid_of(weight, 4)
        tried = torch.tensor(list(itertools.product(range(16), repeat=4)), dtype=torch.double)
        change = weight.double() - grid.values(tried)
        best = ((change @ moment.double()) * change).sum(1).min().item()
        nearest = output_error(weight, quantize(weight, 4, 4), moment)
        ours = output_error(weight, gptq(weight, moment, 4, 4), moment)
        assert best <= ours * (1 + 1e-9)
        better += ours - best <= 0.5 * (nearest - best) + 1e-9
    assert better >= 2


def test_inputs_that_are_uncorrelated_leave_plain_rounding() -> None:
    weight, _ = random_layer(8, 32, 0)
    found = gptq(weight, torch.eye(32), 4, 16)
    assert torch.equal(found.codes, quantize(weight, 4, 16).codes)


def test_an_input_that_is_always_zero_is_rounded_to_nearest() -> None:
    weight, moment = random_layer(4, 32, 0)
    moment[5], moment[:, 5] = 0, 0
    assert torch.isfinite(gptq(weight, moment, 4, 32).unpack()).all()


FORMS = [{}, DECODER_FORMS["llama"], DECODER_FORMS["gpt2"], {"experts": ExpertsConfig(4, 2, 32)}]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_decoder_is_packed_whole(form: dict[str, object]) -> None:
    decoder = tiny(**form)
    plan = plan_bits(decoder, 4, 32)
    packed = gptq_decoder(decoder, plan, some_windows())
    names = {name for name, _ in matrices(decoder)}
    assert set(packed) == names == set(quantize_decoder(decoder, plan))
    own = dict(decoder.named_parameters())
    for name, each in packed.items():
        assert each.unpack().shape == own[name].shape
    rest = sum(4 * p.numel() for name, p in own.items() if name not in packed)
    assert stored_bytes(decoder, plan) == rest + sum(each.n_bytes for each in packed.values())
