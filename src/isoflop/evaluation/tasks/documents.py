"""How many bits whole texts cost: per byte by language and source of a corpus's held-out split or
of files, and word perplexity of files in WikiText's form.

Not for questions. No text is cut to the window and none joined to another.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from isoflop.core.artifact import MANIFEST, read_manifest
from isoflop.core.errors import DataError
from isoflop.data.corpus import read_row_groups, split_path
from isoflop.data.parts import part_paths
from isoflop.evaluation.likelihood import Subject, loglikelihood_rolling
from isoflop.evaluation.task import Outcome, Record, Settings
from isoflop.evaluation.tasks.files import read_text

HELD_OUT = "held_out"
_TITLE = re.compile(r"^ = [^=](?:.*[^=])? = *$", re.MULTILINE)


@dataclass(frozen=True)
class Text:
    """One document."""

    id: str
    text: str
    groups: tuple[str, ...]


def bits_per_byte(subject: Subject, settings: Settings) -> Outcome:
    """Bits of all documents over their bytes: the less, the better.

    Raises:
        DataError: There is no text.
    """
    texts = [text for text in read_documents(settings.path or Path()) if text.text]
    texts = texts[: settings.limit]
    records = _records(subject, texts)
    if not records:
        raise DataError("there is no text to score", where=str(settings.path))
    return Outcome("bits per byte", records, higher_is_better=False)


def perplexity(subject: Subject, settings: Settings) -> Outcome:
    """A file in WikiText's form, article by article: bits per byte, and perplexity per word and
    per token. The text is taken as it stands in the file, `<unk>` and spaces before full stops
    included; words are what white space parts.

    Raises:
        DataError: There is no text.
    """
    path = settings.path or Path()
    texts = [
        Text(f"{path.stem}/{i}", article, ()) for i, article in enumerate(articles(read_text(path)))
    ][: settings.limit]
    records = _records(subject, texts)
    if not records:
        raise DataError("there is no text to score", where=str(path))
    nats = math.fsum(record.score for record in records) * math.log(2)
    n_words = sum(len(text.text.split()) for text in texts)
    n_tokens = sum(record.detail["tokens"] for record in records)
    return Outcome(
        "bits per byte",
        records,
        higher_is_better=False,
        extra={
            "word_perplexity": _exp(nats / n_words),
            "token_perplexity": _exp(nats / n_tokens),
            "words": n_words,
            "tokens": n_tokens,
        },
    )


def articles(text: str) -> list[str]:
    """A text cut before each line ` = Title = `; all of it where there is none."""
    starts = [found.start() for found in _TITLE.finditer(text)]
    cuts = [0, *[s for s in starts if s], len(text)]
    parts = [text[a:b] for a, b in itertools.pairwise(cuts)]
    return [part for part in parts if part.strip()]


def _exp(nats: float) -> float | None:
    """None where the model finds the text so unlikely that the number does not exist."""
    return math.exp(nats) if nats < 700 else None


def _records(subject: Subject, texts: Sequence[Text]) -> tuple[Record, ...]:
    found = loglikelihood_rolling(subject, [text.text for text in texts])
    return tuple(
        Record(
            text.id,
            -each.logprob / math.log(2),
            weight=float(each.n_bytes),
            groups=text.groups,
            detail={"logprob": each.logprob, "bytes": each.n_bytes,
                    "tokens": len(each.token_logprobs)},
        )
        for text, each in zip(texts, found, strict=True)
        if each.n_bytes
    )  # fmt: skip


# --- reading -------------------------------------------------------------------------------


def read_documents(path: Path) -> Iterator[Text]:
    """The held-out split of a corpus by language and source; else files of text, one document
    each, or JSONL rows `{text, language, source}`, by the name of the file or what they say.

    Raises:
        DataError: The path holds no text; a row has none.
    """
    if (path / MANIFEST).exists():
        read_manifest(path, "corpus")
        yield from _held_out(path)
        return
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file.suffix == ".jsonl":
            yield from _rows(file)
        else:
            yield Text(file.name, read_text(file), (file.stem,))


def _held_out(corpus: Path) -> Iterator[Text]:
    number = 0
    for part in part_paths(split_path(corpus, HELD_OUT)):
        for table in read_row_groups(part, ["text", "language", "source"]):
            for row in table.to_pylist():
                groups = (str(row["language"]), f"source {row['source']}")
                yield Text(str(number), row["text"], groups)
                number += 1


def _rows(file: Path) -> Iterator[Text]:
    for line, content in enumerate(read_text(file).splitlines(), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
            text = row["text"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise DataError(
                "not a document", where=f"{file}:{line}", fix='A row is {"text": …}'
            ) from None
        said = [str(row[key]) for key in ("language", "source") if row.get(key)]
        yield Text(f"{file.name}/{line}", str(text), tuple(said) or (file.stem,))
