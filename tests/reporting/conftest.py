"""A demo directory as `isoflop demo` leaves it, from a planted law: no training, fixed seed."""

from __future__ import annotations

import copy
import csv
import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.artifact import write_json, write_manifest
from isoflop.core.ledger import Ledger
from isoflop.laws.fit import fit
from isoflop.laws.records import read_table

E, A, B, ALPHA, BETA = 1.05, 38.0, 55.0, 0.34, 0.31
SIZES = (61_000, 118_000, 240_000)
TARGET = {"params": 1_310_000.0, "tokens": 25.6e6}
MACHINE = {"cpu": "Example CPU", "cores": 2, "python": "3.11.9", "torch": "2.13.0"}
PROMPTS = (
    (
        "The tool reads a file and",
        " returns the list of its lines, without the line ends. It"
        " raises an error if the name is not\nfound, and closes the file when it is done.",
    ),
    ("问题：小明有 12 个苹果，又买了 7 个。一共有多少个？\n", "答案：12 + 7 = 19。一共有 19 个。"),
    (
        "def read_lines(path):\n",
        '    """Return the lines of a file."""\n    with open(path) as f:\n'
        "        return [line.rstrip() for line in f]\n",
    ),
)


def planted_loss(params: float, tokens: float) -> float:
    """The truth every synthetic run follows, nats per token."""
    return E + A / params**ALPHA + B / tokens**BETA


def flops(params: float, tokens: float) -> float:
    return 6.3 * params * tokens


@dataclass(frozen=True)
class Demo:
    path: Path
    summary: dict[str, Any]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")


def write_run(
    directory: Path, params: float, tokens: float, rng: random.Random, logged: int
) -> float:
    """Metrics and evaluations of one run on the planted law; returns its final loss."""
    final = planted_loss(params, tokens) * math.exp(rng.gauss(0, 0.0012))
    metrics, evals = [], []
    seconds = flops(params, tokens) / 70e9

    def at(done: float) -> float:
        undecayed = planted_loss(params, done * tokens) + 0.04 * min(1.0, (1 - done) / 0.2)
        return min(7.3, undecayed * final / planted_loss(params, tokens))

    for i in range(1, logged + 1):
        done = i / logged
        metrics.append(
            {
                "step": i,
                "tokens": round(done * tokens),
                "flops": flops(params, done * tokens),
                "loss": round(at(done) + rng.gauss(0, 0.05), 5),
                "grad_norm": 0.7,
                "lr": 3e-3,
                "tokens_per_second": 41_000.0,
                "mfu": 0.62,
                "seconds": done * seconds,
            }
        )
    for i in range(1, 11):
        done = (i / 10) ** 2
        evals.append(
            {
                "step": round(done * logged),
                "tokens": round(done * tokens),
                "flops": flops(params, done * tokens),
                "loss": round(at(done), 5),
                "bits_per_byte": round(at(done) / 2.1, 4),
                "seconds": done * seconds,
            }
        )
    write_lines(directory / "metrics.jsonl", metrics)
    write_lines(directory / "evals.jsonl", evals)
    return final


