"""What the native library reads of many answers against one pass over each whole text."""

from __future__ import annotations

import pytest
import torch

from isoflop.alignment.answer_reader import open_reader
from isoflop.alignment.lora import attach
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.models.native import calls
from isoflop.models.native.build import library

PROMPTS = [(1, 2, 3), (4, 5, 6)]
COPIES = 3
STEPS = 60
"""Enough to need several blocks of memory."""


def decoder() -> Decoder:
    config = DecoderConfig(40, 64, 2, 2, 1, 32, 96, 80)
    model = Decoder(config).eval()
    initialise(model, 0)
    with torch.no_grad():  # blocks begin as the identity: nothing would depend on the past
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("native", [True, False])
@torch.no_grad()
def test_the_logits_are_those_of_one_pass_over_the_text(native: bool) -> None:
    if native and library().functions is None:
        pytest.skip(f"no native library: {library().why}")
    model = decoder()
    draw = torch.Generator().manual_seed(2)
    texts = [list(prompt) for prompt in PROMPTS for _ in range(COPIES)]
    before = calls.in_use()
    calls.use(native)
    try:
        reader = open_reader(model, PROMPTS, COPIES, len(PROMPTS[0]) + STEPS)
        assert type(reader).__name__ == ("_NativeReader" if native else "_TorchReader")
        found = reader.begin().repeat_interleave(COPIES, dim=0)
        for step in range(STEPS):
            expected = torch.stack([model(torch.tensor([text]))[0, -1] for text in texts])
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
            if step in (5, 40):  # answers end
                left = torch.tensor([0, 2, 3] if step == 5 else [1])
                reader.keep(left)
                texts = [texts[row] for row in left.tolist()]
            ids = torch.randint(40, (len(texts),), generator=draw)
            texts = [[*text, token] for text, token in zip(texts, ids.tolist(), strict=True)]
            found = reader.read(ids)
    finally:
        calls.use(before)


def test_what_is_more_than_weights_is_read_by_torch() -> None:
    model = decoder()
    attach(model, 2, 4.0, False, 0)
    assert type(open_reader(model, PROMPTS, 1, 8)).__name__ == "_TorchReader"
    assert type(open_reader(decoder().double(), PROMPTS, 1, 8)).__name__ == "_TorchReader"
