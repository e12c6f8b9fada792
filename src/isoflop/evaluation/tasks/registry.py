"""The built-in tasks by name; not for their items."""

from __future__ import annotations

from isoflop.core.errors import RecipeError
from isoflop.evaluation.task import Task
from isoflop.evaluation.tasks import documents, in_context, sequences
from isoflop.evaluation.tasks.arithmetic import arithmetic
from isoflop.evaluation.tasks.choice import multiple_choice
from isoflop.evaluation.tasks.cloze import cloze
from isoflop.evaluation.tasks.code import code
from isoflop.evaluation.tasks.instructions import instructions
from isoflop.evaluation.tasks.minimal_pairs import minimal_pairs
from isoflop.evaluation.tasks.reasoning import word_problems
from isoflop.evaluation.tasks.texts import written_texts

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "bits_per_byte", "bits per byte of a corpus's held-out split or of texts, by group",
            documents.bits_per_byte, "needs a file",
        ),
        Task(
            "perplexity", "a file in WikiText's form: bits per byte, perplexity per word",
            documents.perplexity, "needs a file",
        ),
        Task(
            "minimal_pairs", "the right one of two sentences, en and zh; or BLiMP's JSONL",
            minimal_pairs, "may take a file",
        ),
        Task(
            "cloze", "a place the story has named, en and zh; or LAMBADA's JSONL",
            cloze, "may take a file",
        ),
        *(
            Task(name, f"in context, k = 0 to 16 examples: {about}", in_context.runner(name))
            for name, (_, about) in in_context.RULES.items()
        ),
        Task(
            "icl_score", "nats lost late in a text less those early (Olsson et al. 2022)",
            sequences.icl_score, "may take a file",
        ),
        Task("induction", "random tokens repeated: how many are copied", sequences.induction),
        Task("arithmetic", "sums and differences by digits and carries", arithmetic),
        Task(
            "word_problems", "step by step and directly, en and zh; pass@k and maj@k of 8 samples",
            word_problems,
        ),
        Task("code", "38 Python functions judged by their tests, en and zh; pass@k of 8", code),
        Task(
            "instructions", "19 rules a program can check, en and zh, strict and loose",
            instructions,
        ),
        Task(
            "multiple_choice", "questions with lettered options: MMLU's or C-Eval's CSV, JSONL",
            multiple_choice, "needs a file",
        ),
        Task(
            "texts", "texts beside references, JSONL: chrF, BLEU, ROUGE-L, BERTScore by --encoder",
            written_texts, "needs a file",
        ),
    )
}  # fmt: skip


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        RecipeError: There is none; the nearest is named.
    """
    if name in TASKS:
        return TASKS[name]
    import difflib

    near = difflib.get_close_matches(name, TASKS, n=1)
    fix = f"Did you mean `{near[0]}`?" if near else "`isoflop eval --list` lists them"
    raise RecipeError(f"there is no task `{name}`", where="--tasks", fix=fix)
