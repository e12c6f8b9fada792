"""Every kind of model has a card that says what it is and what it was made from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.core.artifact import read_manifest, write_json, write_manifest
from isoflop.models.build import build_model
from isoflop.models.card import CARD, last_evaluation, model_card
from isoflop.models.config import (
    AnyConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ExpertsConfig,
)
from isoflop.models.convert import export_model, import_model, save_model
from isoflop.models.initialise import initialise

SIZES = {"vocab_size": 50, "d_model": 32, "n_layers": 1, "n_heads": 2, "d_ff": 32}
DECODER = DecoderConfig(**SIZES, n_kv_heads=2, head_dim=16, max_seq_len=16)
EXPERTS = DecoderConfig(
    **SIZES, n_kv_heads=2, head_dim=16, experts=ExpertsConfig(n_experts=4, top_k=2, d_expert=32)
)


def artifact(folder: Path, kind: str, inputs: list[Path]) -> Path:
    folder.mkdir(parents=True)
    write_json(folder / "content.json", {"kind": kind})
    write_manifest(folder, kind=kind, config={}, machine={}, inputs=inputs)
    return folder


@pytest.mark.parametrize(
    ("config", "form"),
    [
        (DECODER, "decoder: rms norm, rotary positions, swiglu"),
        (EXPERTS, "mixture of experts"),
        (EncoderConfig(**SIZES, max_seq_len=16), "encoder (BERT)"),
        (EncoderDecoderConfig(**SIZES, n_decoder_layers=1, head_dim=16), "encoder and decoder"),
    ],
)
def test_a_saved_model_of_any_form_has_a_card_with_its_chain(
    config: AnyConfig, form: str, tmp_path: Path
) -> None:
    corpus = artifact(tmp_path / "corpus", "corpus", [])
    shards = artifact(tmp_path / "shards", "shards", [corpus])
    run = tmp_path / "first_run"
    run.mkdir()
    rows = [{"loss": 9.0}, {"step": 3, "tokens": 1234567, "loss": 2.5, "bits_per_byte": 1.25}]
    (run / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = build_model(config)
    initialise(model, 0)
    save_model(model, run / "model", inputs=[shards], seed=7)
    card = (run / "model" / CARD).read_text()
    assert card.startswith("# first\\_run\n")
    for part in (
        form, "| seed | 7 |", "| held-out loss, nats per token | 2.5000 |", "1,234,567",
        "- shards shards", "  - corpus corpus",
    ):  # fmt: skip
        assert part in card
    assert CARD in read_manifest(run / "model", "model", verify=True).files


def test_what_is_imported_and_exported_says_from_what(tmp_path: Path) -> None:
    model = build_model(DECODER)
    initialise(model, 0)
    save_model(model, tmp_path / "ours")
    assert "Nothing that was written down" in (tmp_path / "ours" / CARD).read_text()
    export_model(tmp_path / "ours", tmp_path / "theirs")
    (tmp_path / "theirs" / CARD).write_text("another's card")
    (tmp_path / "theirs" / "manifest.json").unlink()  # as another tool writes it
    import_model(tmp_path / "theirs", tmp_path / "back")
    card = (tmp_path / "back" / CARD).read_text()
    assert card.startswith("# back")
    assert "file model.safetensors, `" in card


def test_inputs_that_are_gone_or_changed_are_named_and_not_followed(tmp_path: Path) -> None:
    gone = artifact(tmp_path / "gone", "corpus", [])
    shards = artifact(tmp_path / "shards", "shards", [gone])
    (gone / "manifest.json").write_text("{}")
    card = model_card("m", DECODER, [shards, tmp_path / "nowhere"], {})
    assert "- gone, `" in card
    assert "not followed" in card
    assert "file nowhere, no longer there" in card


def test_a_damaged_log_gives_no_figures(tmp_path: Path) -> None:
    assert last_evaluation(tmp_path / "model") == {}
    (tmp_path / "evals.jsonl").write_text("")
    assert last_evaluation(tmp_path / "model") == {}
    (tmp_path / "evals.jsonl").write_text('{"loss": "low", "accuracy": 0.5}\n')
    assert last_evaluation(tmp_path / "model") == {"held-out pairs told": "50.0%"}
