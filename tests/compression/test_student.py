"""Students from promise to model, continued where they stopped."""

from __future__ import annotations

import itertools
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import isoflop
from isoflop.cli.main import main
from isoflop.compression import student
from isoflop.compression.compress import compress
from isoflop.compression.recipe import CompressConfig, StudentConfig
from isoflop.compression.student import HEALS, extrapolated, smaller_config
from isoflop.core.errors import ArtifactError, RecipeError, RunError
from isoflop.core.ledger import Ledger
from isoflop.data.shards import Shards
from isoflop.models.build import build_model
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import save_model
from isoflop.models.initialise import initialise
from isoflop.training.stops import Interrupted

SHORT = StudentConfig(
    tokens=64 * 64, batch_tokens=64, learning_rate=1e-2, teacher_weight=0.5, checkpoint_every=20
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Shards) -> Path:
    """A teacher that knows nothing: what is proved here is not what students learn."""
    config = DecoderConfig(
        vocab_size=tiny_shards.vocab_size, d_model=64, n_layers=2, n_heads=2, n_kv_heads=2,
        head_dim=32, d_ff=128, max_seq_len=32,
    )  # fmt: skip
    decoder = build_model(config)
    initialise(decoder, 0)
    out = tmp_path_factory.mktemp("teacher") / "model"
    save_model(decoder, out, tiny_shards.tokenizer_directory)
    return out


def test_a_student_is_promised_trained_and_found_again(
    model: Path, tiny_shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "student"
    said = [
        "compress", str(model), "--method", "distill", "--data", str(tiny_shards.directory),
        "-o", str(out), "--tokens", "1024", "--student.tokens", "4096", "--student.batch-tokens",
        "64", "--student.hidden-weight", "0.1", "--json",
    ]  # fmt: skip
    main(said)
    document = json.loads(capsys.readouterr().out)
    small = isoflop.load(out / "model").decoder
    assert (small.config.d_model, small.config.n_heads, small.config.d_ff) == (32, 1, 64)
    assert document["bytes"] < 0.5 * document["bytes_full"]
    promises = Ledger(out / "ledger.jsonl").read()
    assert [p.quantity for p in promises] == [
        "bits_per_byte_added", "weights_bytes", "tokens_per_second",
    ]  # fmt: skip
    assert all(p.settled for p in promises)
    assert promises[1].held
    assert document["foretold"]["tokens"] == [256, 512, 1024]
    assert not (out / "pilots").exists()
    assert "- model model" in (out / "model" / "README.md").read_text()
    # The finished run is read, not made again, and another recipe is refused.
    main(said)
    again = json.loads(capsys.readouterr().out)
    assert again == document
    other = CompressConfig("distill", tokens=1024, student=replace(SHORT, tokens=8192))
    with pytest.raises(RunError, match=r"student\.tokens was 4096"):
        compress(model, tiny_shards.directory, out, other)
    with pytest.raises(ArtifactError, match="holds a model"):
        isoflop.load(out)


def test_a_student_that_was_stopped_goes_on_to_the_same_bits(
    model: Path, tiny_shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SHORT, drop_layers=0.5, drop_heads=0.5, drop_neurons=0.25)
    config = CompressConfig("drop", tokens=1024, student=settings)
    compress(model, tiny_shards.directory, tmp_path / "whole", config)
    real = student.distillation_loss

    def stopping(*args: Any) -> Any:
        """The loss, after which the process is asked to end in the middle of the long run."""
        loss, calls = real(*args), itertools.count(1)

        def seen(*given: Any) -> Any:
            if next(calls) == 45:
                os.kill(os.getpid(), signal.SIGTERM)
            return loss(*given)

        return seen

    with monkeypatch.context() as patch:
        patch.setattr(student, "distillation_loss", stopping)
        with pytest.raises(Interrupted):
            compress(model, tiny_shards.directory, tmp_path / "cut", config)
    # What was promised before stays promised; the pilots are not asked again.
    promised = (tmp_path / "cut" / "ledger.jsonl").read_text()
    found = compress(model, tiny_shards.directory, tmp_path / "cut", config)
    assert (tmp_path / "cut" / "ledger.jsonl").read_text().startswith(promised)
    assert [len(promised.splitlines()), len(found.promises)] == [3, 3]
    whole, cut = (isoflop.load(tmp_path / name / "model").decoder for name in ("whole", "cut"))
    assert whole.config.n_layers == whole.config.n_kv_heads == 1
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


def test_a_quantity_that_falls_by_a_steady_factor_is_foretold() -> None:
    gaps = [2.0 + 3 * 0.7**k for k in range(6)]
    value, low, high = extrapolated(gaps[:3], 3)
    assert value == pytest.approx(gaps[5])
    assert low < value < high
    assert extrapolated([1.0, 1.0, 1.0], 3) == (1.0, 1.0, 1.0)
    # What was kept heals fast: it may gain nothing more, and never as much as new weights learn.
    healed, least, most = extrapolated(gaps[:3], 3, HEALS)
    assert value < healed < most == gaps[2]
    assert low < least


def test_a_students_shape_is_the_models_made_smaller() -> None:
    config = DecoderConfig(
        vocab_size=99, d_model=128, n_layers=4, n_heads=8, n_kv_heads=4, head_dim=16, d_ff=352
    )
    half = smaller_config(config, StudentConfig())
    assert (half.d_model, half.n_layers, half.n_heads, half.n_kv_heads) == (64, 4, 4, 4)
    assert half.d_ff == 192
    shallow = smaller_config(config, StudentConfig(layers=2))
    assert replace(shallow, n_layers=4) == config
    for width, layers, said in ((256, None, "larger"), (128, 4, "as large"), (None, 9, "larger")):
        with pytest.raises(RecipeError, match=said):
            smaller_config(config, StudentConfig(width=width, layers=layers))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": 100}, "64 are needed"),
        ({"teacher_weight": 1.5}, "teacher_weight"),
        ({"temperature": 0.0}, "temperature"),
        ({"width": 40}, "multiple of 32"),
        ({"drop_heads": 1.0}, "must lie in"),
    ],
)
def test_impossible_students_are_refused(changes: dict[str, float], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        CompressConfig("distill", student=replace(StudentConfig(), **changes))  # type: ignore[arg-type]
