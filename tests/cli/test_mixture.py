"""`isoflop mixture` in real processes on tiny shards: its answer, and killed, the same one."""

from __future__ import annotations

import csv
import json
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.recipe import from_dict
from isoflop.data import corpus, shards, tokenizer
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.shards import Shards
from isoflop.training.recipe import DataConfig

TOML = """
target_tokens = 100_000
proxies = 7
repeats = 2
processes = 2
[[sources]]
name = "words"
shards = "{words}"
[[sources]]
name = "problems"
shards = "{problems}"
synthetic = true
[model]
d_model = 32
n_layers = 1
[optimizer]
learning_rate = 1e-2
warmup_tokens = 1024
[train]
tokens = 10_240 # 40 steps
seq_len = 32
global_batch_tokens = 256
micro_batch_tokens = 256
eval_tokens = 4096
evaluations = 1
checkpoint_every = 5
log_every = 1
tensorboard = false
"""


@pytest.fixture(scope="session")
def mixture_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources as different as can be, of one tokenizer."""
    folder = tmp_path_factory.mktemp("sources")
    with open(folder / "words.jsonl", "w") as file:
        for i in range(900):
            text = f"loss token model batch {i} step width ladder law promise {i % 7}"
            file.write(json.dumps({"text": text}) + "\n")
    sources = {
        "words": SourceConfig("jsonl", path=folder / "words.jsonl", language="en"),
        "problems": SourceConfig("word-problems", documents=300),
    }
    both = DataRecipe(sources=tuple(sources.values()), held_out_fraction=0.1)
    tokenizer.train(corpus.build(both, folder / "both"), 300, folder / "tokenizer")
    made: dict[str, Shards] = {}
    for name, source in sources.items():
        alone = DataRecipe(sources=(source,), held_out_fraction=0.1)
        text = corpus.build(alone, folder / f"{name}-text")
        made[name] = shards.tokenize(text, folder / "tokenizer", folder / name)
    path = folder / "mixture.toml"
    path.write_text(TOML.format(**{name: each.directory for name, each in made.items()}))
    return path


@pytest.fixture(scope="session")
def whole(
    isoflop: Any, mixture_toml: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """A search that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "search"
    done = isoflop.run("mixture", mixture_toml, "-o", out, "--json")
    assert done.returncode in (0, 1), done.stderr
    return out, json.loads(done.stdout)


def untimed(out: Path) -> list[dict[str, str]]:
    with open(out / "mixtures.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_search_promises_checks_and_says_what_came(whole: tuple[Path, Any]) -> None:
    out, document = whole
    assert document == json.loads((out / "result.json").read_text())
    assert document["verdict"] == "supported", "words and problems could not differ more"
    assert (document["proxies"], document["checks"]) == (7, 3)
    assert sum(share["value"] for share in document["weights"].values()) == pytest.approx(1.0)
    assert document["losses"]["objective"]["held"] is document["held"]
    assert document["synthetic_share"]["best"] == document["weights"]["problems"]["value"]
    rows = untimed(out)
    assert [row["run_id"] for row in rows] == [f"proxy-{i:03d}" for i in range(7)]
    lowest = min(rows, key=lambda row: float(row["loss:words"]))
    assert float(lowest["weight:words"]) > 0.9


def test_its_table_is_one_that_laws_fit_reads(
    isoflop: Any, whole: tuple[Path, Any], tmp_path: Path
) -> None:
    out, _ = whole
    law = tmp_path / "law.json"
    done = isoflop.run("laws", "fit", out / "mixtures.csv", "--form", "mixture", "-o", law)
    assert done.returncode == 0, done.stderr
    own, theirs = (json.loads(path.read_text()) for path in (out / "law.json", law))
    assert own["parameters"] == theirs["parameters"]


def test_what_it_prints_is_the_mixture_of_a_train_recipe(
    isoflop: Any, mixture_toml: Path, whole: tuple[Path, Any]
) -> None:
    out, document = whole
    done = isoflop.run("mixture", mixture_toml, "-o", out)
    assert done.returncode == (0 if document["held"] else 1)
    pasted = tomllib.loads(done.stdout[done.stdout.index("[[data.mixture]]") :])
    mixture = from_dict(DataConfig, pasted["data"], "pasted").mixture
    assert {s.name: s.weight for s in mixture} == {
        name: share["value"] for name, share in document["weights"].items()
    }


def test_killed_among_its_proxies_and_its_checks_it_ends_the_same(
    isoflop: Any, mixture_toml: Path, whole: tuple[Path, Any], tmp_path: Path
) -> None:
    out = tmp_path / "search"
    for pattern in ("proxy-00[2-6]/checkpoints/step_*", "check-00*/checkpoints/step_*"):
        with isoflop.start("mixture", mixture_toml, "-o", out) as process:
            process.catch(lambda pattern=pattern: bool(list((out / "runs").glob(pattern))))
            process.end(signal.SIGKILL)
        assert not (out / "result.json").exists()
    done = isoflop.run("mixture", mixture_toml, "-o", out, "--json")
    assert done.returncode in (0, 1), done.stderr
    first, document = whole
    assert untimed(out) == untimed(first)
    again = json.loads(done.stdout)
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in document.items() if k != "seconds"
    }


def test_another_recipe_is_refused_in_the_same_directory(
    isoflop: Any, mixture_toml: Path, whole: tuple[Path, Any]
) -> None:
    done = isoflop.run("mixture", mixture_toml, "-o", whole[0], "--least", "0.1")
    assert done.returncode == 2
    assert "least was 0.05, now 0.1" in done.stderr
