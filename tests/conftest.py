"""What tests of several packages share: tiny shards, a known calibration, real processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from isoflop.core.hardware import Calibration, cache_path, machine
from isoflop.data import corpus, shards, tokenizer
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.shards import Shards
from isoflop.laws.scores import TaskScores

TIMING = {"seconds", "tokens_per_second", "mfu"}
"""Keys of logs that tell the time and so differ between equal runs."""

TRAIN_TOML = """
[data]
shards = "{shards}"
[model]
d_model = 32
n_layers = 1
[optimizer]
learning_rate = 1e-2
warmup_tokens = 1024
[train]
tokens = 25_600 # 100 steps
seq_len = 32
global_batch_tokens = 256
micro_batch_tokens = 128
eval_tokens = 2048
evaluations = 3
log_every = 2
checkpoint_every = 9
threads = 1
sample_prompts = ["Question:"]
tensorboard = false
"""


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """Some sixty thousand tokens of short documents, of a vocabulary of 300."""
    folder = tmp_path_factory.mktemp("tiny")
    words = ("loss", "token", "model", "batch", "step", "width", "ladder", "law", "promise")
    draw = random.Random(5)
    with open(folder / "lines.jsonl", "w", encoding="utf-8") as file:
        for _ in range(900):
            text = " ".join(draw.choices(words, k=draw.randrange(3, 20)))
            file.write(json.dumps({"text": f"{text}, déjà vu {draw.random():.6f}."}) + "\n")
    recipe = DataRecipe(
        sources=(
            SourceConfig("jsonl", path=folder / "lines.jsonl", language="en"),
            SourceConfig("word-problems", documents=300),
        ),
        held_out_fraction=0.1,
    )
    text = corpus.build(recipe, folder / "corpus")
    tokenizer.train(text, 300, folder / "tokenizer")
    return shards.tokenize(text, folder / "tokenizer", folder / "shards")


@pytest.fixture(scope="session")
def marked_shards(tiny_shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """The same text by a tokenizer that has the special tokens of BERT and T5."""
    folder = tmp_path_factory.mktemp("marked")
    text = corpus.inspect(tiny_shards.directory.parent / "corpus")
    marks = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", *(f"<extra_id_{i}>" for i in range(7)))
    tokenizer.train(text, 313, folder / "tokenizer", reserve=marks)
    return shards.tokenize(text, folder / "tokenizer", folder / "shards")


@pytest.fixture(scope="session")
def calibrated_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds a calibration of this machine, so that no test measures it."""
    folder = tmp_path_factory.mktemp("cache")
    here = machine()
    known = Calibration(
        gflops={"float32": {threads: 50.0 * threads for threads in range(1, here["cores"] + 1)}},
        gigabytes_per_second=10.0, best_dtype="float32", best_threads=1, reason="made up",
        seconds=1.0, measured_at="2025-01-01T00:00:00Z", machine=here,
    )  # fmt: skip
    path = Path(cache_path(here)).name
    (folder / path).write_text(json.dumps(asdict(known)))
    return folder


