"""`isoflop data duplicates`, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from isoflop.cli.main import main

RECIPE = """
held_out_fraction = 0.3
[[sources]]
kind = "jsonl"
path = "rows.jsonl"
"""


def build(folder: Path, texts: list[str]) -> Path:
    folder.mkdir()
    rows = [json.dumps({"text": text, "id": f"doc{n}"}) for n, text in enumerate(texts)]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "data.toml").write_text(RECIPE)
    assert main(["data", "build", str(folder / "data.toml"), "-o", str(folder / "corpus")]) == 0
    return folder / "corpus"


def prose(seed: int) -> str:
    return " ".join(f"s{seed}w{n}" for n in range(80))


def run_json(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, object]:
    capsys.readouterr()
    assert main(["data", "duplicates", *map(str, args), "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_what_is_alike_is_reported_and_the_corpus_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = [prose(n) + " and one word more" for n in range(3)]
    corpus = build(tmp_path / "a", [prose(n) for n in range(12)] + changed)
    before = sorted((p, p.stat().st_mtime_ns) for p in corpus.rglob("*"))
    out = tmp_path / "duplicates.json"
    report = run_json(capsys, corpus, "-o", out)
    assert report == json.loads(out.read_text())
    assert report["documents"] == 15
    assert report["clusters"] == report["removed"] == 3
    assert report["by_kind"] == {"exact": 0, "url": 0, "near": 3, "line": 0, "substring": 0}
    assert [cluster["size"] for cluster in report["largest"]] == [2, 2, 2]  # type: ignore[attr-defined]
    assert sorted((p, p.stat().st_mtime_ns) for p in corpus.rglob("*")) == before
    assert main(["data", "duplicates", str(corpus)]) == 0
    said = capsys.readouterr().out
    assert "3 of 15 documents are duplicates: near 3" in said
    assert "2 alike: jsonl " in said


def test_later_data_is_matched_against_an_index_that_grows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = build(tmp_path / "a", [prose(n) for n in range(12)])
    second = build(tmp_path / "b", [prose(n) for n in range(6, 18)])
    index = tmp_path / "index"
    assert run_json(capsys, first, "--remember", index)["removed"] == 0
    report = run_json(capsys, second, "--index", index, "--remember", index)
    assert (report["removed"], report["clusters"]) == (6, 0)
    assert run_json(capsys, second, "--index", index)["removed"] == 12


def test_bad_input_is_one_paragraph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = build(tmp_path / "a", [prose(n) for n in range(12)])
    for args, said in (
        ((tmp_path / "none",), "no such corpus"),
        ((corpus, "--index", tmp_path), "not a finished duplicate-index"),
        ((corpus, "--similarity", "0.2"), "between 0.7 and 1"),
        ((corpus, "--remember", corpus), "this is a corpus, not a duplicate-index"),
    ):
        assert main(["data", "duplicates", *map(str, args)]) == 2
        assert said in capsys.readouterr().err


def test_help_loads_nothing_that_does_the_work() -> None:
    program = (
        "import sys\nfrom isoflop.cli.main import main\ncode = main(sys.argv[1:])\n"
        "heavy = {'torch', 'scipy', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code)\n"
    )
    command = [sys.executable, "-c", program, "data", "duplicates", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--remember" in done.stdout
