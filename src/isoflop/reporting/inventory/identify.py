"""What a directory or file is, from its names and first bytes; neither hashes nor loads it.

Not for where it came from (ancestry) nor for what to do with it (commands).
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isoflop.core.artifact import MANIFEST, Manifest, read_json, read_manifest
from isoflop.core.errors import ArtifactError
from isoflop.core.ledger import LEDGER, Ledger
from isoflop.reporting.inventory.run_state import RunState, run_state

_HEAD_BYTES = 65_536


@dataclass(frozen=True)
class Thing:
    """What something is, as far as its names and first bytes tell."""

    path: Path
    kind: str
    """run, ladder, corpus, tokenizer, shards, model, law, ledger, recipe, run table … or unknown"""
    stage: str = ""
    """The command that makes it, as typed after `isoflop`: `train`, `data build`; empty where
    several could have, or none."""
    status: str = "complete"
    """`complete`, `unfinished`, `running`, or how the work ended otherwise."""
    facts: dict[str, Any] = field(default_factory=dict)
    """A few figures."""
    recipe: Mapping[str, Any] | None = None
    """The resolved recipe, where it was kept."""
    manifest: Manifest | None = None
    run: RunState | None = None
    """Where a training run stands."""


def identify(path: Path) -> Thing:
    """What `path` is.

    Raises:
        ArtifactError: It does not exist, or one of the files that say what it is is damaged.
    """
    if not path.exists():
        raise ArtifactError("no such file or directory", where=str(path), fix="Check the path")
    return _file(path) if path.is_file() else _directory(path)


def stage_of(recipe: Mapping[str, Any]) -> str:
    """The command that a recipe is for, by its tables; empty where they fit several."""
    if "keep" in recipe:
        return "iterate"
    stages = [table for table in ("ppo", "grpo", "dpo", "reward") if table in recipe]
    if stages:
        return stages[0] if len(stages) == 1 else ""
    if "modulus" in recipe:
        return "grokking"
    if "rungs" in recipe:
        return "ladder"
    if "sources" in recipe:
        if "target_tokens" in recipe:
            return "mixture"
        return "data instruct" if _is_instruct(recipe) else "data build"
    data = recipe.get("data")
    if "lora" in recipe:
        return "sft"
    if isinstance(data, dict) and {"shards", "mixture", "pairs"} & set(data):
        return "train"
    return ""


def _is_instruct(recipe: Mapping[str, Any]) -> bool:
    own = {"problems", "preferences", "count", "work", "question", "answer", "endpoint", "form"}
    sources = [source for source in recipe["sources"] if isinstance(source, dict)]
    asked = set().union(*map(set, sources)) & own
    keys = {"max_characters", "held_out_problems", "on_bad_row", "drop_flawed"} & set(recipe)
    return bool(asked or keys)


# --- directories ---------------------------------------------------------------------------


def _directory(path: Path) -> Thing:
    manifest = read_manifest(path) if (path / MANIFEST).exists() else None
    if (path / "demo.json").is_file() or ((path / "summary.json").is_file() and not manifest):
        return _demo(path)
    config = path / "config.json"
    raw = read_json(config) if config.is_file() else None
    recipe = raw.get("recipe") if isinstance(raw, dict) and "format" in raw else None
    if isinstance(recipe, dict):
        return _run(path, recipe, manifest)
    if manifest is not None:
        return _artifact(path, manifest, raw if isinstance(raw, dict) else None)
    if isinstance(raw, dict) and ("model_type" in raw or "architectures" in raw):
        facts = {"architecture": str(raw.get("model_type", "unknown"))}
        return Thing(path, "hugging-face-model", facts=facts)
    if (path / "tokenizer.json").is_file():
        return Thing(path, "tokenizer", "tokenizer train")
    if (path / "runs.csv").is_file():
        return Thing(path, "ladder", "ladder", "unfinished")
    if (path / LEDGER).is_file() or (path / "law.json").is_file():
        return Thing(path, "folder")
    return Thing(path, "unknown")


def _run(path: Path, recipe: dict[str, Any], manifest: Manifest | None) -> Thing:
    stage = stage_of(recipe)
    if stage in ("ladder", "mixture"):
        runs = [p.parent for p in sorted((path / "runs").glob("*/config.json"))]
        done = sum((run / MANIFEST).exists() for run in runs)
        state = run_state(path, finished=manifest is not None)
        facts = {"runs finished": done, "runs begun": len(runs)}
        kind = "ladder" if stage == "ladder" else "mixture-search"
        return Thing(path, kind, stage, state.status, facts, recipe, manifest)
    state = run_state(path, finished=manifest is not None)
    return Thing(path, "run", stage, state.status, state.facts(), recipe, manifest, state)


_MADE_BY = {
    "corpus": "data build",
    "annotations": "data annotate",
    "tokenizer": "tokenizer train",
    "shards": "tokenize",
    "instruct": "data instruct",
    "evaluation": "eval",
    "ngram": "data ngram",
    "quality-classifier": "data classifier",
    "duplicate-index": "data duplicates",
}


def _artifact(path: Path, manifest: Manifest, raw: dict[str, Any] | None) -> Thing:
    kind, facts = manifest.kind, {}
    stage = _MADE_BY.get(kind, "")
    recipe = None
    if kind == "corpus" and raw is not None:
        recipe = raw
    reader = _FACTS.get(kind)
    if reader is not None:
        facts = reader(path)
    if kind == "model":
        result = path / "result.json"
        stage = "compress" if result.is_file() else ""
        if (path.parent / "config.json").is_file() and path.name == "model":
            stage = identify(path.parent).stage
    return Thing(path, kind, stage, manifest.status, facts, recipe, manifest)


def _demo(path: Path) -> Thing:
    asked = read_json(path / "demo.json") if (path / "demo.json").is_file() else {}
    facts = {key: asked[key] for key in ("minutes", "seed") if key in asked}
    finished = (path / "summary.json").is_file()
    if finished:
        said = read_json(path / "summary.json")
        facts |= {key: said[key] for key in ("outcome", "held") if key in said}
    state = run_state(path, finished=finished)
    return Thing(path, "demo", "demo", state.status, facts)


def _model_facts(path: Path) -> dict[str, Any]:
    config = read_json(path / "config.json")
    names = {"model_type": "architecture", "hidden_size": "width", "num_hidden_layers": "layers",
             "vocab_size": "vocabulary", "max_position_embeddings": "context"}  # fmt: skip
    return {words: config[key] for key, words in names.items() if key in config}


def _shards_facts(path: Path) -> dict[str, Any]:
    index = read_json(path / "index.json")
    tokens = {f"{name} tokens": part.get("tokens") for name, part in index["splits"].items()}
    return {"vocabulary": index.get("vocab_size"), **tokens}


def _corpus_facts(path: Path) -> dict[str, Any]:
    funnel = read_json(path / "funnel.json")
    kept = funnel.get("kept", {})
    return {
        "documents read": funnel.get("in", {}).get("documents"),
        "documents kept": kept.get("documents"),
        "bytes kept": kept.get("bytes"),
    }


def _tokenizer_facts(path: Path) -> dict[str, Any]:
    content = read_json(path / "tokenizer.json")
    model, added = content.get("model", {}), content.get("added_tokens", [])
    ids = {*model["vocab"].values()} if isinstance(model.get("vocab"), dict) else set()
    ids |= set(range(len(model["vocab"]))) if isinstance(model.get("vocab"), list) else set()
    ids |= {token["id"] for token in added}
    return {"vocabulary": len(ids), "model": str(model.get("type", "unknown")).lower()}


def _evaluation_facts(path: Path) -> dict[str, Any]:
    results = read_json(path / "results.json")
    return {name: round(float(result["score"]), 4) for name, result in results.items()}


def _instruct_facts(path: Path) -> dict[str, Any]:
    rows = read_json(path / "summary.json").get("rows", {})
    return {key: value for key, value in rows.items() if isinstance(value, int)}


_FACTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "model": _model_facts,
    "reward-model": lambda path: _model_facts(path / "decoder"),
    "shards": _shards_facts,
    "corpus": _corpus_facts,
    "tokenizer": _tokenizer_facts,
    "evaluation": _evaluation_facts,
    "instruct": _instruct_facts,
}


# --- files ---------------------------------------------------------------------------------


def _file(path: Path) -> Thing:
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if head[:4] == b"GGUF":
        return Thing(path, "gguf", "export", facts={"bytes": path.stat().st_size})
    if b'id="report-data"' in head or (b"Isoflop" in head and head[:9].lower() == b"<!doctype"):
        return Thing(path, "report", "report", facts={"bytes": path.stat().st_size})
    if path.suffix == ".toml":
        return _recipe_file(path)
    if path.suffix == ".json":
        return _json_file(path)
    if path.suffix == ".jsonl":
        return _jsonl_file(path, head)
    if path.suffix == ".csv":
        return _table(path, head)
    if path.suffix == ".parquet":
        return Thing(path, "parquet", facts={"bytes": path.stat().st_size})
    if path.suffix == ".safetensors":
        return Thing(path, "tensors", facts={"bytes": path.stat().st_size})
    return Thing(path, "text" if _is_text(head) else "unknown")


_ALIKE = ("sft", "reward", "dpo", "ppo", "grpo")
"""Stages whose recipes may look alike: the file's name then tells."""


