"""Speed of the cleaning steps on one core, and agreement of the quality rules with datatrove's.

    python benchmarks/data_clean.py [DOCUMENTS.jsonl] [--megabytes 6] [--peer] [--chinese]

Each line of DOCUMENTS holds `{"text": …}` or a string; without it the texts are prose of this
Python installation, or made up with `--chinese`. `--peer` decides every document with
datatrove's filters too (`pip install datatrove spacy`), and prints every difference by rule.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.texts import megabytes_per_cpu_second, texts_of

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


def peer_filters() -> dict[str, Any]:
    from datatrove.pipeline import filters  # type: ignore[import-not-found]

    return {
        "gopher-repetition": filters.GopherRepetitionFilter(),
        "gopher-quality": filters.GopherQualityFilter(),
        "c4": filters.C4QualityFilter(),
        "fineweb": filters.FineWebQualityFilter(),
    }


def compare(texts: list[str], measure: Callable[[str], dict[str, float]]) -> None:
    """Same decision, drop or keep, by each family alone on the original text, and by all."""
    from datatrove.data import Document  # type: ignore[import-not-found]

    signals = [measure(text) for text in texts]
    decisions = [[False, False] for _ in texts]
    size = sum(len(text.encode()) for text in texts) / 1e6
    for family, peer in peer_filters().items():
        rules = chosen_rules(ENGLISH_RULES, (family,), {})
        differences: Counter[tuple[str, str]] = Counter()
        start = time.process_time()
        verdicts = [peer.filter(Document(text=text, id="")) for text in texts]
        speed = size / (time.process_time() - start)
        for verdict, values, decided in zip(verdicts, signals, decisions, strict=True):
            theirs = "" if verdict is True else verdict[1]
            ours = first_failed(rules, values) or ""
            decided[0] |= bool(ours)
            decided[1] |= bool(theirs)
            if bool(ours) != bool(theirs):
                differences[ours, theirs] += 1
        same = 1.0 - differences.total() / len(texts)
        print(f"{family}: same decision on {same:.2%}; datatrove {speed:.2f} MB per CPU-second")
        for (ours, theirs), count in differences.most_common():
            print(f"  {count:4}  ours {ours or 'keep'}, theirs {theirs or 'keep'}")
    same = sum(ours == theirs for ours, theirs in decisions) / len(texts)
    dropped = sum(ours for ours, _ in decisions) / len(texts)
    print(f"all families: same decision on {same:.2%}; {dropped:.0%} are dropped")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("documents", type=Path, nargs="?")
    parser.add_argument("--megabytes", type=float, default=6.0)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--chinese", action="store_true")
    parser.add_argument("--joined", type=int, default=1, help="texts that make up one document")
    arguments = parser.parse_args()
    found = texts_of(arguments.documents, arguments.chinese, arguments.megabytes)
    step = arguments.joined
    texts = ["\n".join(found[i : i + step]) for i in range(0, len(found), step)]
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
    for name, act in steps.items():
        print(f"{name:>14}: {megabytes_per_cpu_second(act, texts):7.2f} MB per CPU-second")
    if arguments.peer:
        compare(texts, measure)


if __name__ == "__main__":
    main()
