"""A ladder comes to the same table wherever its runs are trained."""

from __future__ import annotations

import csv
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.errors import RecipeError
from isoflop.data.shards import Shards
from isoflop.planning.launchers import open_lanes

LADDER = """
processes = 2
[data]
shards = "{shards}"
[[rungs]]
d_model = 32
n_layers = 1
tokens = [25600, 51200]
[[rungs]]
d_model = 64
n_layers = 1
tokens = [25600]
[optimizer]
warmup_tokens = 1024
[train]
seq_len = 32
global_batch_tokens = 256
micro_batch_tokens = 256
eval_tokens = 1024
evaluations = 1
checkpoint_every = 20
tensorboard = false
"""


def test_an_unknown_launcher_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with (
        pytest.raises(RecipeError, match=r"no launcher `rey`.*local and ray"),
        open_lanes("rey", 1, tmp_path),
    ):
        pass


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "runs.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_ray_cluster_that_loses_a_worker_comes_to_the_table_of_this_machine(
    tiny_shards: Shards, isoflop: Any, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    recipe = tmp_path / "ladder.toml"
    recipe.write_text(LADDER.format(shards=tiny_shards.directory))
    done = isoflop.run("ladder", recipe, "-o", tmp_path / "local")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "ray"
    trunk = out / "runs" / "d32-l1-51200"
    with isoflop.start("ladder", recipe, "-o", out, "--launcher", "ray:2") as process:
        while not any((trunk / "checkpoints").glob("step_*")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.kill(int((trunk / ".lock").read_text()), signal.SIGKILL)
        _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert '"resumed"' in (trunk / "events.jsonl").read_text(), "the worker was lost in its run"
    assert table(out) == table(tmp_path / "local")
