"""Word problems answered directly and step by step, and what sampled answers agree on.

Not for bare sums (`arithmetic.py`). The problems are those of `data/word_problems.py`, drawn with a
seed of their own; a model trained on that source knows their form.
"""

from __future__ import annotations

import math
import re

from isoflop.data.word_problems import word_problem
from isoflop.evaluation.generation import Sampling, Written, generate_until
from isoflop.evaluation.likelihood import Subject
from isoflop.evaluation.metrics import majority_at_k, pass_at_k
from isoflop.evaluation.task import Outcome, Record, Settings

PROBLEMS = 50
"""Of each language."""
SAMPLES = 8
TEMPERATURE = 0.7
MAX_NEW_TOKENS = 64
_AWAY = 1_000_003
"""Added to the seed, so that no data recipe's seed draws the same problems."""
_ANSWER = re.compile(r"(?:answer is|答案是)\s*[:：]?\s*(-?\d+)")


def word_problems(subject: Subject, settings: Settings) -> Outcome:
    """The score is the share answered rightly step by step, greedily. Beside it: the same without
    the step, and pass@k and maj@k of eight samples, over all subsets."""
    n = 2 * (settings.limit or PROBLEMS)
    problems = [word_problem(settings.seed + _AWAY, i) for i in range(n)]
    prompts, golds = [], []
    for text, _ in problems:
        end = re.search(r"\n(?:Answer:|答案：)", text)
        prompts.append(text[: end.end() if end else len(text)])
        golds.append(found_answer(text) or "")
    most = min(MAX_NEW_TOKENS, subject.decoder.config.max_seq_len // 2)
    stop = ("\n",)
    stepped = generate_until(subject, prompts, stop, most)
    leads = [" The answer is" if language == "en" else "答案是" for _, language in problems]
    direct = generate_until(
        subject, [a + b for a, b in zip(prompts, leads, strict=True)], stop, most
    )
    sampling = Sampling(TEMPERATURE, seed=settings.seed)
    sampled = generate_until(subject, prompts, stop, most, sampling, samples=SAMPLES)
    records = []
    for i, (_, language) in enumerate(problems):
        written = (stepped[i][0], direct[i][0])
        answers = (found_answer(written[0].text), found_answer(leads[i] + written[1].text))
        for way, one, answer in zip(("step by step", "direct"), written, answers, strict=True):
            records.append(
                _record(f"{way}/{i}", (f"{language}, {way}",), prompts[i], one, answer, golds[i])
            )
    votes = [[found_answer(one.text) for one in each] for each in sampled]
    ks = [k for k in (1, 2, 4, 8) if k <= SAMPLES]
    right = [
        sum(answer == gold for answer in each) for each, gold in zip(votes, golds, strict=True)
    ]
    return Outcome(
        "exact match",
        tuple(records),
        chance=0.0,
        extra={
            "direct": math.fsum(r.score for r in records if not r.counts) / n,
            "pass_at_k": {
                str(k): math.fsum(pass_at_k(SAMPLES, c, k) for c in right) / n for k in ks
            },
            "majority_at_k": {
                str(k): math.fsum(
                    majority_at_k(each, gold, k) for each, gold in zip(votes, golds, strict=True)
                ) / n
                for k in ks
            },
        },
    )  # fmt: skip


def found_answer(text: str) -> str | None:
    """The number that the text calls its answer; the first, for later ones follow a new problem."""
    said = _ANSWER.search(text)
    return said[1] if said else None


def _record(
    name: str, groups: tuple[str, ...], prompt: str, one: Written, answer: str | None, gold: str
) -> Record:
    return Record(
        name,
        float(answer == gold),
        groups=groups,
        counts=name.startswith("step"),
        detail={"prompt": prompt, "gold": gold, "text": one.text, "answer": answer,
                "finish": one.finish, "truncated": one.truncated},
    )  # fmt: skip
