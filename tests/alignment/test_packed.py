from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from isoflop.alignment.chat import Encoded
from isoflop.alignment.packed import Conversations
from isoflop.alignment.sft import SftBatch, batch_of
from isoflop.core.errors import DataError
from isoflop.data.loader import IGNORED, Windows
from isoflop.models import decoder as decoder_module
from isoflop.models.config import DECODER_FORMS, DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training import step as step_module
from isoflop.training.objectives import next_token_loss
from isoflop.training.step import Task

SEQ = 24
VOCAB = 40
END = 39


def talks(lengths: list[int], seed: int = 0) -> list[Encoded]:
    """Conversations of random ids and an end: a third asked, the rest answered."""
    draw = np.random.default_rng(seed)
    return [
        Encoded(
            (*draw.integers(0, VOCAB, n - 1).tolist(), END), tuple(i >= n // 3 for i in range(n))
        )
        for n in lengths
    ]


def model_of(form: str) -> Decoder:
    """A float64 model; rotary tables too, whose float32 would hide what is to be shown."""
    config = DecoderConfig(
        vocab_size=VOCAB, d_model=32, n_layers=2, n_heads=2, n_kv_heads=2, head_dim=16, d_ff=64,
        max_seq_len=SEQ, **DECODER_FORMS[form],
    )  # fmt: skip
    model = Decoder(config)
    initialise(model, 3)
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():  # no matrix may be zero, as those into the stream are at first
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.2, generator=draw)
    model = model.double()
    if model.rotary is not None:
        frequency = 10_000.0 ** (-torch.arange(0, 16, 2, dtype=torch.float64) / 16)
        angle = torch.outer(frequency, torch.arange(SEQ, dtype=torch.float64))
        model.rotary.cos_PT, model.rotary.sin_PT = angle.cos(), angle.sin()
    return model


def gradient(model: Decoder, batches: list[SftBatch]) -> torch.Tensor:
    """Of one optimizer step over these micro-batches, by the loop's own code."""
    model.zero_grad()
    task = Task(
        batches=lambda step: batches, loss=next_token_loss,
        evaluate=lambda model: {}, samples=lambda model: [],
    )  # fmt: skip
    step_module.compute_gradient(model, task, 0, 1e9)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def apart(encoded: list[Encoded], model: Decoder) -> torch.Tensor:
    """Gradient of the summed loss over all tokens to learn, each conversation by itself and by
    the plain formula, over their count."""
    model.zero_grad()
    count = sum(sum(each.supervised[1:]) for each in encoded)
    for each in encoded:
        ids = torch.tensor([each.ids])
        logprobs = model(ids[:, :-1]).log_softmax(-1)
        picked = logprobs.gather(-1, ids[:, 1:, None])[0, :, 0]
        (-(picked * torch.tensor(each.supervised[1:])).sum() / count).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def packed_gradient(form: str, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    encoded = talks(lengths)
    windows = Conversations(encoded, SEQ, seed=1)
    assert windows.n_windows < len(encoded)
    rows = windows.at(np.arange(windows.n_windows))
    model = model_of(form)
    batches = [batch_of(rows, slice(i, i + 1)) for i in range(windows.n_windows)]
    return gradient(model, batches), apart(encoded, model)


LENGTHS = [5, 9, 11, 24, 4, 8, 25, 13, 3]


@pytest.mark.parametrize("form", ["qwen3", "gpt2"])
def test_the_packed_gradient_is_that_of_the_documents_apart(form: str) -> None:
    packed, separate = packed_gradient(form, LENGTHS)
    assert (packed - separate).abs().max() <= 1e-12


def forget_documents(patch: pytest.MonkeyPatch) -> None:
    original = Decoder.routed
    patch.setattr(
        Decoder, "routed", lambda self, ids, document=None, cache=None: original(self, ids)
    )


def run_positions_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        decoder_module, "positions_in_documents",
        lambda document: torch.arange(document.shape[1]).expand(document.shape),
    )  # fmt: skip


def learn_prompts(patch: pytest.MonkeyPatch) -> None:
    original = Conversations.__init__

    def everything(self: Any, encoded: Any, *args: Any, **options: Any) -> None:
        whole = [replace(each, supervised=(True,) * len(each.ids)) for each in encoded]
        original(self, whole, *args, **options)

    patch.setattr(Conversations, "__init__", everything)


def mask_by_comparing_ids(patch: pytest.MonkeyPatch) -> None:
    """Padding is the end of a text, and where that stands nothing is learnt."""
    original = Conversations.at

    def without_ends(self: Any, bins: Any) -> Windows:
        rows = original(self, bins)
        return replace(rows, labels_BT=np.where(rows.labels_BT == END, IGNORED, rows.labels_BT))

    patch.setattr(Conversations, "at", without_ends)


