"""`isoflop models`, `import` and `export` as a user sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from isoflop.cli.main import main
from isoflop.core.artifact import MANIFEST, read_manifest
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.models.presets import PRESETS


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory as another tool writes it: no manifest."""
    model = Decoder(DecoderConfig(97, 32, 2, 4, 2, 8, 48, qk_norm=False))
    initialise(model, 0)
    save_model(model, tmp_path / "theirs")
    (tmp_path / "theirs" / MANIFEST).unlink()
    return tmp_path / "theirs"


def test_a_directory_goes_in_and_out_unchanged(theirs: Path, tmp_path: Path, capsys) -> None:
    ours, out = tmp_path / "ours", tmp_path / "out"
    assert main(["import", str(theirs), "-o", str(ours)]) == 0
    assert "LlamaForCausalLM" in capsys.readouterr().out
    read_manifest(ours, "model", verify=True)
    assert main(["export", str(ours), "--to", "hf", "-o", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["architecture"] == "LlamaForCausalLM"
    before, after = (load_file(d / "model.safetensors") for d in (theirs, out))
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    assert document["params_total"] == sum(tensor.numel() for tensor in before.values())


def test_what_cannot_be_read_is_exit_2_and_nothing_is_written(
    theirs: Path, tmp_path: Path, capsys
) -> None:
    (theirs / "model.safetensors").write_bytes(b"pickled")
    assert main(["import", str(theirs), "-o", str(tmp_path / "ours")]) == 2
    assert "not a whole safetensors file" in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()
    assert main(["export", str(tmp_path / "nowhere"), "-o", str(tmp_path / "out")]) == 2
    assert main(["import", str(tmp_path / "nowhere"), "-o", str(tmp_path / "out")]) == 2
    assert "no such model directory" in capsys.readouterr().err


def test_all_published_models_are_listed(capsys) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(PRESETS)
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["models"]
    assert {each["name"]: each["params_total"] for each in listed}["gpt2"] == 124_439_808


def test_one_model_is_shown_with_its_costs(capsys) -> None:
    assert main(["models", "qwen3-30b-a3b", "--seq-len", "4096", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["params"]["active_total"] == 3_353_032_704
    assert found["kv_bytes_per_token"] == 2 * 48 * 4 * 128 * 2
    assert found["training_flops_per_token"]["six_n"] == 6 * found["active"] - 6 * 151_936 * 2048
    for name in ("t5-base", "bert-base", "gpt3-175b"):
        assert main(["models", name]) == 0
        said = capsys.readouterr().out
        assert "params_total" in said
        assert "memory of training" in said


def test_an_unknown_model_is_exit_2_with_the_nearest(capsys) -> None:
    assert main(["models", "gpt-2"]) == 2
    assert "Did you mean gpt2" in capsys.readouterr().err
