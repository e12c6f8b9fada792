"""`isoflop data card`, and the card that `isoflop data build` writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.cli.main import main


@pytest.fixture
def corpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    rows = [{"text": f"row number {n}", "url": f"http://x.example/{n}"} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = 'held_out_fraction = 0.3\n[[sources]]\nkind = "jsonl"\npath = "rows.jsonl"\n'
    (tmp_path / "data.toml").write_text(recipe)
    assert main(["data", "build", str(tmp_path / "data.toml"), "-o", str(tmp_path / "c")]) == 0
    capsys.readouterr()
    return tmp_path / "c"


def test_a_build_ends_with_a_card_in_the_corpus(corpus: Path) -> None:
    assert "30 documents with" in (corpus / "card.html").read_text("utf-8")


def test_the_card_is_written_where_it_is_asked_for(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert main(["data", "card", str(corpus), "-o", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["card"] == str(out)
    assert said["documents"] == {"read": 30, "kept": 30}
    assert (said["hosts"], said["with_url"], said["tokens"]) == (1, 30, None)
    assert out.read_bytes() == (corpus / "card.html").read_bytes()


def test_what_is_no_corpus_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "card", str(tmp_path / "none")]) == 2
    assert "no such corpus directory" in capsys.readouterr().err
