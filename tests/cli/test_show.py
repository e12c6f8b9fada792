"""`isoflop show` and `isoflop runs`: what they print; what they find is tested in reporting."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from isoflop.cli.main import main
from isoflop.data.shards import Shards


def said(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert main([str(arg) for arg in args]) == 0
    return capsys.readouterr().out


def test_show_tells_what_it_is_where_it_is_from_and_what_to_do(
    tiny_shards: Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tiny_shards.directory.parent
    text = said(capsys, "show", home / "shards", "--check")
    assert text.startswith(f"{home}/shards: shards of tokens to train on (isoflop tokenize)\n")
    for part in (
        "300",
        "files are as they were written",
        f"isoflop tokenize {home}/corpus --tokenizer {home}/tokenizer",
        f"    {home}/lines.jsonl  documents",
        f"isoflop train RECIPE.toml -o run --data.shards {home}/shards",
    ):
        assert part in text


def test_show_gives_one_json_document(
    tiny_shards: Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(said(capsys, "show", tiny_shards.directory, "--json"))
    assert document["kind"] == "shards"
    assert document["checked"] is False
    assert [step["kind"] for step in document["made_from"]] == ["corpus", "documents", "tokenizer"]
    assert document["next"][0]["line"].startswith("isoflop train ")


def test_a_damaged_file_is_named_and_the_exit_status_is_1(
    tiny_shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "shards"
    shutil.copytree(tiny_shards.directory, broken)
    (broken / "index.json").write_text((broken / "index.json").read_text() + "\n")
    assert main(["show", str(broken), "--check"]) == 1
    assert f"DAMAGED: {broken}/index.json differs" in capsys.readouterr().out


def test_what_keeps_no_recipe_says_so(
    tiny_shards: Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(tiny_shards.directory), "--recipe"]) == 2
    assert "this shards keeps no recipe" in capsys.readouterr().err


def test_runs_is_a_table_and_a_document(
    tiny_shards: Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tiny_shards.directory.parent
    lines = said(capsys, "runs", home).splitlines()
    assert lines[0].split() == ["path", "kind", "status", "age", "steps", "tokens", "loss"]
    assert {line.split()[0] for line in lines[1:]} == {"corpus", "tokenizer", "shards"}
    document = json.loads(said(capsys, "runs", home, "--json"))
    assert {row["kind"] for row in document["runs"]} == {"corpus", "tokenizer", "shards"}


def test_a_folder_without_runs_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no runs and no artifacts" in said(capsys, "runs", tmp_path)