def average_means(patch: pytest.MonkeyPatch) -> None:
    """Each micro-batch by the mean over its own tokens, as if they all had as many."""
    patch.setattr(
        step_module, "compute_gradient",
        lambda model, task, step, clip: [
            (task.loss(model, batch) / batch.n_valid / len(task.batches(0))).backward()
            for batch in task.batches(0)
        ],
    )  # fmt: skip


MUTANTS = {
    "no document boundary": (forget_documents, "qwen3"),
    # Learned positions: of rotary ones only distances count.
    "positions not restarted": (run_positions_on, "gpt2"),
    "prompt in the loss": (learn_prompts, "qwen3"),
    "pad = EOS": (mask_by_comparing_ids, "qwen3"),
    "mean of micro-batch means": (average_means, "qwen3"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_comparison_fails_for_each_known_mistake(
    mutant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, form = MUTANTS[mutant]
    spoil(monkeypatch)
    packed, separate = packed_gradient(form, LENGTHS)
    assert (packed - separate).abs().max() > 1e-4


def test_one_batch_is_its_micro_batches() -> None:
    encoded = talks(LENGTHS)
    windows = Conversations(encoded, SEQ, seed=1)
    rows = windows.at(np.arange(windows.n_windows))
    model = model_of("qwen3")
    whole = gradient(model, [batch_of(rows, slice(None))])
    parts = [batch_of(rows, slice(i, i + 1)) for i in range(windows.n_windows)]
    assert (gradient(model, parts) - whole).abs().max() <= 1e-12


def test_changing_the_first_document_leaves_the_seconds_logits_bit_equal() -> None:
    first, second = talks([10, 14])
    other = talks([10], seed=9)[0]
    model = model_of("qwen3").float().eval()
    found = []
    for one in (first, other):
        windows = Conversations([one, second], SEQ, seed=1).at(np.array([0]))
        batch = batch_of(windows, slice(None))
        with torch.no_grad():
            logits = model(batch.ids_BT, batch.document_BT)[0]
        last = int(windows.document_BT[0].max())
        mine = [
            d for d in range(last + 1)
            if tuple(windows.ids_BT[0][windows.document_BT[0] == d]) == second.ids[:-1]
        ]  # fmt: skip
        found.append(logits[torch.from_numpy(windows.document_BT[0] == mine[0])])
    assert torch.equal(found[0], found[1])


def test_what_fills_a_window_changes_no_bit_of_the_gradient() -> None:
    encoded = talks([7, 9, 20])
    model = model_of("qwen3")
    gradients = []
    for pad in (0, 39):
        windows = Conversations(encoded, SEQ, seed=1, pad_id=pad)
        rows = windows.at(np.arange(windows.n_windows))
        gradients.append(gradient(model, [batch_of(rows, slice(None))]))
    assert torch.equal(gradients[0], gradients[1])


def test_the_end_of_a_text_and_the_padding_id_are_learnt_like_any_other() -> None:
    # Ids equal to the padding, inside what is to be learnt.
    encoded = [Encoded((5, 0, 0, 6, 0), (False, True, True, True, True))]
    windows = Conversations(encoded, SEQ, seed=0, pad_id=0).at(np.array([0]))
    assert windows.labels_BT[0, :5].tolist() == [0, 0, 6, 0, -100]
    assert windows.n_labels == 4


def test_every_conversation_comes_once_in_an_epoch() -> None:
    encoded = talks(LENGTHS)
    windows = Conversations(encoded, SEQ, seed=4)
    for epoch in range(2):
        epoch_of = windows.batch(epoch * windows.n_windows, windows.n_windows)
        seen = [
            tuple(ids[document == d])
            for ids, document in zip(epoch_of.ids_BT, epoch_of.document_BT, strict=True)
            for d in range(document.max() + 1)
        ]
        assert all(seen.count(each.ids[:-1]) == 1 for each in encoded)
        assert epoch_of.n_labels == windows.n_labels == sum(sum(e.supervised[1:]) for e in encoded)


def test_a_conversation_with_nothing_to_learn_is_named() -> None:
    nothing = Encoded((1, 2, 3), (True, False, False))  # its only one is never a label
    with pytest.raises(DataError, match="conversation 1: nothing"):
        Conversations([*talks([4]), nothing], SEQ, seed=0)
    with pytest.raises(DataError, match="no conversation"):
        Conversations([], SEQ, seed=0)
    with pytest.raises(DataError, match="26 tokens"):
        Conversations(talks([26]), SEQ, seed=0)
