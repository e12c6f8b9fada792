"""Duplicates and evaluation items planted in real text: what is found, speed and memory.

    python benchmarks/data_duplicates.py [--chinese FOLDER] [--megabytes 60 12] [--peers]

The English and code are files of the Python installation that runs this; the Chinese comes from
the Markdown and text files below FOLDER, or is made up (random words of Zipf's law) without one.
A part of the documents gets copies: exact, laid out anew, 1, 3 or 6 % of the tokens changed, cut
with a new header. Whether two documents are similar is decided here by Python's sets of words.
`--peers` runs datasketch and rensa as their manuals show (`pip install datasketch rensa`) on a
part of the text, in turns with Isoflop in one process. Times are CPU seconds of one process, from
Parquet to survivors; memory is the peak of a process of its own, libraries included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from peers.planted_text import TOKEN, build, judge, write

from isoflop.data.decontaminate import evaluation_index, find_items
from isoflop.data.documents import Document
from isoflop.data.duplicates import duplicate_keys, find_duplicates, joined_keys
from isoflop.data.duplicates_recipe import DuplicatesConfig

_MAX_LEAK_DOCUMENTS = 1_500


# --- running ---------------------------------------------------------------------------------


def run(path: Path) -> dict[str, Any]:
    """From a Parquet file to survivors, as the pipeline does: keys by row group, one decision."""
    config = DuplicatesConfig(near=True, lines=False)
    start = time.process_time()
    with pq.ParquetFile(path) as file:

        def groups() -> Iterator[list[str]]:
            for index in range(file.num_row_groups):
                yield file.read_row_group(index, columns=["text"]).column("text").to_pylist()

        def texts_of(numbers: np.ndarray) -> Iterator[str]:
            first, wanted = 0, set(numbers.tolist())
            for texts in groups():
                yield from (text for n, text in enumerate(texts, first) if n in wanted)
                first += len(texts)

        parts = []
        size = 0
        for texts in groups():
            size += sum(len(text.encode()) for text in texts)
            # Ties by text, so that the survivors do not depend on the numbering.
            documents = [
                Document(hashlib.md5(text.encode()).hexdigest(), text, "s", "en") for text in texts
            ]
            parts.append(duplicate_keys(documents, {"s": 0}, config))
        mapped = time.process_time() - start
        found = find_duplicates(joined_keys(parts), config, texts_of)
    seconds = time.process_time() - start
    return {
        "kept": found.kept.tolist(),
        "megabytes": size / 1e6,
        "keys": size / 1e6 / mapped,
        "all": size / 1e6 / seconds,
        "peak_megabytes": peak_megabytes(),
    }


def peak_megabytes() -> float:
    """Of this process alone: `ru_maxrss` would begin with that of the parent (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1e3


def apart(path: Path) -> dict[str, Any]:
    """`run` in a process of its own."""
    command = [sys.executable, __file__, "--run", str(path)]
    answer: dict[str, Any] = json.loads(subprocess.check_output(command))
    return answer


def survivors(path: Path, kept: list[int]) -> set[bytes]:
    texts = pq.read_table(path, columns=["text"]).column("text").to_pylist()
    return {hashlib.md5(texts[n].encode()).digest() for n in range(len(texts)) if kept[n] == n}


def with_isoflop(texts: list[str], language: str) -> list[int]:
    config = DuplicatesConfig(near=True, lines=False, exact=False)
    documents = [Document(str(n), text, "s", language) for n, text in enumerate(texts)]
    keys = duplicate_keys(documents, {"s": 0}, config)
    found = find_duplicates(keys, config, lambda ns: (texts[n] for n in ns.tolist()))
    return found.kept.tolist()


def with_datasketch(texts: list[str], language: str) -> list[int]:
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-not-found]

    lsh = MinHashLSH(num_perm=110, params=(22, 5))
    kept = []
    for number, text in enumerate(texts):
        tokens = TOKEN[language].findall(text.lower())
        sketch = MinHash(num_perm=110)
        sketch.update_batch({" ".join(tokens[i : i + 5]).encode() for i in range(len(tokens) - 4)})
        near = lsh.query(sketch)
        kept.append(int(min(near, key=int)) if near else number)
        lsh.insert(str(number), sketch)
    return kept


def with_rensa(texts: list[str], language: str) -> list[int]:
    from rensa import RMinHash, RMinHashLSH

    lsh = RMinHashLSH(threshold=0.7, num_perm=110, num_bands=22)
    kept = []
    for number, text in enumerate(texts):
        tokens = TOKEN[language].findall(text.lower())
        sketch = RMinHash(num_perm=110, seed=42)
        sketch.update([" ".join(tokens[i : i + 5]) for i in range(len(tokens) - 4)])
        near = lsh.query(sketch)
        kept.append(min(near) if near else number)
        lsh.insert(number, sketch)
    return kept