def write_ladder(demo: Path, rng: random.Random, logged: int) -> float:
    """Twelve rungs, their curves and the law through them; returns their FLOPs."""
    rows = []
    for params in SIZES:
        for ratio in (8, 16, 32, 64):
            tokens = float(params * ratio)
            run_id = f"n{params // 1000}k-d{tokens / 1e6:.1f}M"
            loss = write_run(demo / "ladder" / "runs" / run_id, params, tokens, rng, logged)
            rows.append(
                {
                    "run_id": run_id,
                    "params": params,
                    "params_total": params + 65_536,
                    "tokens": int(tokens),
                    "loss": loss,
                    "bits_per_byte": loss / 2.1,
                    "flops": flops(params, tokens),
                    "learning_rate": 0.004,
                    "batch_tokens": 8192,
                    "seed": 0,
                    "steps": logged,
                    "warmup_tokens": 65_536,
                    "schedule": "wsd",
                    "seconds": flops(params, tokens) / 65e9,
                    "family": "demo",
                }
            )
    with open(demo / "ladder" / "runs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    law = fit(read_table(demo / "ladder"), bootstrap=200)
    law.save(demo / "law.json")
    write_manifest(
        demo / "ladder", kind="ladder", config={}, machine=MACHINE, inputs=[], seed=0, files=[]
    )
    return sum(r["flops"] for r in rows)


def write_demo(
    demo: Path, *, logged: int = 120, target_logged: int = 1500, outcome: float | None = None
) -> Demo:
    """Write a whole demo directory.

    Args:
        logged: Metric lines of each rung; `target_logged` of the target.
        outcome: The target's loss, instead of the planted law's.
    """
    rng = random.Random(7)
    demo.mkdir(parents=True, exist_ok=True)
    ladder_flops = write_ladder(demo, rng, logged)
    from isoflop.laws.predict import load_law

    said = load_law(demo / "law.json").predict(TARGET["params"], TARGET["tokens"])
    ledger = Ledger(demo / "ledger.jsonl")
    basis = "law.json: chinchilla, 12 runs"
    loss_id = ledger.promise("loss", "nats/token", said.loss, said.low, said.high, 0.9, basis)
    ledger.promise(
        "bits_per_byte", "bits/byte", said.loss / 2.1, said.low / 2.1, said.high / 2.1, 0.9, basis
    )
    ledger.promise("seconds", "seconds", 611.0, 540.0, 700.0, 0.9, "rungs’ FLOP/s, measured")
    ledger.promise(
        "peak_memory", "bytes", 412e6, 350e6, 480e6, 0.9, "models.accounting, at the micro-batch"
    )
    ended = write_run(demo / "target", **TARGET, rng=rng, logged=target_logged)
    outcome = ended if outcome is None else outcome
    for id_, value in ((loss_id, outcome), ("p2", outcome / 2.1), ("p3", 588.0), ("p4", 397e6)):
        ledger.settle(id_, value)
    write_lines(
        demo / "target" / "samples.jsonl",
        [
            {"step": step, "tokens": share * TARGET["tokens"], "prompt": prompt, "text": written}
            for step, share in ((target_logged // 10, 0.1), (target_logged, 1.0))
            for prompt, written in PROMPTS
        ],
    )
    write_manifest(
        demo / "target", kind="run", config={}, machine=MACHINE, inputs=[demo / "ladder"], files=[]
    )
    write_funnel(demo / "corpus")
    target_flops = flops(**TARGET)
    summary = {
        "seed": 7,
        "promise": {"value": said.loss, "low": said.low, "high": said.high, "level": 0.9},
        "outcome": outcome,
        "held": said.low <= outcome <= said.high,
        "error_percent": 100 * (outcome - said.loss) / outcome,
        "seconds": 588.0,
        "promised_seconds": 611.0,
        "target": {**TARGET, "flops": target_flops},
        "ladder": {
            "rungs": 12,
            "largest_rung_flops": flops(240e3, 64 * 240e3),
            "total_flops": ladder_flops,
        },
        "command": "isoflop demo --out demo --seed 7",
        "machine": MACHINE,
        "peak_gflops": 940.0,
        "stages": [
            {"name": "data", "seconds": 21.4, "promised_seconds": 25.0},
            {"name": "tokenizer", "seconds": 6.2, "promised_seconds": 8.0},
            {"name": "ladder", "seconds": 262.0, "promised_seconds": 270.0, "flops": ladder_flops},
            {"name": "law", "seconds": 0.4},
            {"name": "target", "seconds": 298.0, "promised_seconds": 308.0, "flops": target_flops},
        ],
    }
    write_json(demo / "summary.json", summary)
    return Demo(demo, summary)


def write_funnel(corpus: Path) -> None:
    write_json(
        corpus / "funnel.json",
        {
            "in": {"documents": 21_480, "bytes": 43_200_000},
            "dropped": {
                "duplicate": {
                    "documents": 1_204,
                    "bytes": 2_610_000,
                    "examples": ["lib/site/a/__init__.py", "lib/site/b/__init__.py"],
                },
                "too short": {"documents": 388, "bytes": 21_000, "examples": ["lib/x.py"]},
                "not UTF-8": {"documents": 3, "bytes": 9_800, "examples": ["test/bad.py:1"]},
            },
            "rejects": 3,
            "kept": {"documents": 19_885, "bytes": 40_559_200},
            "sources": {
                "python sources": {
                    "in": {"documents": 9_480, "bytes": 32_640_800},
                    "kept": {"documents": 7_885, "bytes": 30_000_000},
                },
                "docstrings": {
                    "in": {"documents": 4_000, "bytes": 6_059_200},
                    "kept": {"documents": 4_000, "bytes": 6_059_200},
                },
                "word problems": {
                    "in": {"documents": 8_000, "bytes": 4_500_000},
                    "kept": {"documents": 8_000, "bytes": 4_500_000},
                },
            },
            "splits": {},
        },
    )


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A finished demo whose promise held."""
    return write_demo(tmp_path_factory.mktemp("reporting") / "demo")


@pytest.fixture(scope="session")
def _short_demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return write_demo(tmp_path_factory.mktemp("short") / "demo", logged=20, target_logged=20)


@pytest.fixture
def make_demo(tmp_path: Path, _short_demo: Demo) -> Callable[..., Demo]:
    """A demo of your own to damage, with few metric lines; or `make_demo(outcome=…, logged=…)`."""

    def make(**options: Any) -> Demo:
        if options:
            return write_demo(tmp_path / "demo", **options)
        shutil.copytree(_short_demo.path, tmp_path / "demo")
        return Demo(tmp_path / "demo", copy.deepcopy(_short_demo.summary))

    return make
