"""What a model draws from its own context: loss late less early in a text, and induction.

Not for rules shown by examples (`in_context.py`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from isoflop.core.errors import DataError
from isoflop.data.word_problems import word_problem
from isoflop.evaluation.likelihood import Ids, Subject, score_ids
from isoflop.evaluation.task import Outcome, Record, Settings
from isoflop.evaluation.tasks.documents import read_documents

TEXTS = 50
SEQUENCES = 50
EARLY, LATE = 50, 500
"""Positions compared where the window has them (Olsson et al. 2022); else a tenth and the end."""
AROUND = 8
"""Positions on either side that are averaged with them."""


def icl_score(subject: Subject, settings: Settings) -> Outcome:
    """Mean loss around a late position of a text less that around an early one, in nats: below 0
    where more context helps. Of a file's documents, or of word problems one after another.

    Raises:
        DataError: No text is as long as the model's window.
    """
    window = subject.decoder.config.max_seq_len
    early, late = (EARLY, LATE) if window >= LATE + AROUND else (window // 10, window - 1 - AROUND)
    texts: list[Ids] = []
    for text in _texts(settings, window):
        ids = subject.tokenizer.encode(text)[:window]
        if len(ids) == window and len(texts) < (settings.limit or TEXTS):
            texts.append(tuple(ids))
    if not texts or early < 1:
        raise DataError(
            f"no text is as long as the window of {window} tokens",
            where=str(settings.path),
            fix="Give longer texts",
        )
    found = score_ids(subject, [((subject.start_id,), ids) for ids in texts])
    records = []
    for number, each in enumerate(found):
        losses = [-logprob for logprob in each.token_logprobs]
        before, after = _around(losses, early), _around(losses, late)
        detail = {"early": before, "late": after}
        records.append(Record(str(number), after - before, detail=detail))
    extra = {"early_position": early, "late_position": late}
    return Outcome("nats", tuple(records), higher_is_better=False, extra=extra)


def _texts(settings: Settings, window: int) -> Sequence[str]:
    if settings.path is not None:
        return [document.text for document in read_documents(settings.path)]
    # A token is seldom longer than these problems' words: some 80 bytes each.
    n = window // 8 + 2
    return [
        "".join(word_problem(settings.seed + 1_000_003, n * i + j)[0] for j in range(n))
        for i in range(settings.limit or TEXTS)
    ]


def _around(losses: Sequence[float], place: int) -> float:
    part = losses[max(0, place - AROUND) : place + AROUND + 1]
    return math.fsum(part) / len(part)


def induction(subject: Subject, settings: Settings) -> Outcome:
    """Random tokens, then the same again: how many of the second copy (its first token aside) the
    model finds likeliest. Only a copying circuit can: chance is one in the vocabulary.
    """
    config = subject.decoder.config
    length = min(64, config.max_seq_len // 2)
    if length < 2:
        raise DataError(f"a window of {config.max_seq_len} has no room for two copies")
    # Half of the ids at least are ordinary tokens; the last ones may be special.
    ordinary = config.vocab_size // 2
    draw = random.Random(f"{settings.seed}/induction")
    copies = [
        tuple(draw.randrange(ordinary) for _ in range(length))
        for _ in range(settings.limit or SEQUENCES)
    ]
    found = score_ids(subject, [((subject.start_id,), (*ids, *ids)) for ids in copies])
    records = []
    for number, each in enumerate(found):
        hits = each.token_hits[length + 1 :]
        first = -math.fsum(each.token_logprobs[:length]) / length
        second = -math.fsum(each.token_logprobs[length + 1 :]) / (length - 1)
        records.append(
            Record(
                str(number), float(sum(hits)), weight=float(len(hits)),
                detail={"loss_first_copy": first, "loss_second_copy": second},
            )
        )  # fmt: skip
    gain = [r.detail["loss_first_copy"] - r.detail["loss_second_copy"] for r in records]
    return Outcome(
        "accuracy per token",
        tuple(records),
        chance=1 / config.vocab_size,
        extra={"nats_saved_in_second_copy": math.fsum(gain) / len(gain)},
    )
