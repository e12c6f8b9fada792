"""Small Python functions to be written, judged by running them; pass@k over all subsets.

Not for running them safely (`core/sandbox`). A function counts as right if it passes its tests in
a process without network or files, within limits of time and memory. The problems are in
`code_problems.txt`, as Python.
"""

from __future__ import annotations

import ast
import math
import textwrap
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from isoflop.core.sandbox import Limits, protections, run_programs
from isoflop.evaluation.generation import Sampling, Written, generate_until
from isoflop.evaluation.likelihood import Subject
from isoflop.evaluation.metrics import pass_at_k
from isoflop.evaluation.task import Outcome, Record, Settings

SAMPLES = 8
TEMPERATURE = 0.8
MAX_NEW_TOKENS = 128
STOP = ("\ndef ", "\nclass ", "\nif ", "\nprint", "\n#", "\n@", "\n```")
"""What begins after the function's body: the rest is not run."""
LIMITS = Limits(seconds=3.0, memory_bytes=256 * 2**20)


@dataclass(frozen=True)
class Problem:
    """One function to be written."""

    name: str
    prompt: str
    """Its head and description, as the model is shown them."""
    language: str
    """Of the description: `en` or `zh`."""
    body: str = field(repr=False)
    """A right one: what the tests are tested with."""
    tests: str = field(repr=False)
    """Assertions that hold for every right body."""

    def program(self, body: str) -> str:
        """What is run: head, the body written, and the tests."""
        return f"{self.prompt}{body}\n\n{self.tests}\n"


@cache
def problems() -> tuple[Problem, ...]:
    """All functions that can be asked for."""
    lines = Path(__file__).with_name("code_problems.txt").read_text(encoding="utf-8").splitlines()
    functions = [n for n in ast.parse("\n".join(lines)).body if isinstance(n, ast.FunctionDef)]
    found = []
    for asked, test in zip(functions[::2], functions[1::2], strict=True):
        described = asked.body[0].end_lineno or 0
        prompt = "\n".join(lines[asked.lineno - 1 : described]) + "\n"
        body = "\n".join(lines[described : asked.end_lineno])
        tests = textwrap.dedent("\n".join(lines[test.lineno : test.end_lineno]))
        language = "en" if (ast.get_docstring(asked) or "").isascii() else "zh"
        found.append(Problem(asked.name, prompt, language, body, tests))
    return tuple(found)


def code(subject: Subject, settings: Settings) -> Outcome:
    """The score is the share of functions written greedily that pass their tests. Beside it
    pass@k of eight samples (Chen et al. 2021)."""
    asked = problems()[: settings.limit]
    prompts = [problem.prompt for problem in asked]
    most = min(MAX_NEW_TOKENS, subject.decoder.config.max_seq_len // 2)
    greedy = [each[0] for each in generate_until(subject, prompts, STOP, most)]
    sampling = Sampling(TEMPERATURE, seed=settings.seed)
    sampled = generate_until(subject, prompts, STOP, most, sampling, samples=SAMPLES)
    texts = [
        [one, *samples] for one, samples in zip(greedy, sampled, strict=True)
    ]  # the greedy one first
    verdicts = iter(
        run_programs(
            [
                problem.program(one.text)
                for problem, each in zip(asked, texts, strict=True)
                for one in each
            ],
            LIMITS,
        )
    )
    records, right = [], []
    for problem, each in zip(asked, texts, strict=True):
        ran = [next(verdicts) for _ in each]
        right.append(sum(one.ok for one in ran[1:]))
        records.append(_record(problem, each[0], ran[0].ok, ran[0].status, ran[0].error))
    ks = [k for k in (1, 2, 4, 8) if k <= SAMPLES]
    return Outcome(
        "functions that pass their tests",
        tuple(records),
        chance=0.0,
        extra={
            "pass_at_k": {
                str(k): math.fsum(pass_at_k(SAMPLES, c, k) for c in right) / len(asked) for k in ks
            },
            "contained_by": list(protections()),
        },
    )


def _record(problem: Problem, one: Written, ok: bool, status: str, error: str) -> Record:
    return Record(
        problem.name,
        float(ok),
        groups=(problem.language,),
        detail={
            "prompt": problem.prompt, "text": one.text, "status": status, "error": error,
            "finish": one.finish, "truncated": one.truncated,
        },
    )  # fmt: skip
