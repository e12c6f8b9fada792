"""The whole flow at its smallest, stage by stage, and a warm process that runs its commands."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.artifact import MANIFEST, read_manifest

WARM = Path(__file__).with_name("warm.py")

RECIPES = {
    "data": """
held_out_fraction = 0.1
[[sources]]
kind = "jsonl"
path = "{root}/lines.jsonl"
language = "en"
[[sources]]
kind = "word-problems"
documents = 300
[duplicates]
near = true
""",
    "instruct": """
held_out_fraction = 0.2
[[sources]]
kind = "generated"
problems = ["sum"]
languages = ["en"]
count = 60
preferences = 40
""",
    "train": """
[data]
shards = "{root}/shards"
[model]
d_model = 32
n_layers = 1
[optimizer]
learning_rate = 1e-2
warmup_tokens = 1024
[train]
tokens = 23_040 # 60 steps
seq_len = 96
global_batch_tokens = 384
micro_batch_tokens = 192
eval_tokens = 2048
evaluations = 3
log_every = 2
checkpoint_every = 9
threads = 1
""",
    "ladder": """
processes = 1
[data]
shards = "{root}/shards"
[[rungs]]
d_model = 32
n_layers = 1
tokens = [7_680, 20_480]
[[rungs]]
d_model = 64
n_layers = 1
tokens = [20_480]
[optimizer]
warmup_tokens = 1024
[train]
seq_len = 32
global_batch_tokens = 256
micro_batch_tokens = 256
eval_tokens = 1024
evaluations = 1
checkpoint_every = 10
log_every = 1
tensorboard = false
""",
    "sft": """
[model]
path = "{root}/run/model"
[data]
set = "{root}/set"
[optimizer]
learning_rate = 1e-2
warmup_tokens = 512
[train]
epochs = 3
global_batch_tokens = 384
micro_batch_tokens = 192
eval_answers = 3
eval_rows = 20
max_new_tokens = 8
log_every = 1
checkpoint_every = 4
threads = 1
tensorboard = false
""",
    "grokking": "modulus = 7\nd_model = 32\nn_heads = 2\nsteps = 60\nevaluations = 4\n"
    "batch_pairs = 16\nweight_decays = [0.0, 1.0]\n",
}
_ALIGNED = """
[model]
path = "{root}/sft/model"
[data]
set = "{root}/set"
[optimizer]
learning_rate = 1e-3
schedule = "constant"
warmup_tokens = 0
"""
_LOGS = "log_every = 1\ncheckpoint_every = 3\nthreads = 1\ntensorboard = false\n"
_PAIRS = "[train]\nbatch_pairs = 5\nmicro_batch_pairs = 2\n"
_ROLLOUTS = """
[[rewards]]
kind = "length"
tokens = 4
[rollouts]
prompts = 3
answers = 4
max_new_tokens = 8
epochs = 2
minibatches = 2
[train]
rounds = 4
eval_answers = 4
micro_batch_answers = 3
"""
RECIPES |= {
    "reward": _ALIGNED + _PAIRS + _LOGS,
    "dpo": _ALIGNED + _PAIRS + _LOGS,
    "ppo": _ALIGNED + _ROLLOUTS + _LOGS,
    "grpo": _ALIGNED + _ROLLOUTS + _LOGS,
}


@dataclass(frozen=True)
class Stage:
    """One command of the flow."""

    name: str
    command: str
    """With {root} for the folder of all stages and {out} for what it writes."""
    out: str
    """Name of what it writes in {root}, a file or a directory."""
    ends: tuple[int, ...] = (0,)
    """Its exit codes; 1 is a verdict of models as small as these."""

    def args(self, root: Path, out: Path) -> list[str]:
        return [word.format(root=root, out=out) for word in self.command.split()]


_SHRINK = "compress {root}/run/model --data {root}/shards --tokens 1024 -o {out} --method"
_STUDENT = "--student.tokens 6000 --student.checkpoint-every 3 --student.log-every 1"
FLOW = (
    Stage("data build", "data build {root}/data.toml -o {out} --placement inline", "corpus"),
    Stage("tokenizer train", "tokenizer train {root}/corpus --vocab-size 300 -o {out}", "tok"),
    Stage(
        "tokenize",
        "tokenize {root}/corpus --tokenizer {root}/tok -o {out} --placement inline",
        "shards",
    ),
    Stage("data instruct", "data instruct {root}/instruct.toml -o {out}", "set"),
    Stage("train", "train {root}/train.toml -o {out}", "run"),
    Stage("ladder", "ladder {root}/ladder.toml -o {out}", "ladder"),
    Stage(
        "laws fit",
        "laws fit {root}/runs.csv --form kaplan-nd --objective lsq -o {out}",
        "law.json",
    ),
    Stage("sft", "sft {root}/sft.toml -o {out}", "sft"),
    Stage("reward", "reward {root}/reward.toml -o {out}", "reward"),
    Stage("dpo", "dpo {root}/dpo.toml -o {out}", "dpo"),
    Stage("ppo", "ppo {root}/ppo.toml -o {out}", "ppo"),
    Stage("grpo", "grpo {root}/grpo.toml -o {out}", "grpo"),
    Stage("compress int8", f"{_SHRINK} int8", "int8", (0, 1)),
    Stage("compress gptq", f"{_SHRINK} gptq", "gptq", (0, 1)),
    Stage("eval", "eval {root}/run/model --tasks arithmetic,cloze --limit 12 -o {out}", "eval"),
    Stage("grokking", "grokking {root}/grokking.toml -o {out}", "grokking", (0, 1)),
    Stage("export gguf", "export {root}/run/model --to gguf -o {out}", "model.gguf"),
    Stage("export hf", "export {root}/run/model --to hf -o {out}", "hf"),
    Stage("import", "import {root}/hf -o {out}", "imported"),
    Stage("report", "report {root}/ladder {root}/run {root}/dpo -o {out}", "report.html"),
)


# --- a warm process ------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Its exit code, or the negative number of the signal that killed it."""
    seconds: float
    out: str
    err: str


