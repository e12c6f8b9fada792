from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

from isoflop.data.documents import Skipped
from isoflop.data.examples import MAX_EXAMPLES, Examples
from isoflop.data.funnel import Funnel


def filled(numbers: range) -> Funnel:
    funnel = Funnel()
    for number in numbers:
        source = f"source {number % 3}"
        if number % 4 == 0:
            funnel.drop(source, f"reason {number % 5}", str(number), number)
        else:
            split = ("train", "held_out")[number % 2]
            funnel.keep(source, split, f"language {number % 7}", number + 1, number)
        funnel.count_pii({"email": number % 2})
    funnel.rejects = len(numbers)
    return funnel


def test_accounts_of_parts_add_up_to_the_account_of_the_whole() -> None:
    whole = filled(range(300))
    for cuts in ([0, 300], [0, 1, 150, 299, 300], [0, 100, 200, 300]):
        merged = Funnel()
        for begin, end in pairwise(cuts):
            merged.merge(filled(range(begin, end)).state())
        assert merged.as_json() == whole.as_json()
    assert all(len(drop["examples"]) == 10 for drop in whole.as_json()["dropped"].values())


def row(number: int) -> dict[str, object]:
    fields = {"source": "s", "language": "en", "url": "", "text": f"text {number} " * 100}
    return {"reason": f"reason {number % 2}", "id": str(number), "raw_bytes": number, **fields}


def test_examples_are_the_same_in_any_order_and_grouping(tmp_path: Path) -> None:
    whole = Examples(seed=1)
    for number in range(200):
        whole.add(row(number))
    whole.add_skipped("s", Skipped("broken.txt", "not UTF-8", 7, 3, True, "invalid byte"))
    whole.write(tmp_path / "whole.jsonl", with_keys=False)

    numbers = list(range(200))
    random.Random(3).shuffle(numbers)
    merged = Examples(seed=1)
    for begin in range(0, 200, 30):
        part = Examples(seed=1)
        for number in numbers[begin : begin + 30]:
            part.add(row(number))
        if begin == 90:
            part.add_skipped("s", Skipped("broken.txt", "not UTF-8", 7, 3, True, "invalid byte"))
        part.write(tmp_path / "part.jsonl", with_keys=True)
        merged.merge(tmp_path / "part.jsonl")
    merged.write(tmp_path / "merged.jsonl", with_keys=False)
    written = (tmp_path / "merged.jsonl").read_text()
    assert written == (tmp_path / "whole.jsonl").read_text()
    assert len(written.splitlines()) == 2 * MAX_EXAMPLES + 1
    assert '"id": "broken.txt:3"' in written


def test_what_was_skipped_is_found_by_line_or_else_by_offset() -> None:
    assert Skipped("a.jsonl", "x", line=3, offset=40).place == "a.jsonl:3"
    assert Skipped("a.warc", "x", offset=0).place == "a.warc@0"
    assert Skipped("a.txt", "x").place == "a.txt"
