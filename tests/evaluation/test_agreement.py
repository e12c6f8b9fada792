"""`isoflop eval`, lm-evaluation-harness on the export, and the harness over HTTP: one answer."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from isoflop.data.tokenizer import Tokenizer
from isoflop.evaluation.likelihood import Subject
from isoflop.models.convert import save_model

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "evaluation_agreement.py"
NEEDED = ("lm_eval", "accelerate", "tenacity", "aiohttp", "fastapi", "uvicorn")


@pytest.mark.slow
def test_a_model_scores_the_same_by_command_by_harness_and_over_http(
    subject_of: Callable[..., Subject], codec: Tokenizer, tmp_path: Path
) -> None:
    for module in NEEDED:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    save_model(subject_of(max_seq_len=256).decoder, tmp_path / "model", codec.directory)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "model"), "--items", "12", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]
    rows = json.loads(ran.stdout[ran.stdout.index("{") :])["rows"]
    assert [row["task"] for row in rows] == [
        "bits_per_byte", "minimal_pairs", "multiple_choice", "cloze",
    ]  # fmt: skip
    for row in rows:
        assert row["bits_per_byte_apart"] <= 1e-6
        ours, by_harness, over_http = row["scores"]
        if row["task"] == "bits_per_byte":
            assert ours == pytest.approx(by_harness, abs=1e-6)
            assert ours == pytest.approx(over_http, abs=1e-6)
        else:
            assert ours == by_harness == over_http
