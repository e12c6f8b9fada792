"""GRPO, PPO, DPO and reward runs as commands: what they write, and what a kill does not change."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from isoflop.alignment.dpo import reference_logprobs
from isoflop.alignment.dpo_run import REFERENCE
from isoflop.alignment.reward_model import load_reward_model
from isoflop.cli.main import main
from isoflop.models.convert import load_decoder

TRAIN = """
log_every = 1
checkpoint_every = {every}
threads = 1
tensorboard = false
"""
HEAD = """
[model]
path = "{folder}/model"
[data]
set = "{folder}/set"
[optimizer]
learning_rate = 1e-3
schedule = "constant"
warmup_tokens = 0
"""
POLICY = """
[[rewards]]
kind = "regex"
pattern = ".*1.*"
[[rewards]]
kind = "length"
tokens = 4
[rollouts]
prompts = 3
answers = 4
max_new_tokens = 8
epochs = 2
minibatches = 2
missing_stop_penalty = 0.5
[kl]
coef = 0.05
target = 1.0
horizon = 50
[train]
rounds = 4
eval_answers = 4
micro_batch_answers = 3
"""
RECIPES = {
    "grpo": HEAD + POLICY + TRAIN,
    "ppo": HEAD + POLICY + TRAIN + "[ppo]\nentropy_coef = 0.01\nearly_stop_kl = 1e-4\n",
    "dpo": HEAD + "[train]\nbatch_pairs = 5\nmicro_batch_pairs = 2\n" + TRAIN,
    "reward": HEAD + "[train]\nbatch_pairs = 5\nmicro_batch_pairs = 2\n" + TRAIN,
}


def write_recipe(folder: Path, name: str, every: int = 3) -> Path:
    path = folder / f"{name}-{every}.toml"
    path.write_text(RECIPES[name].format(folder=folder, every=every))
    return path


@pytest.mark.usefixtures("calibrated")
@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_a_policy_run_writes_a_run_directory_and_is_not_done_twice(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [name, str(write_recipe(folder, name)), "-o", str(tmp_path / "run"), "--json"]
    assert main(args) == 0
    result = json.loads(capsys.readouterr().out)
    steps = {"grpo": 16, "ppo": 16}[name]
    assert result["steps"] == steps
    assert result["rounds"] == 4 if name == "grpo" else result["rounds"] >= 4
    assert 0 <= result["exact_match"] <= 1
    for file in ("manifest.json", "config.json", "forecast.json", "model/chat_template.jinja"):
        assert (tmp_path / "run" / file).exists()
    rows = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"reward", "kl", "kl_coef", "clipped", "sampler_mismatch", "dead_groups"} <= {*rows[0]}
    assert max(row["sampler_mismatch"] for row in rows) < 1e-4
    coefs = {row["kl_coef"] for row in rows}
    assert len(coefs) > 1, "β adapts"
    if name == "ppo":
        assert {"value_loss", "entropy", "value_explained"} <= {*rows[0]}
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert main(args) == 0
    assert json.loads(capsys.readouterr().out) == result
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.usefixtures("calibrated")
def test_the_reference_of_dpo_is_computed_once_and_is_the_model(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = ["dpo", str(write_recipe(folder, "dpo")), "-o", str(tmp_path / "run"), "--json"]
    calls: list[int] = []

    def counted(*given: Any) -> torch.Tensor:
        calls.append(1)
        return reference_logprobs(*given)

    monkeypatch.setattr("isoflop.alignment.dpo_run.reference_logprobs", counted)
    assert main(args) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(calls) == 2, "once for each split"
    evals = (tmp_path / "run" / "evals.jsonl").read_text().splitlines()
    assert {"accuracy", "margin", "chosen_moved"} <= {*json.loads(evals[-1])}
    # Continued without the result: the reference is read, not computed.
    (tmp_path / "run" / "result.json").unlink()
    assert main(args) == 0
    assert len(calls) == 2
    # A damaged cache is computed again.
    (tmp_path / "run" / "result.json").unlink()
    cache = tmp_path / "run" / REFERENCE
    cache.write_bytes(cache.read_bytes()[:-4] + b"abcd")
    assert main(args) == 0
    assert len(calls) == 4
    again = json.loads(capsys.readouterr().out.split("\n{")[-1].join(["{", ""]))
    assert again["loss"] == result["loss"]


@pytest.mark.usefixtures("calibrated")
def test_a_reward_model_is_saved_with_its_scale(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(folder, "reward")
    assert main(["reward", str(recipe), "-o", str(tmp_path / "run"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["heads"] == ["reward"]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["accuracy"] == result["accuracy"]
    model = load_reward_model(tmp_path / "run" / "model")
    assert model.gain_R.item() != 1
    # The decoder in it is a model like any other.
    assert load_decoder(tmp_path / "run" / "model" / "decoder").config == model.decoder.config


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grpo", "ppo", "dpo", "reward"])
def test_a_killed_run_comes_to_the_same_bits(
    name: str,
    folder: Path,
    tmp_path: Path,
    isoflop: Any,
    content_of: Callable[[Path], dict[str, Any]],
) -> None:
    """Killed twice: within a round of rollouts, and while a new round is drawn."""
    recipe = write_recipe(folder, name, every=3)  # checkpoints lie within rounds of four steps
    assert isoflop.run(name, recipe, "-o", tmp_path / "whole").returncode == 0
    out = tmp_path / "killed"
    for step in (3, 6):
        process = isoflop.start(name, recipe, "-o", out)
        with process:
            process.catch(lambda step=step: (out / "checkpoints" / f"step_{step:08d}").exists())
            assert process.end(signal.SIGKILL)[0] == -signal.SIGKILL
    assert isoflop.run(name, recipe, "-o", out).returncode == 0
    events = (out / "events.jsonl").read_text()
    assert events.count('"resumed"') == 2
    if name == "reward":
        head = "model/head.safetensors"
        assert (out / head).read_bytes() == (tmp_path / "whole" / head).read_bytes()
        return
    assert content_of(out) == content_of(tmp_path / "whole")
