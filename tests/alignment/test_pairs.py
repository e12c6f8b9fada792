"""Pairs that cannot be learnt from are named by file and line, and the others are used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.alignment.chat import open_chat
from isoflop.alignment.pairs import open_pairs
from isoflop.core.errors import DataError
from isoflop.core.recipe import from_dict
from isoflop.data.instruct import instruct
from isoflop.data.instruct_recipe import InstructRecipe
from isoflop.data.tokenizer import load

ROWS = [
    {"prompt": "a", "chosen": "b", "rejected": "c"},
    {"prompt": "a", "chosen": "b " * 80, "rejected": "c"},
    {
        "prompt": "a",
        "chosen": [{"role": "assistant", "content": "d", "ids": [5]}],
        "rejected": [{"role": "assistant", "content": "e", "ids": [5]}],
    },
    {"prompt": "f", "chosen": "g", "rejected": "h"},
]


def pairs_of(rows: list[dict[str, object]], folder: Path, out: Path):  # type: ignore[no-untyped-def]
    (out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = {
        "sources": [{"kind": "jsonl", "path": str(out / "rows.jsonl")}],
        "held_out_fraction": 0.0, "drop_flawed": False,
    }  # fmt: skip
    instruct(from_dict(InstructRecipe, table, "test"), out / "set")
    return open_pairs(out / "set", open_chat(load(folder / "model")), 60)


def test_pairs_that_cannot_be_learnt_are_named_by_file_and_line(
    folder: Path, tmp_path: Path
) -> None:
    found = pairs_of(ROWS, folder, tmp_path)
    assert len(found.train) == 2
    file = str(tmp_path / "set" / "preference_train.jsonl")
    assert found.left_out == (
        {"file": file, "line": 2, "reason": "too long"},
        {"file": file, "line": 3, "reason": "the same in ids"},
    )
    assert found.counted() == {"the same in ids": 1, "too long": 1}


def test_a_set_without_a_pair_that_can_be_used_says_why(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the same in ids 1, too long 1"):
        pairs_of(ROWS[1:3], folder, tmp_path)
