"""The paged forward pass against the decoder's own, for every form of decoder."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from isoflop.models.config import DECODER_FORMS, ExpertsConfig
from isoflop.models.decoder import Decoder
from isoflop.serving.forward import PagedDecoder, Unit, rows_are_independent
from isoflop.serving.settings import BLOCK

GPT2, LLAMA = DECODER_FORMS["gpt2"], DECODER_FORMS["llama"]
FORMS = {
    "Qwen3": {},
    "Qwen3, window": {"window": 11},
    "Qwen3-MoE": {"experts": ExpertsConfig(5, 2, 24)},
    "shared experts": {"experts": ExpertsConfig(4, 2, 20, n_shared=2)},
    "Llama, untied": {**LLAMA, "tie_embeddings": False},
    "Qwen2": {**LLAMA, "qkv_bias": True},
    "GPT-2": {**GPT2, "n_kv_heads": 4},
    "GPT-1": {**GPT2, "n_kv_heads": 4, "post_norm": True},
    "sinusoids": {**GPT2, "positions": "sinusoidal"},
    "ALiBi": {**LLAMA, "positions": "alibi"},
    "Gopher": {**GPT2, "norm": "rms", "positions": "relative", "n_kv_heads": 4},
}


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_blocks_of_prompts_and_single_tokens_give_the_decoders_logits(
    form: str, decoder_of: Callable[..., Decoder]
) -> None:
    decoder = decoder_of(**FORMS[form])
    draw = torch.Generator().manual_seed(3)
    lengths = (2 * BLOCK + 7, 5)
    rows = [torch.randint(97, (length,), generator=draw).tolist() for length in lengths]
    with torch.no_grad():
        wanted = [decoder(torch.tensor([ids]))[0] for ids in rows]
    paged = PagedDecoder(decoder, 8)
    tables = ((5, 1, 2), (7,))  # blocks out of order
    got: list[list[torch.Tensor]] = [[], []]

    def compute(*units: tuple[int, int, int]) -> None:
        made = [
            Unit(tuple(rows[row][start : start + length]), start, tables[row])
            for row, start, length in units
        ]
        logits = paged.logits(paged.hidden(made))
        for (row, _, _), part in zip(
            units, logits.split([length for _, _, length in units]), strict=True
        ):
            got[row].append(part)

    compute((0, 0, BLOCK), (1, 0, 3))
    compute((1, 3, 1), (0, BLOCK, BLOCK), (0, 2 * BLOCK, 3))
    compute((0, 2 * BLOCK + 3, 1), (0, 2 * BLOCK + 4, 1), (1, 4, 1))
    compute((0, 2 * BLOCK + 5, 1))
    compute((0, 2 * BLOCK + 6, 1))
    for parts, whole in zip(got, wanted, strict=True):
        torch.testing.assert_close(torch.cat(parts), whole, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_rows_are_the_same_bits_in_any_company(
    form: str, decoder_of: Callable[..., Decoder]
) -> None:
    assert rows_are_independent(PagedDecoder(decoder_of(**FORMS[form]), 4), 128)


def test_the_check_notices_rows_that_depend_on_others(
    decoder_of: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = PagedDecoder(decoder_of(), 4)
    logits = model.logits
    monkeypatch.setattr(model, "logits", lambda x: logits(x) + 1e-6 * len(x))
    assert not rows_are_independent(model, 128)


def test_the_decoder_gives_the_same_after_its_matrices_are_laid_side_by_side(
    decoder_of: Callable[..., Decoder],
) -> None:
    decoder, ids = decoder_of(), torch.arange(20)[None]
    with torch.no_grad():
        before = decoder(ids)
        PagedDecoder(decoder, 2)
        torch.testing.assert_close(decoder(ids), before, rtol=1e-6, atol=1e-6)
