"""Speed of the cleaning steps on one core, and agreement of the quality rules with datatrove's.

    python benchmarks/data_clean.py DOCUMENTS.jsonl [--peer] [--chinese]

Each line of DOCUMENTS holds `{"text": …}` or a string. `--peer` decides every document with
datatrove's filters too (`pip install datatrove spacy`), and prints every difference by rule.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isoflop.data import pii
from isoflop.data.boilerplate import without_boilerplate
from isoflop.data.language import identify
from isoflop.data.normalise import normalise
from isoflop.data.quality import (
    CHINESE_RULES,
    ENGLISH_RULES,
    FAMILIES,
    chosen_rules,
    first_failed,
)
from isoflop.data.signals import Measurer


def read(path: Path) -> list[str]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [row if isinstance(row, str) else row["text"] for row in rows]


def megabytes_per_cpu_second(step: Callable[[str], object], texts: list[str]) -> float:
    """The best of three passes, by CPU time of this process."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    best = 0.0
    for _ in range(3):
        start = time.process_time()
        for text in texts:
            step(text)
        best = max(best, size / (time.process_time() - start))
    return best


def peer_filters() -> dict[str, Any]:
    from datatrove.pipeline import filters  # type: ignore[import-not-found]

    return {
        "gopher-repetition": filters.GopherRepetitionFilter(),
        "gopher-quality": filters.GopherQualityFilter(),
        "c4": filters.C4QualityFilter(),
        "fineweb": filters.FineWebQualityFilter(),
    }


def compare(texts: list[str], measure: Callable[[str], dict[str, float]]) -> None:
    """Same decision, drop or keep, by each family alone on the original text."""
    from datatrove.data import Document  # type: ignore[import-not-found]

    signals = [measure(text) for text in texts]
    for family, peer in peer_filters().items():
        rules = chosen_rules(ENGLISH_RULES, (family,), {})
        differences: Counter[tuple[str, str]] = Counter()
        start = time.process_time()
        for text, values in zip(texts, signals, strict=True):
            verdict = peer.filter(Document(text=text, id=""))
            theirs = "" if verdict is True else verdict[1]
            ours = first_failed(rules, values) or ""
            if bool(ours) != bool(theirs):
                differences[ours, theirs] += 1
        seconds = time.process_time() - start
        same = 1.0 - differences.total() / len(texts)
        speed = sum(len(text.encode()) for text in texts) / 1e6 / seconds
        print(f"{family}: same decision on {same:.2%}; datatrove {speed:.2f} MB per CPU-second")
        for (ours, theirs), count in differences.most_common():
            print(f"  {count:4}  ours {ours or 'keep'}, theirs {theirs or 'keep'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("documents", type=Path)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--chinese", action="store_true")
    arguments = parser.parse_args()
    texts = read(arguments.documents)
    measurer = Measurer()
    measure = measurer.chinese if arguments.chinese else measurer.english
    rules = chosen_rules(CHINESE_RULES if arguments.chinese else ENGLISH_RULES, FAMILIES, {})
    steps: dict[str, Callable[[str], object]] = {
        "normalise": normalise,
        "boilerplate": without_boilerplate,
        "language": identify,
        "quality rules": lambda text: first_failed(rules, measure(text)),
        "personal data": pii.find,
    }
    print(f"{len(texts):,} documents, {sum(len(t.encode()) for t in texts) / 1e6:.1f} MB")
    for name, step in steps.items():
        print(f"{name:>14}: {megabytes_per_cpu_second(step, texts):7.2f} MB per CPU-second")
    if arguments.peer:
        compare(texts, measure)


if __name__ == "__main__":
    main()
