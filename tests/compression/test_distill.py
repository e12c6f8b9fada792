"""The loss of learning from a larger model, against the formula in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from isoflop.compression.distill import Student, distillation_loss
from isoflop.data.loader import IGNORED
from isoflop.models.build import build_model
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.training.objectives import TokenBatch, next_token_loss

CONFIG = DecoderConfig(
    vocab_size=43, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=48,
    max_seq_len=24,
)  # fmt: skip


def decoder_of(seed: int, **changes: int) -> Decoder:
    torch.manual_seed(seed)
    model = build_model(replace(CONFIG, **changes))  # type: ignore[arg-type]
    assert isinstance(model, Decoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


@pytest.fixture
def batch() -> TokenBatch:
    torch.manual_seed(3)
    ids = torch.randint(0, 43, (3, 24))
    labels = torch.roll(ids, -1, 1)
    labels[:, -1] = IGNORED
    labels[0, 4] = IGNORED
    documents = torch.zeros_like(ids, dtype=torch.int32)
    documents[0, 5:] = 1
    return TokenBatch(ids, labels, documents, int((labels != IGNORED).sum()))


def test_without_a_teacher_it_is_the_plain_loss(batch: TokenBatch) -> None:
    own = decoder_of(0)
    found = distillation_loss(decoder_of(1), 0.0, 2.0, 0.0)(Student(own, None), batch)
    torch.testing.assert_close(found, next_token_loss(own, batch))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_it_is_the_formula(batch: TokenBatch, temperature: float) -> None:
    own, teacher = decoder_of(0, d_model=64, n_heads=4, n_kv_heads=2), decoder_of(1)
    found = distillation_loss(teacher, 0.7, temperature, 0.0)(Student(own, None), batch)
    wanted = 0.0
    with torch.no_grad():
        p = teacher(batch.ids_BT, batch.document_BT).double()
        q = own(batch.ids_BT, batch.document_BT).double()
    for row in range(3):
        for place in range(24):
            label = int(batch.labels_BT[row, place])
            if label == IGNORED:
                continue
            hard = -q[row, place].log_softmax(0)[label].item()
            known = (p[row, place] / temperature).softmax(0)
            learnt = (q[row, place] / temperature).softmax(0)
            soft = sum(
                a * math.log(a / b) for a, b in zip(known.tolist(), learnt.tolist(), strict=True)
            )
            wanted += 0.3 * hard + 0.7 * temperature**2 * soft
    assert found.item() == pytest.approx(wanted, rel=1e-5)


def test_a_student_that_is_its_teacher_has_nothing_to_learn(batch: TokenBatch) -> None:
    own = decoder_of(0)
    loss = distillation_loss(decoder_of(0), 1.0, 1.0, 3.0)
    student = Student(own, own.config.d_model)
    found = loss(student, batch)
    assert found.item() == pytest.approx(0, abs=1e-3)
    with torch.no_grad():
        own.layers[0].mlp.down_proj.weight.mul_(2)
    assert loss(student, batch).item() > 1


def test_gradients_reach_the_student_and_its_maps_and_never_the_teacher(batch: TokenBatch) -> None:
    teacher, own = decoder_of(1, n_layers=3), decoder_of(0, d_model=64)
    student = Student(own, teacher.config.d_model)
    distillation_loss(teacher, 0.5, 1.0, 0.1)(student, batch).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.any() for p in student.maps.parameters())
    assert all(p.grad is not None for p in own.parameters())
    assert all(p.grad is None for p in teacher.parameters())
