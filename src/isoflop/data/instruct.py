"""Makes an instruction set from a recipe: rows read, mined and generated, checked, split, written.

Not for the forms of rows (`instruct_rows.py`) nor for what generated problems ask
(`instruct_problems.py`, `instruct_tasks.py`). All rows are held in memory.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from isoflop.core.artifact import build_directory, read_json, read_manifest, write_json
from isoflop.core.artifact import write_manifest as seal
from isoflop.core.errors import DataError, RecipeError
from isoflop.core.hardware import machine
from isoflop.core.recipe import to_dict
from isoflop.data.answers import is_right
from isoflop.data.calculator import calculate
from isoflop.data.decontaminate import find_items, read_evaluation_index
from isoflop.data.endpoint import Endpoint
from isoflop.data.instruct_asked import asked_rows
from isoflop.data.instruct_code import CODE
from isoflop.data.instruct_problems import NUMERIC, Generator, Problem
from isoflop.data.instruct_quality import flaw
from isoflop.data.instruct_recipe import InstructRecipe, InstructSource
from isoflop.data.instruct_rows import BadRow, Kind, checked, question_text, row_text
from isoflop.data.instruct_tables import Place, check_templates, mined, read_rows
from isoflop.data.instruct_tasks import TASKS

KIND = "instruct"
SUMMARY, BAD_ROWS, REPLIES = "summary.json", "bad_rows.jsonl", "replies.jsonl"
SplitName = Literal["train", "held_out"]
PROBLEMS: Mapping[str, Generator] = {**NUMERIC, **TASKS, **CODE}
"""Kind of problem → its generator."""
_TRIES_A_PROBLEM = 200
"""Draws in a row without a new problem before the problems of a source count as used up."""
_SHOWN_BAD_ROWS = 5


@dataclass(frozen=True)
class InstructSet:
    """A finished instruction set."""

    directory: Path
    summary: Mapping[str, Any]
    """`{rows: {kind: {split: n}}, sources: {name: {kept, dropped: {reason: n}}}, families}`."""

    def rows(self, kind: Kind, split: SplitName) -> list[dict[str, Any]]:
        """The rows of a kind and split; none if there is no such file."""
        path = self.directory / file_name(kind, split)
        if not path.exists():
            return []
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]


def file_name(kind: Kind, split: SplitName) -> str:
    """Where rows of a kind and split lie in the directory."""
    return f"{kind}_{split}.jsonl"


def open_set(directory: Path) -> InstructSet:
    """Open what `instruct` wrote.

    Raises:
        ArtifactError: It is missing, unfinished or damaged.
    """
    read_manifest(directory, KIND, verify=True)
    return InstructSet(directory, read_json(directory / SUMMARY))


def instruct(recipe: InstructRecipe, out: Path) -> InstructSet:
    """Make an instruction set and write it, whole or not at all.

    Raises:
        RecipeError: A kind of problem is unknown, or a template cannot be filled.
        DataError: A file cannot be read, no row is left, or a row is bad and the recipe says to
            stop; the rows are named by file and line.
    """
    _check(recipe)
    gathered = _Gathered()
    journal = out.with_name(f".{out.name}.{REPLIES}")
    _recall(out / REPLIES, journal)
    for source in recipe.sources:
        for place, made in _rows(source, recipe.seed, journal):
            gathered.add(place, made, recipe, source.kind != "generated")
    if gathered.bad and recipe.on_bad_row == "stop":
        raise _stopped(gathered.bad)
    splits = _split(recipe, gathered)
    if not any(splits["train"]):
        raise DataError(
            "no row is left for training",
            where=", ".join(source.label for source in recipe.sources),
            fix="See what was dropped and why: " + _counted(gathered),
        )
    with build_directory(out) as aside:
        files: dict[tuple[Kind, SplitName], list[str]] = {}
        for split, rows in splits.items():
            for each in rows:
                line = json.dumps(each.row, ensure_ascii=False) + "\n"
                files.setdefault((each.kind, split), []).append(line)
        for (kind, split), lines in files.items():
            (aside / file_name(kind, split)).write_text("".join(lines), encoding="utf-8")
        bad = [json.dumps(row, ensure_ascii=False) + "\n" for row in gathered.bad]
        (aside / BAD_ROWS).write_text("".join(bad), encoding="utf-8")
        write_json(aside / SUMMARY, _summary(gathered, splits))
        if journal.exists():
            shutil.copyfile(journal, aside / REPLIES)
        seal(
            aside, kind=KIND, config=to_dict(recipe), machine=machine(), seed=recipe.seed,
            inputs=[source.path for source in recipe.sources if source.path is not None],
        )  # fmt: skip
    journal.unlink(missing_ok=True)
    return open_set(out)


def _recall(replies: Path, journal: Path) -> None:
    """Begin with the replies of the set to be replaced, unless a killed run left its own."""
    if replies.exists() and not journal.exists():
        shutil.copyfile(replies, journal)


# --- rows ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    kind: Kind
    family: str
    source: str
    row: dict[str, Any]


@dataclass
class _Gathered:
    """Good rows, and the bad ones by file and line."""

    rows: list[_Row] = field(default_factory=list)
    bad: list[dict[str, Any]] = field(default_factory=list)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    seen: set[bytes] = field(default_factory=set)

    def add(self, place: Place, made: Any, recipe: InstructRecipe, look: bool) -> None:
        """Check a row and keep it, or its place and the reason."""
        try:
            if isinstance(made, BadRow):
                raise made
            kind, row = checked(made)
            text = row_text(row)
            if len(text) > recipe.max_characters:
                raise BadRow("too long")
            judged = look and recipe.drop_flawed and kind in ("supervised", "preference")
            if judged and (found := flaw(row)) is not None:
                raise BadRow(found)
            key = hashlib.sha256(f"{kind}\n{' '.join(text.split())}".encode()).digest()
            if key in self.seen:
                raise BadRow("duplicate")
            family = str(row.get("family") or question_text(row))
        except BadRow as reason:
            where = {"source": place.source, "file": place.file, "line": place.line}
            self.bad.append({**where, "reason": str(reason)})
            self.drop(place.source, str(reason))
            return
        self.seen.add(key)
        self.rows.append(_Row(kind, family, place.source, {**row, "source": place.source}))

    def drop(self, source: str, reason: str) -> None:
        """Count a row that is not kept."""
        self.dropped.setdefault(source, Counter())[reason] += 1


def _rows(source: InstructSource, seed: int, journal: Path) -> Iterator[tuple[Place, Any]]:
    if source.kind == "generated":
        for number, row in enumerate(_generated(source, seed), 1):
            yield Place(source.label, source.label, number), row
        return
    if source.endpoint.url:
        endpoint = Endpoint(source.endpoint, journal)
        for number, row in asked_rows(source, endpoint, seed):
            where = source.endpoint.url if source.kind == "self-instruct" else str(source.path)
            formed = row if isinstance(row, BadRow) else _formed(source, row)
            yield Place(source.label, where, number), formed
        return
    for line, row in read_rows(source):
        place = Place(source.label, str(source.path), line)
        if source.kind == "jsonl" or isinstance(row, BadRow):
            yield place, row
            continue
        try:
            pair = mined(source, row)
            yield place, _formed(source, pair)
            rest = {key: pair[key] for key in ("prompt", "answer", "family") if key in pair}
            yield place, rest
        except BadRow as reason:
            yield place, reason


def _formed(source: InstructSource, pair: dict[str, Any]) -> dict[str, Any]:
    """A prompt and a completion in the source's form."""
    if source.form == "prompt-completion":
        return pair
    rest = {key: value for key, value in pair.items() if key not in ("prompt", "completion")}
    messages = [
        {"role": "user", "content": pair["prompt"]},
        {"role": "assistant", "content": pair["completion"]},
    ]
    return {"messages": messages, **rest}


