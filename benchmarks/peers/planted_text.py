"""Texts with planted duplicates, and a judge who knows where; for `data_duplicates.py`.

Not for finding them.
"""

from __future__ import annotations

import hashlib
import random
import re
import sysconfig
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

KINDS = ("exact", "reformatted", "1 %", "3 %", "6 %", "cut, new header")
TOKEN = {
    "en": re.compile(r"\w+"),
    "zh": re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+"),
}
_SHINGLE = 5
# Documents below this say nothing about similarity in fives of words.
_MINTOKENS = 60
_DUPLICATE = 0.7


# --- text ------------------------------------------------------------------------------------


def english_files(limit: int) -> Iterator[str]:
    """Sources, stubs and prose of this Python's own libraries, in an order by hash of the name."""
    roots = {sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")}
    names = {".py", ".pyi", ".md", ".rst", ".txt", ".h", ".hpp", ".js", ".css"}
    paths = sorted(
        {
            p
            for root in roots
            for p in Path(root).rglob("*")
            if p.suffix in names or p.name == "METADATA"
        },
        key=lambda p: hashlib.md5(p.name.encode() + str(p.stat().st_size).encode()).digest(),
    )
    yield from _distinct(paths, limit)


def chinese_files(folder: Path, limit: int) -> Iterator[str]:
    """Texts below a folder of which a sixth of the characters or more are ideographs."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix in {".md", ".txt", ".rst"})
    for text in _distinct(paths, 10 * limit):
        if 6 * sum("\u3400" <= char <= "\u9fff" for char in text) > len(text) and limit > 0:
            limit -= len(text.encode())
            yield text


def _distinct(paths: list[Path], limit: int) -> Iterator[str]:
    seen: set[bytes] = set()
    for path in paths:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        digest = hashlib.sha256(text.encode()).digest()
        if digest in seen or not 1_000 < len(text) < 100_000:
            continue
        seen.add(digest)
        limit -= len(text.encode())
        if limit < 0:
            return
        yield text


def made_up_chinese(limit: int, draw: random.Random) -> Iterator[str]:
    """Sentences of random words of one to four ideographs, frequent by Zipf's law."""
    words = [
        "".join(chr(draw.randrange(0x4E00, 0x5800)) for _ in range(draw.choice((1, 2, 2, 2, 3, 4))))
        for _ in range(30_000)
    ]
    weights = [1.0 / (rank + 3) for rank in range(len(words))]
    while limit > 0:
        chosen = iter(draw.choices(words, weights, k=draw.randrange(150, 4_000)))
        marks = iter(draw.choices(("", "，", "。", "。\n\n"), (8, 2, 1, 0.2), k=4_000))
        text = "".join(word + next(marks) for word in chosen)
        limit -= len(text.encode())
        yield text


# --- planting --------------------------------------------------------------------------------


def plant(text: str, kind: str, language: str, draw: random.Random, others: list[str]) -> str:
    """A copy of a text, disguised."""
    if kind == "exact":
        return text
    if kind == "reformatted":
        return _reformatted(text, language, draw)
    if kind == "cut, new header":
        tokens = list(TOKEN[language].finditer(text))
        at = tokens[int(len(tokens) * draw.uniform(0.02, 0.15))].start()
        header = " ".join(draw.choices(others, k=draw.randrange(5, 25)))
        return f"{header}\n\n{text[at:]}"
    share = int(kind.split()[0]) / 100
    last, parts = 0, []
    for token in TOKEN[language].finditer(text):
        if draw.random() < share:
            parts += [text[last : token.start()], draw.choice(others)]
            last = token.end()
    return "".join([*parts, text[last:]])


def _reformatted(text: str, language: str, draw: random.Random) -> str:
    if language == "zh":
        text = re.sub(r"(?<=[。！？])", "\n" if draw.random() < 0.5 else "", text)
        return text.translate({ord("，"): ", ", ord("。"): ". ", ord("（"): "(", ord("）"): ")"})
    lines = [
        "    " * draw.randrange(3) + line.strip() for line in text.splitlines() if line.strip()
    ]
    return ("\r\n" if draw.random() < 0.5 else "\n\n").join(lines).replace('"', "'")


def build(language: str, limit: int, folder: Path | None, out: Path) -> None:
    """Write `{text, family, kind}` lines: originals and their planted copies, shuffled."""
    draw = random.Random(7)
    base_limit = int(limit * 0.65)
    if language == "en":
        base = list(english_files(base_limit))
    elif folder is not None:
        base = list(chinese_files(folder, base_limit))
    else:
        base = list(made_up_chinese(base_limit, draw))
    rows: list[dict[str, Any]] = [
        {"text": text, "family": n, "kind": "original"} for n, text in enumerate(base)
    ]
    enough = [n for n, text in enumerate(base) if len(TOKEN[language].findall(text)) >= _MINTOKENS]
    draw.shuffle(enough)
    others = TOKEN[language].findall("\n".join(base[:200]))
    size = sum(len(text.encode()) for text in base)
    for turn, family in enumerate(enough * 3):
        if size > limit:
            break
        kind = KINDS[turn % len(KINDS)]
        text = plant(base[family], kind, language, draw, others)
        rows.append({"text": text, "family": family, "kind": kind})
        size += len(text.encode())
    draw.shuffle(rows)
    write(rows, out)


def write(rows: list[dict[str, Any]], out: Path) -> None:
    """A Parquet file with row groups of some 4 MB."""
    with pq.ParquetWriter(out, pa.Table.from_pylist(rows[:1]).schema, compression="zstd") as file:
        group: list[dict[str, Any]] = []
        size = 0
        for row in rows:
            group.append(row)
            size += len(row["text"].encode())
            if size > 4_000_000:
                file.write_table(pa.Table.from_pylist(group))
                group, size = [], 0
        if group:
            file.write_table(pa.Table.from_pylist(group))


# --- judging ---------------------------------------------------------------------------------


def shingles(text: str, language: str) -> set[int]:
    """The judge's own sets: every five tokens in a row, in lower case."""
    tokens = TOKEN[language].findall(text.lower())
    return {hash(tuple(tokens[i : i + _SHINGLE])) for i in range(len(tokens) - _SHINGLE + 1)}


def jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b) if a or b else 1.0


