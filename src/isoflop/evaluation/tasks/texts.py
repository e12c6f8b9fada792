"""Texts written after prompts of a file, beside their references: chrF, BLEU, ROUGE, BERTScore.

Not for answers that are right or wrong (`multiple_choice`, `cloze`).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.core.errors import DataError
from isoflop.evaluation.bert_score import bert_score, open_encoder
from isoflop.evaluation.generation import generate_until
from isoflop.evaluation.likelihood import Subject
from isoflop.evaluation.overlap import bleu, chrf, rouge
from isoflop.evaluation.task import Outcome, Record, Settings
from isoflop.evaluation.tasks.files import read_text

MAX_NEW_TOKENS = 128
STOP = ("\n",)
_CHINESE = re.compile("[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Wanted:
    """One row of the file."""

    prompt: str
    references: tuple[str, ...]


def written_texts(subject: Subject, settings: Settings) -> Outcome:
    """Greedy texts up to the end of the line; the score is the mean chrF, as a share. Beside it
    BLEU of the corpus, ROUGE-L, and with an encoder BERTScore's F1.

    Raises:
        DataError: A row has no prompt or reference; the line is named.
        ArtifactError: The encoder cannot be read.
    """
    path = settings.path or Path()
    rows = _rows(path)[: settings.limit]
    states = None if settings.encoder is None else open_encoder(settings.encoder)
    most = min(MAX_NEW_TOKENS, subject.decoder.config.max_seq_len // 2)
    written = generate_until(subject, [row.prompt for row in rows], STOP, most)
    texts = [one.text.strip() for (one,) in written]
    references = [row.references for row in rows]
    near = None if states is None else bert_score(texts, references, states)
    records = []
    for i, (row, text) in enumerate(zip(rows, texts, strict=True)):
        detail: dict[str, Any] = {
            "prompt": row.prompt, "references": list(row.references), "text": text,
            "rouge_l": max(rouge(text, each, "L") for each in row.references),
            "finish": written[i][0].finish, "truncated": written[i][0].truncated,
        }  # fmt: skip
        if near is not None:
            detail |= {"bert_precision": near[i].precision, "bert_recall": near[i].recall,
                       "bert_f1": near[i].f1}  # fmt: skip
        records.append(Record(str(i), chrf([text], [row.references]) / 100, detail=detail))
    chinese = any(_CHINESE.search(each) for row in rows for each in row.references)
    extra: dict[str, Any] = {
        "bleu": bleu(texts, references, "zh" if chinese else "13a"),
        "chrf_of_corpus": chrf(texts, references),
        "rouge_l": _mean(records, "rouge_l"),
    }
    if near is not None:
        extra["bert_f1"] = _mean(records, "bert_f1")
    return Outcome("chrF", tuple(records), extra=extra)


def _mean(records: list[Record], key: str) -> float:
    return math.fsum(record.detail[key] for record in records) / len(records)


def _rows(path: Path) -> list[Wanted]:
    found = []
    for line, content in enumerate(read_text(path).split("\n"), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
            said = row["references"] if "references" in row else [row["reference"]]
            wanted = Wanted(str(row["prompt"]), tuple(map(str, said)))
        except (json.JSONDecodeError, KeyError, TypeError):
            wanted = Wanted("", ())
        if not wanted.prompt or not wanted.references:
            raise DataError(
                "not a prompt with references",
                where=f"{path}:{line}",
                fix='A row is {"prompt": …, "references": [… , …]}',
            )
        found.append(wanted)
    if not found:
        raise DataError("there are no prompts", where=str(path))
    return found