def peers(path: Path, language: str, megabytes: float) -> None:
    """Isoflop and others in turns on the same texts, in memory; the least CPU time of three."""
    texts: list[str] = []
    size = 0
    for text in pq.read_table(path, columns=["text"]).column("text").to_pylist():
        texts.append(text)
        size += len(text.encode())
        if size > megabytes * 1e6:
            break
    contestants: dict[str, Callable[[list[str], str], list[int]]] = {
        "isoflop": with_isoflop, "rensa": with_rensa, "datasketch": with_datasketch,
    }  # fmt: skip
    least: dict[str, float] = dict.fromkeys(contestants, float("inf"))
    for _ in range(3):
        for name, contestant in contestants.items():
            start = time.process_time()
            contestant(texts, language)
            least[name] = min(least[name], time.process_time() - start)
    for name, seconds in least.items():
        print(f"  {name:>11}: {size / 1e6 / seconds:6.2f} MB per CPU-second")


# --- evaluation items ------------------------------------------------------------------------


def passages(texts: list[str], language: str, draw: random.Random, n: int) -> list[str]:
    """Stretches of 15 to 80 tokens of texts."""
    found = []
    while len(found) < n:
        text = draw.choice(texts)
        tokens = list(TOKEN[language].finditer(text))
        length = draw.randrange(15, 80)
        if len(tokens) > length:
            at = draw.randrange(len(tokens) - length)
            found.append(text[tokens[at].start() : tokens[at + length - 1].end()])
    return found


def grams(text: str, language: str) -> set[int]:
    """Hashes of every eight tokens in a row, in lower case."""
    tokens = TOKEN[language].findall(text.lower())
    return {hash(tuple(tokens[i : i + 8])) for i in range(len(tokens) - 7)}


def templates(draw: random.Random, n: int) -> list[str]:
    """Word problems that differ in names and figures alone."""
    return [
        f"Question: {name} has {a} marbles and buys {b} more at the market. Then {name} gives "
        f"{c} of them to a friend. How many marbles does {name} have now?\nAnswer: {a + b - c}"
        for name, a, b, c in (
            (draw.choice(("Tom", "Anna", "Lucy")), *(draw.randrange(1000) for _ in "abc"))
            for _ in range(n)
        )
    ]


def leaks(path: Path, language: str) -> None:
    """Items of which half are hidden in documents: how many are found, how many wrongly."""
    draw = random.Random(11)
    texts: list[str] = pq.read_table(path, columns=["text"]).column("text").to_pylist()
    families = pq.read_table(path, columns=["family"]).column("family").to_pylist()
    held_back = {f for f in set(families) if f % 10 == 0}
    outside = [t for t, f in zip(texts, families, strict=True) if f in held_back]
    inside = [t for t, f in zip(texts, families, strict=True) if f not in held_back]
    inside = inside[:_MAX_LEAK_DOCUMENTS]
    # Real texts cite one another: only passages that share nothing, with the corpus or with each
    # other, tell.
    seen = {gram for text in inside for gram in grams(text, language)}
    chosen: list[str] = []
    for passage in passages(outside, language, draw, 5000):
        if seen.isdisjoint(own := grams(passage, language)):
            seen |= own
            chosen.append(passage)
    tasks = {"passages": chosen}
    if language == "en":
        tasks["templates"] = templates(draw, 1000)
    leaked: dict[str, list[str]] = {}
    for name, items in tasks.items():
        hidden = items[::2]
        leaked[name] = hidden
        for item in hidden:
            disguised = draw.choice([item, item.upper(), re.sub(r"\s+", "\n", item)])
            at = draw.randrange(len(inside))
            pair = [inside[at], disguised]
            inside[at] = "\n\n".join(pair if draw.random() < 0.5 else pair[::-1])
    index = evaluation_index({k: [(i,) for i in v] for k, v in tasks.items()}, 13)
    start = time.process_time()
    found = set(find_items(inside, index, 0.5).items.tolist())
    seconds = time.process_time() - start
    first = 0
    for name, items in tasks.items():
        own = {n - first for n in found if first <= n < first + len(items)}
        hit, wrong = sum(n % 2 == 0 for n in own), sum(n % 2 for n in own)
        print(f"  {name}: {hit} of {len(leaked[name])} leaked items found, "
              f"{wrong} of {len(items) // 2} held back flagged")  # fmt: skip
        first += len(items)
    print(f"  {sum(len(t.encode()) for t in inside) / 1e6 / seconds:.1f} MB per CPU-second")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chinese", type=Path)
    parser.add_argument("--megabytes", type=float, nargs=2, default=(60.0, 12.0))
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run(arguments.run)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for language, megabytes in zip(("en", "zh"), arguments.megabytes, strict=True):
            path = Path(folder) / f"{language}.parquet"
            build(language, int(megabytes * 1e6), arguments.chinese, path)
            rows = pq.read_table(path).to_pylist()
            runs = [apart(path) for _ in range(3)]
            best = max(runs, key=lambda found: float(found["all"]))
            print(f"{language}: {len(rows):,} documents, {best['megabytes']:.1f} MB")
            print(f"  {best['all']:.1f} MB per CPU-second (keys alone {best['keys']:.1f}), "
                  f"peak {best['peak_megabytes']:.0f} MB")  # fmt: skip
            judge(rows, best["kept"], language)
            random.Random(1).shuffle(rows)
            other = Path(folder) / "shuffled.parquet"
            write(rows, other)
            same = survivors(other, apart(other)["kept"]) == survivors(path, best["kept"])
            print(f"  the same survivors when shuffled: {'yes' if same else 'NO'}")
            if arguments.peers:
                peers(path, language, megabytes / 6)
            leaks(path, language)


if __name__ == "__main__":
    main()