def judge(rows: list[dict[str, Any]], clusters: list[int], language: str) -> None:
    """Recall of planted pairs by their true similarity; precision of what was removed.

    `clusters[i]` is the document kept in place of document i.
    """
    families: dict[int, list[int]] = defaultdict(list)
    members: dict[int, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        families[row["family"]].append(number)
        members[clusters[number]].append(number)
    found: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for family in families.values():
        if len(family) < 2:
            continue
        sets = [shingles(rows[n]["text"], language) for n in family]
        original = next(i for i, n in enumerate(family) if rows[n]["kind"] == "original")
        for i, number in enumerate(family):
            if i == original:
                continue
            s = jaccard(sets[i], sets[original])
            band = (
                "≥ 0.8"
                if s >= 0.8
                else "0.7-0.8"
                if s >= 0.7
                else "0.5-0.7"
                if s >= 0.5
                else "< 0.5"
            )
            together = clusters[number] == clusters[family[original]]
            for key in (f"Jaccard {band}", rows[number]["kind"]):
                total[key] += 1
                found[key] += together
    for key in [*sorted(k for k in total if k.startswith("Jaccard")), *KINDS]:
        print(f"  recall {key:>16}: {found[key] / max(total[key], 1):.4f}  of {total[key]:,} pairs")
    removed = wrong = 0
    worst: list[float] = []
    for kept, cluster in members.items():
        for number in cluster:
            if number == kept:
                continue
            removed += 1
            if rows[number]["family"] == rows[kept]["family"]:
                continue
            own = shingles(rows[number]["text"], language)
            best = max(
                jaccard(own, shingles(rows[n]["text"], language)) for n in cluster if n != number
            )
            wrong += best < _DUPLICATE
            if best < _DUPLICATE:
                worst.append(best)
    spread = f", their similarity {min(worst):.2f} to {max(worst):.2f}" if worst else ""
    print(f"  removed {removed:,}; planted or truly similar {1 - wrong / max(removed, 1):.4f} "
          f"({wrong} are not{spread})")  # fmt: skip