class Warm:
    """Runs commands in forks of a process that has imported everything."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(WARM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._reply() == "warm"

    def _reply(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def run(
        self,
        args: list[str],
        *,
        kill_after: float | None = None,
        meanwhile: Callable[[int], None] | None = None,
        **conditions: Any,
    ) -> Ended:
        """Run a command to its end, or kill it (and nothing else) after so many seconds.

        Args:
            meanwhile: Called with the pid while it runs.
            conditions: largest_file, clock, environment: see `warm.be_child`.
        """
        logs = {name: str(self._folder / name) for name in ("out", "err")}
        for log in logs.values():
            Path(log).write_text("")  # a child may be killed before it opens them
        assert self._process.stdin is not None
        print(
            json.dumps({"args": [*map(str, args)], **logs, **conditions}),
            file=self._process.stdin,
            flush=True,
        )
        pid = int(self._reply())
        over = threading.Event()
        if kill_after is not None:
            threading.Thread(target=_kill, args=(pid, kill_after, over), daemon=True).start()
        if meanwhile is not None:
            meanwhile(pid)
        code, seconds = self._reply().split()
        over.set()
        out, err = (Path(logs[name]).read_text(errors="replace") for name in ("out", "err"))
        return Ended(int(code), float(seconds), out, err)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def _kill(pid: int, after: float, over: threading.Event) -> None:
    if not over.wait(after):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def warm(calibrated_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    environment = {**os.environ, "ISOFLOP_CACHE": str(calibrated_cache), "OMP_NUM_THREADS": "1"}
    folder = tmp_path_factory.mktemp("warm")
    folder.chmod(0o777)
    made = Warm(environment, folder)
    yield made
    made.close()


# --- the flow, unbroken --------------------------------------------------------------------


@dataclass(frozen=True)
class Flow:
    """Every stage's output in one folder, as nothing happened to them."""

    root: Path
    seconds: dict[str, float]
    """Stage → how long it took."""
    content: dict[str, dict[str, str]]
    """Stage → what it came to."""