def _generated(source: InstructSource, seed: int) -> Iterator[dict[str, Any]]:
    """Supervised and verifiable rows of each problem, then the pairs."""
    problems = [*generate(source, seed)]
    for problem in problems:
        checked_by = {"tests": problem.tests} if problem.tests else {"answer": problem.answer}
        about = {
            **checked_by, "problem": problem.kind, "family": problem.family,
            "language": problem.language,
        }  # fmt: skip
        if source.work == "calculator":
            yield {"messages": _calculated(problem), **about}
        else:
            pair = {"prompt": problem.question, "completion": problem.solution(), **about}
            yield _formed(source, pair)
        yield {"prompt": problem.question, **about}
    for problem in problems[: source.preferences]:
        chosen, rejected = problem.solution(), problem.solution(problem.wrong)
        if not problem.tests and is_right(rejected, problem.answer):
            continue  # the checker has the last word
        yield {
            "prompt": problem.question, "chosen": chosen, "rejected": rejected,
            "problem": problem.kind, "family": problem.family, "language": problem.language,
        }  # fmt: skip


def _calculated(problem: Problem) -> list[dict[str, Any]]:
    """A problem solved by a call of the calculator."""
    arguments = {"expression": problem.expression}
    call = {"type": "function", "function": {"name": "calculator", "arguments": arguments}}
    said = (
        f"答案是{problem.answer}。"
        if problem.language == "zh"
        else f"The answer is {problem.answer}."
    )
    return [
        {"role": "user", "content": problem.question},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": calculate(problem.expression)},
        {"role": "assistant", "content": said},
    ]