@pytest.fixture
def calibrated(calibrated_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process finds the machine calibrated."""
    monkeypatch.setenv("ISOFLOP_CACHE", str(calibrated_cache))


@pytest.fixture(scope="session")
def train_toml(tiny_shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of a hundred steps with checkpoints in between, for one thread."""
    path = tmp_path_factory.mktemp("recipes") / "train.toml"
    path.write_text(TRAIN_TOML.format(shards=tiny_shards.directory))
    return path


# --- real processes ------------------------------------------------------------------------


@dataclass(frozen=True)
class Isoflop:
    """Runs the command line in processes of their own."""

    environment: dict[str, str]

    def start(self, *args: object, python: tuple[str, ...] = ("-m", "isoflop")) -> Process:
        """Start a command in a process group of its own."""
        return Process(
            [sys.executable, *python, *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
            start_new_session=True,
        )

    def run(self, *args: object) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        with self.start(*args) as process:
            out, err = process.communicate(timeout=900)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


class Process(subprocess.Popen[str]):
    """A command that can be caught in the act."""

    def __exit__(self, *details: Any) -> None:
        self.kill()  # a failed test leaves no process behind
        super().__exit__(*details)

    def catch(self, act: Callable[[], bool], *, group: bool = False) -> None:
        """Stop the process (SIGSTOP) while `act` is true.

        Args:
            group: Stop its workers too.

        Raises:
            AssertionError: It ended before that.
        """
        send = self._send_to_group if group else self.send_signal
        while self.poll() is None:
            if act():
                send(signal.SIGSTOP)
                while state_of(self.pid) not in "TZ":
                    time.sleep(0.0005)
                if act():
                    return
                send(signal.SIGCONT)
            time.sleep(0.0005)
        raise AssertionError(f"ended too early: {self.communicate()}")

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal to a process caught or not, and return its exit status and stderr."""
        self.send_signal(number)
        self._send_to_group(signal.SIGCONT)
        _, err = self.communicate(timeout=300)
        return self.returncode, err

    def _send_to_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def state_of(pid: int) -> str:
    """The state of a process by /proc: R, S, T (stopped), Z (dead, not waited for); X is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


@pytest.fixture(scope="session")
def isoflop(calibrated_cache: Path) -> Isoflop:
    """`isoflop.run("train", recipe, "-o", out)`, `isoflop.start(...)`."""
    return Isoflop(
        {
            **os.environ,
            "ISOFLOP_CACHE": str(calibrated_cache),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
    )


# --- what a run came to --------------------------------------------------------------------


@pytest.fixture(scope="session")
def content_of() -> Callable[[Path], dict[str, Any]]:
    """Everything of a finished run that must not depend on how often it was killed."""

    def read(run: Path) -> dict[str, Any]:
        result = json.loads((run / "result.json").read_text())
        for key in ("seconds", "peak_memory_bytes", "run"):
            del result[key]
        logs = {name: rows_of(run / f"{name}.jsonl") for name in ("metrics", "evals", "samples")}
        return {
            "weights": (run / "model" / "model.safetensors").read_bytes(),
            "result": result,
            **logs,
        }

    return read


def rows_of(log: Path) -> list[dict[str, Any]]:
    """The rows of a log without what tells the time."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMING} for row in rows]


@pytest.fixture(scope="session")
def log_rows() -> Callable[[Path], list[dict[str, Any]]]:
    """`log_rows(path)`: rows of a JSON-lines log without what tells the time."""
    return rows_of


# --- scores whose truth is planted ---------------------------------------------------------

RUNGS, SEEDS, ITEMS = 9, 3, 200
World = tuple[TaskScores, NDArray[np.bool_], NDArray[np.float64]]


def _world(kind: str, rng: np.random.Generator, continuous: bool = True) -> World:
    """A task, and what lies behind it: right answers and log-probabilities (R, S, items)."""
    x = np.arange(RUNGS) / (RUNGS - 1)
    if kind == "smooth":  # half linear, half an error that falls as a power of scale
        if rng.random() < 0.5:
            p = rng.uniform(0.05, 0.2) + rng.uniform(0.3, 0.7) * x
        else:
            p = 1 - rng.uniform(0.8, 0.95) * 10 ** (-rng.uniform(0.1, 0.25) * 4 * x)
    elif kind == "metric effect":  # an exact match of many tokens whose loss falls as a power
        tokens = rng.integers(10, 16)
        p = np.exp(-tokens * rng.uniform(0.6, 1.0) * 10 ** (-rng.uniform(0.25, 0.4) * 4 * x))
    else:  # thirty points at once, on top of slow progress
        base = rng.uniform(0.02, 0.2) + rng.uniform(0.0, 0.2) * x
        p = base + 0.3 * (np.arange(RUNGS) >= rng.integers(3, 8))
    p = np.repeat(p[:, None], SEEDS, axis=1)
    if kind == "seed lottery":
        able = rng.random((RUNGS, SEEDS)) < 1 / (1 + np.exp(-6 * (x - 0.5)))[:, None]
        p = np.where(able, 0.8, 0.1)
    odds = np.log(p / (1 - p)) + rng.normal(0, 0.08, p.shape)  # seeds differ a little
    p = 1 / (1 + np.exp(-odds))
    logprob = np.log(p)[..., None] * np.exp(rng.normal(0, 0.3, (*p.shape, ITEMS)) - 0.045)
    right = rng.random(logprob.shape) < np.exp(logprob)
    task = TaskScores(
        kind, 10 ** (18 + 4 * x), right.sum(-1).astype(float), np.full(p.shape, float(ITEMS)),
        logprob.mean(-1) if continuous else None, np.exp(logprob).mean(-1) if continuous else None,
    )  # fmt: skip
    return task, right, logprob


@pytest.fixture
def score_world() -> Callable[..., World]:
    """`score_world(kind, rng, continuous=True)`."""
    return _world