def _recipe_file(path: Path) -> Thing:
    try:
        recipe = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"not valid TOML: {error}", where=str(path)) from None
    stage = stage_of(recipe) or (path.stem if path.stem in _ALIKE else "")
    return Thing(path, "recipe", stage, facts={"tables": ", ".join(recipe)})


def _json_file(path: Path) -> Thing:
    value = read_json(path)
    if path.name == "tokenizer.json":
        return Thing(path, "tokenizer")
    if isinstance(value, dict) and {"form", "parameters"} <= set(value):
        facts = {"form": value["form"], "formula": value.get("formula", "")}
        facts |= {"runs": value.get("n_runs"), "verdict": value.get("verdict", "")}
        return Thing(path, "law", "laws fit", facts=facts)
    return Thing(path, "json")


def _jsonl_file(path: Path, head: bytes) -> Thing:
    try:
        first = json.loads(head.split(b"\n", 1)[0] or b"{}")
    except ValueError:
        first = {}
    keys = set(first) if isinstance(first, dict) else set()
    if {"previous", "hash", "quantity"} <= keys:
        ledger = Ledger(path)
        counted = "; ".join(tally.sentence() for tally in ledger.calibration())
        return Thing(path, "ledger", facts={"promises": len(ledger.read()), "calibration": counted})
    for kind, wanted in _ROWS:
        if wanted <= keys:
            return Thing(path, kind, facts={"keys": ", ".join(sorted(keys))})
    return Thing(path, "jsonl", facts={"keys": ", ".join(sorted(keys))})


_ROWS: tuple[tuple[str, set[str]], ...] = (
    ("run table", {"params", "tokens", "loss"}),
    ("metrics", {"step", "tokens"}),
    ("preference rows", {"chosen", "rejected"}),
    ("instruction rows", {"messages"}),
    ("instruction rows", {"prompt", "completion"}),
    ("verifiable rows", {"prompt", "answer"}),
    ("documents", {"text"}),
)


def _table(path: Path, head: bytes) -> Thing:
    names = next(csv.reader(head.decode("utf-8-sig", "replace").splitlines()[:1]), [])
    wanted = {"params", "tokens", "loss"}
    kind = "run table" if wanted <= set(names) else "table"
    return Thing(path, kind, facts={"columns": ", ".join(names)})


def _is_text(head: bytes) -> bool:
    return b"\0" not in head
