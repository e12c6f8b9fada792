from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from isoflop.core.engine import engine as engine_module
from isoflop.data import annotate as annotate_module
from isoflop.data.choose import COPY, MOSTLY_COPY, REASONS
from isoflop.data.corpus import build
from isoflop.data.recipe import DataRecipe, SourceConfig

EXACT, MOSTLY = REASONS[COPY], REASONS[MOSTLY_COPY]


def lines(start: int, stop: int) -> str:
    return "\n".join(f"this is the telling line number {n}" for n in range(start, stop)) + "\n"


def dropped(texts: list[str], folder: Path) -> dict[int, str]:
    """Number → reason of the texts that a corpus drops, read in this order."""
    folder.mkdir(exist_ok=True)
    rows = [{"text": text, "id": str(number)} for number, text in enumerate(texts)]
    # Some lines that always stay, so that no split is empty.
    rows += [{"text": f"filler {number}", "id": f"filler {number}"} for number in range(30)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    recipe = DataRecipe((SourceConfig("jsonl", path=folder / "rows.jsonl"),), 0.3)
    corpus = build(recipe, folder / "corpus")
    reasons = corpus.funnel["dropped"]
    found = {int(i): reason for reason, drop in reasons.items() for i in drop["examples"]}
    assert len(found) == sum(drop["documents"] for drop in reasons.values())
    return found


def one_after_the_other(texts: list[str]) -> dict[int, str]:
    """The rule, as one who remembers all that was kept would apply it."""
    documents: set[str] = set()
    kept_lines: set[str] = set()
    found = {}
    for number, text in enumerate(texts):
        telling = {line.strip() for line in text.split("\n") if len(line.strip()) >= 12}
        if text in documents:
            found[number] = EXACT
        elif len(telling) >= 5 and 2 * len(telling & kept_lines) > len(telling):
            found[number] = MOSTLY
        else:
            documents.add(text)
            kept_lines |= telling if len(telling) >= 5 else set()
    return found


def test_the_same_text_is_kept_once(tmp_path: Path) -> None:
    assert dropped(["hello\n", "hello\n", "hello!\n"], tmp_path) == {1: EXACT}


def test_more_than_half_of_the_lines_seen_drops_and_half_does_not(tmp_path: Path) -> None:
    # 6 of 10 seen; 5 of 10 seen
    assert dropped([lines(0, 10), lines(4, 14), lines(5, 15)], tmp_path) == {1: MOSTLY}


def test_indentation_and_short_lines_do_not_hide_a_copy(tmp_path: Path) -> None:
    disguised = "\n".join(f"    {line}\n    pass" for line in lines(0, 10).splitlines())
    assert dropped([lines(0, 10), disguised], tmp_path) == {1: MOSTLY}


def test_a_dropped_document_leaves_no_lines_behind(tmp_path: Path) -> None:
    # Lines 10 to 12 were in the second one only, which is not kept.
    assert dropped([lines(0, 10), lines(3, 13), lines(10, 20)], tmp_path) == {1: MOSTLY}


def test_short_documents_of_shared_phrases_are_only_matched_exactly(tmp_path: Path) -> None:
    texts = [
        f"Question: how much is {number} and one?\nAnswer: it is the next number.\n"
        for number in range(20)
    ]
    assert dropped(texts, tmp_path) == {}


@pytest.mark.parametrize("seed", range(2))
def test_the_answer_is_that_of_reading_one_document_after_the_other(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Chains of overlapping documents, in many pieces and partitions: a fate hangs on many others.
    monkeypatch.setattr(engine_module, "PARTITION_BYTES", 10_000)
    monkeypatch.setattr("isoflop.data.funnel._MAX_EXAMPLES", 10**6)
    monkeypatch.setattr(annotate_module, "_MIN_PIECE_BYTES", 1 << 14)
    draw = random.Random(seed)
    texts = []
    for _ in range(300):
        start = draw.randrange(120)
        texts.append(lines(start, start + draw.randrange(3, 14)))
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number}.txt").write_text(text)
    for number in range(30):
        (folder / f"{1000 + number}.txt").write_text(f"filler {number}")
    corpus = build(DataRecipe((SourceConfig("text", path=folder),), 0.3), tmp_path / "c")
    reasons = corpus.funnel["dropped"]
    found = {n: reason for reason, drop in reasons.items() for n in drop["examples"]}

    def place(name: str) -> bytes:
        return hashlib.sha256(f"0\0{name}".encode()).digest()

    order = sorted((f"{number}.txt" for number in range(300)), key=place)
    expected = one_after_the_other([texts[int(name[:-4])] for name in order])
    assert found == {order[number]: reason for number, reason in expected.items()}
    assert 50 < len(expected) < 250