@pytest.fixture(scope="session")
def flow(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Flow:
    root = tmp_path_factory.mktemp("flow") / "root"
    root.mkdir()
    words = ("loss", "token", "model", "batch", "step", "width", "ladder", "law", "promise")
    with open(root / "lines.jsonl", "w", encoding="utf-8") as file:
        for i in range(700):
            text = " ".join(words[(i * k) % 9] for k in range(3, 4 + i % 17))
            file.write(json.dumps({"text": f"{text}, déjà vu {i * 7919 % 1009}."}) + "\n")
    with open(root / "runs.csv", "w") as file:
        print("params,tokens,loss", file=file)
        for params in (1e6, 3e6, 1e7, 3e7):
            for tokens in (1e8, 3e8, 1e9):
                print(params, tokens, 8 * params**-0.1 + 20 * tokens**-0.15, sep=",", file=file)
    for name, text in RECIPES.items():
        (root / f"{name}.toml").write_text(text.format(root=root))
    seconds, content = {}, {}
    for stage in FLOW:
        out = root / stage.out
        ended = warm.run(stage.args(root, out))
        assert ended.code in stage.ends, f"{stage.name}: {ended.err}"
        seconds[stage.name], content[stage.name] = ended.seconds, content_of_stage(out)
    return Flow(root, seconds, content)


TIMES = {
    "seconds", "tokens_per_second", "mfu", "created", "made_at", "outcome_at", "peak_memory_bytes",
    "machine", "run", "directory", "at", "hash", "previous", "prev", "wall", "path",
    "promised_seconds", "measured_at", "files", "inputs", "host", "sha256", "log_bytes",
    "log_crc32",
}  # fmt: skip
"""Keys that tell the time, the place or a hash over them, and so differ between equal runs."""
SAYS_HOW = {
    "events.jsonl", "clock.json", "seconds.json", ".lock", "timing.json", "forecast.json",
    ".metadata",
    "report.html",
}  # fmt: skip
"""Files that tell how the work went and not what came of it."""


def content_of_stage(out: Path) -> dict[str, str]:
    """Name → hash of everything that must not depend on what happened on the way."""
    if out.is_file():
        return {out.name: _digest(out)}
    for manifest in out.rglob(MANIFEST):
        read_manifest(manifest.parent, verify=True)
    return {
        path.relative_to(out).as_posix(): _digest(path)
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in SAYS_HOW and not path.name.startswith("events.out")
    }


def _digest(path: Path) -> str:
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text()
        rows = [json.loads(text)] if path.suffix == ".json" else map(json.loads, text.splitlines())
        return "\n".join(json.dumps(_timeless(row), sort_keys=True) for row in rows)[:200_000]
    if path.suffix in (".csv", ".html"):
        return str(len(path.read_text().splitlines()))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("unit") in ("seconds", "s", "tokens/s"):
            return "a time"
        return {
            k: _timeless(v)
            for k, v in value.items()
            if k not in TIMES and "per_second" not in k and "seconds" not in k
        }
    if isinstance(value, list):
        return [_timeless(each) for each in value]
    return value


@pytest.fixture(scope="session")
def stage_of() -> Callable[[str], Stage]:
    """`stage_of(name)`."""
    return lambda name: next(stage for stage in FLOW if stage.name == name)


@pytest.fixture(scope="session")
def content() -> Callable[[Path], dict[str, str]]:
    """`content(out)`: name → what is in it, of everything that must not depend on faults."""
    return content_of_stage


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `stage` runs once for every stage of the flow."""
    if "stage" in metafunc.fixturenames:
        metafunc.parametrize("stage", FLOW, ids=lambda stage: stage.name.replace(" ", "-"))


@pytest.fixture(scope="session")
def all_stages() -> tuple[Stage, ...]:
    return FLOW
