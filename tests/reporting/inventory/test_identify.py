import json
from pathlib import Path

import pytest

from isoflop.core.artifact import write_json, write_manifest
from isoflop.core.errors import ArtifactError
from isoflop.core.ledger import Ledger
from isoflop.data.shards import Shards
from isoflop.reporting.inventory.identify import identify, stage_of

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
STAGES = {
    "bert": "train", "demo-data": "data build", "dpo": "dpo", "grpo": "grpo",
    "iterate": "iterate", "instruct": "data instruct", "instruct-tools": "data instruct",
    "ladder": "ladder", "mixture": "mixture", "ppo": "ppo", "reward": "reward", "sft": "sft",
    "t5": "train", "align": "", "feedback": "dpo", "feedback-set": "data instruct",
    "grokking": "grokking", "train": "train", "wikitext-2": "train",
    "wikitext-2-data": "data build",
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_public_recipe_is_known_for_what_it_is(path: Path) -> None:
    thing = identify(path)
    assert (thing.kind, thing.stage) == ("recipe", STAGES[path.stem])


def test_the_chain_behind_a_run_is_known_piece_by_piece(tiny_shards: Shards, trained: Path) -> None:
    home = tiny_shards.directory.parent
    expected = {
        home / "corpus": ("corpus", "data build"),
        home / "tokenizer": ("tokenizer", "tokenizer train"),
        home / "shards": ("shards", "tokenize"),
        home / "lines.jsonl": ("documents", ""),
        trained: ("run", "train"),
        trained / "model": ("model", "train"),
        trained / "metrics.jsonl": ("metrics", ""),
        trained / "model" / "model.safetensors": ("tensors", ""),
    }
    assert {path: (identify(path).kind, identify(path).stage) for path in expected} == expected
    assert identify(home / "tokenizer").facts["vocabulary"] == 300
    assert identify(home / "shards").facts["train tokens"] == tiny_shards.train.n_tokens


def test_a_finished_run_says_how_far_it_came(trained: Path) -> None:
    thing = identify(trained)
    result = json.loads((trained / "result.json").read_text())
    assert thing.status == "complete"
    assert thing.facts == {"steps": 10, "tokens": 2560, "loss": pytest.approx(result["loss"])}


def test_a_killed_run_is_unfinished_and_says_how_far_it_came(unfinished: Path) -> None:
    thing = identify(unfinished)
    assert (thing.kind, thing.stage, thing.status) == ("run", "train", "unfinished")
    assert thing.facts["steps"] == 10


def test_files_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("params,tokens,loss\n1,2,3\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "model.gguf").write_bytes(b"GGUF\x03\0\0\0")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "c", "rejected": "r"}\n')
    (tmp_path / "rows.jsonl").write_text('{"messages": []}\n')
    (tmp_path / "notes.txt").write_text("words\n")
    (tmp_path / "image.bin").write_bytes(b"\x89PNG\0\0")
    write_json(tmp_path / "law.json", {"form": "chinchilla", "parameters": {}, "n_runs": 3})
    Ledger(tmp_path / "ledger.jsonl").promise("loss", "nats", 2.0, 1.9, 2.1, 0.9, "a law")
    kinds = {path.name: identify(path).kind for path in sorted(tmp_path.iterdir())}
    assert kinds == {
        "runs.csv": "run table", "other.csv": "table", "model.gguf": "gguf",
        "pairs.jsonl": "preference rows", "rows.jsonl": "instruction rows", "notes.txt": "text",
        "image.bin": "unknown", "law.json": "law", "ledger.jsonl": "ledger",
    }  # fmt: skip


def test_a_directory_of_another_program_is_a_model_to_import(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"model_type": "llama", "architectures": ["Llama"]})
    assert identify(tmp_path).kind == "hugging-face-model"


def test_an_empty_directory_is_unknown_and_a_missing_one_an_error(tmp_path: Path) -> None:
    assert identify(tmp_path).kind == "unknown"
    with pytest.raises(ArtifactError, match="no such file or directory"):
        identify(tmp_path / "absent")


def test_damaged_json_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "law.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"law\.json"):
        identify(tmp_path / "law.json")


def test_an_artifact_of_a_kind_without_figures_is_still_named(tmp_path: Path) -> None:
    write_manifest(tmp_path, kind="ngram", config={}, machine={})
    assert identify(tmp_path).kind == "ngram"


@pytest.mark.parametrize("recipe", [{}, {"model": {"path": "m"}, "data": {"set": "s"}}])
def test_a_recipe_that_fits_several_stages_has_none(recipe: dict[str, object]) -> None:
    assert stage_of(recipe) == ""
