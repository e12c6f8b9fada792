"""Texts to measure filters on, and how fast a step goes through them; for `data_clean.py` and
`data_filters.py`. Not for judging what the filters say.
"""

from __future__ import annotations

import ast
import json
import random
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from peers.planted_text import english_files, made_up_chinese

LEAST_CHARACTERS = 500
"""Of a docstring that counts as a document."""
_PASSES = 3


def texts_of(documents: Path | None, chinese: bool, megabytes: float) -> list[str]:
    """The documents of a JSONL file, whose lines hold `{"text": …}` or a string.

    Without a file, English prose of this Python installation (manuals, descriptions of packages,
    long docstrings), or Chinese made up of random words.
    """
    if documents is not None:
        rows = [json.loads(line) for line in documents.read_text("utf-8").splitlines()]
        return [row if isinstance(row, str) else row["text"] for row in rows]
    limit = int(megabytes * 1e6)
    if chinese:
        return list(made_up_chinese(limit, random.Random(0)))
    found, size = [], 0
    for text in english_files(1 << 40):
        for part in _prose(text):
            found.append(part)
            size += len(part.encode())
        if size > limit:
            break
    return found


def _prose(text: str) -> Iterator[str]:
    """The long docstrings of a module; a text that is no program, whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            if "{" not in text[:2000]:  # neither C nor a style sheet
                yield text
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            said = ast.get_docstring(node)
            if said and len(said) >= LEAST_CHARACTERS:
                yield said


def megabytes_per_cpu_second(step: Callable[[str], object], texts: list[str]) -> float:
    """The best of three passes, by CPU time of this process."""
    size = sum(len(text.encode()) for text in texts) / 1e6
    best = 0.0
    for _ in range(_PASSES):
        start = time.process_time()
        for text in texts:
            step(text)
        best = max(best, size / (time.process_time() - start))
    return best