def generate(source: InstructSource, seed: int) -> Iterator[Problem]:
    """Different problems of a source, kinds and languages in turn; a pure function of the two.

    They end early when nothing new has come up for long.
    """
    kinds = source.problems or tuple(PROBLEMS)
    asked: set[str] = set()
    idle = number = 0
    while len(asked) < source.count and idle < _TRIES_A_PROBLEM:
        # Seeding with a string hashes it with SHA-512, whatever the platform.
        draw = random.Random(f"{seed}/{source.label}/{number}")
        kind = kinds[number % len(kinds)]
        language = source.languages[number // len(kinds) % len(source.languages)]
        problem = PROBLEMS[kind](draw, language, draw.randint(*source.difficulty))
        number += 1
        idle += 1
        if problem.question not in asked:
            asked.add(problem.question)
            idle = 0
            yield problem


# --- splitting -----------------------------------------------------------------------------


def is_held_out(family: str, seed: int, fraction: float) -> bool:
    """Whether a family is kept out of training: by its hash alone, whatever else there is."""
    digest = hashlib.sha256(f"{seed}/{family}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _split(recipe: InstructRecipe, gathered: _Gathered) -> dict[SplitName, list[_Row]]:
    splits: dict[SplitName, list[_Row]] = {"train": [], "held_out": []}
    for each in gathered.rows:
        out = each.row.get("problem") in recipe.held_out_problems or is_held_out(
            each.family, recipe.seed, recipe.held_out_fraction
        )
        splits["held_out" if out else "train"].append(each)
    # A row without a family of its own may ask what a held-out one asks.
    asked = {question_text(each.row) for each in splits["held_out"]}
    kept = []
    for each in splits["train"]:
        if question_text(each.row) in asked:
            gathered.drop(each.source, "its question is held out")
        else:
            kept.append(each)
    splits["train"] = _without_evaluation_items(recipe, gathered, kept)
    return splits


def _without_evaluation_items(
    recipe: InstructRecipe, gathered: _Gathered, rows: list[_Row]
) -> list[_Row]:
    config = recipe.decontaminate
    if not config.tasks:
        return rows
    index = read_evaluation_index(config)
    found = find_items([row_text(each.row) for each in rows], index, config.overlap).documents
    for number in found:
        gathered.drop(rows[number].source, "evaluation item")
    if config.action == "report":
        return rows
    return [each for number, each in enumerate(rows) if number not in found]


def _check(recipe: InstructRecipe) -> None:
    names = {name for source in recipe.sources for name in source.problems}
    for name in sorted((names | set(recipe.held_out_problems)) - set(PROBLEMS)):
        raise RecipeError(
            f"there is no kind of problem `{name}`",
            where="instruct recipe",
            fix=f"There are {', '.join(PROBLEMS)}",
        )
    for source in recipe.sources:
        check_templates(source)
        if source.work == "calculator":
            for name in source.problems or tuple(PROBLEMS):
                if not PROBLEMS[name](random.Random(0), "en", 1).expression:
                    raise RecipeError(
                        f"`{name}` is no calculation for work = calculator",
                        where=source.label,
                        fix="Name the kinds that are under problems",
                    )


def _stopped(bad: list[dict[str, Any]]) -> DataError:
    shown = [f"{row['file']}:{row['line']}: {row['reason']}" for row in bad[:_SHOWN_BAD_ROWS]]
    more = f"; and {len(bad) - len(shown)} more" if len(bad) > len(shown) else ""
    return DataError(
        f"{len(bad)} rows cannot be used: {'; '.join(shown)}{more}",
        where="instruct recipe",
        fix='Mend them, or say on_bad_row = "skip"',
    )


def _counted(gathered: _Gathered) -> str:
    counts: Counter[str] = sum(gathered.dropped.values(), Counter())
    return ", ".join(f"{reason} {n}" for reason, n in sorted(counts.items())) or "nothing"


def _summary(gathered: _Gathered, splits: Mapping[SplitName, list[_Row]]) -> dict[str, Any]:
    rows: dict[str, dict[str, int]] = {}
    kept: Counter[str] = Counter()
    families: dict[str, int] = {}
    for split, members in splits.items():
        families[split] = len({each.family for each in members})
        for each in members:
            kept[each.source] += 1
            of_kind = rows.setdefault(each.kind, {"train": 0, "held_out": 0})
            of_kind[split] += 1
    names = sorted({*kept, *gathered.dropped})
    sources = {
        name: {"kept": kept[name], "dropped": dict(sorted(gathered.dropped.get(name, {}).items()))}
        for name in names
    }
    return {"rows": rows, "sources": sources, "families": families}
