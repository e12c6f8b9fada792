"""What an instruction set is made from, as a recipe file spells it; not for making it.

The attribute docstrings are the command line's help.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isoflop.core.errors import RecipeError
from isoflop.data.duplicates_recipe import DecontaminateConfig
from isoflop.data.endpoint import EndpointConfig, endpoint_problems

InstructKind = Literal[
    "jsonl", "question-answers", "generated", "self-instruct", "back-translation"
]
ASKED = ("self-instruct", "back-translation")
"""Kinds whose rows an endpoint writes."""


@dataclass(frozen=True)
class InstructSource:
    """One source of rows (a `[[sources]]` table)."""

    kind: InstructKind
    """jsonl: rows in one of the forms, written by hand or elsewhere; question-answers: a table
    (JSONL, Parquet) whose columns are named; generated: problems made by rule; self-instruct: new
    tasks asked of an endpoint, after the examples of a file of rows; back-translation:
    instructions asked of an endpoint for the `text` of each row of a file."""
    name: str | None = None
    """Name of the source in the rows and the summary; its kind when omitted."""
    path: Path | None = None
    """The file to read (all kinds but generated), relative to the recipe."""
    question: str = "question"
    """Column that holds the question (question-answers)."""
    answer: str = "answer"
    """Column that holds the answer (question-answers)."""
    steps: str | None = None
    """Column that holds the work that leads to it, where there is one (question-answers)."""
    family: str | None = None
    """Column that says which rows belong on one side of the split; the question when omitted."""
    prompt_template: str = "{question}"
    """What the user says; may name any column (question-answers)."""
    completion_template: str = "{answer}"
    """What the assistant says; may name any column, and {steps} (question-answers)."""
    problems: tuple[str, ...] = ()
    """Kinds of problem; all of them when empty (generated)."""
    languages: tuple[Literal["en", "zh"], ...] = ("en", "zh")
    """Languages, drawn evenly (generated)."""
    difficulty: tuple[int, int] = (1, 1)
    """Least and greatest difficulty, 1 to 4: about the digits of the numbers (generated)."""
    work: Literal["written", "calculator"] = "written"
    """How a problem is solved: step by step in words, or by a call of the tool `calculator`
    (generated; with messages as form, for problems that are a calculation)."""
    count: int = 1000
    """Different problems or rows to make, if there are as many (generated, self-instruct,
    back-translation)."""
    form: Literal["messages", "prompt-completion"] = "messages"
    """How supervised rows are written (all kinds but jsonl)."""
    preferences: int = 0
    """Pairs of a right and a wrong solution to write beside them (generated)."""
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    """The model that is asked (self-instruct, back-translation)."""
    most_alike: float = 0.7
    """ROUGE-L with an earlier instruction from which on a new one is dropped (self-instruct)."""
    least_rating: int | None = None
    """Have the endpoint rate each row from 1 to 5 and drop those below (self-instruct,
    back-translation)."""

    @property
    def label(self) -> str:
        """The name under which rows and the summary list this source."""
        return self.name or self.kind


@dataclass(frozen=True)
class InstructRecipe:
    """One instruction set."""

    sources: tuple[InstructSource, ...]
    """Where the rows come from, in order: of equal rows the first is kept."""
    seed: int = 0
    """Fixes the generated problems and the split."""
    held_out_fraction: float = 0.1
    """Share of the problem families that are kept out of training."""
    held_out_problems: tuple[str, ...] = ()
    """Kinds of problem that are kept out of training as a whole."""
    max_characters: int = 20_000
    """Longer rows are left out and counted."""
    drop_flawed: bool = True
    """Leave out answers that repeat themselves or their question, have broken characters, or speak
    of being a language model; generated problems are not looked at."""
    on_bad_row: Literal["skip", "stop"] = "skip"
    """A row that cannot be used: list it and go on, or list all and stop."""
    decontaminate: DecontaminateConfig = field(default_factory=DecontaminateConfig)
    """Evaluation sets whose items are kept out of training."""

    def __post_init__(self) -> None:
        """Check what types alone cannot.

        Raises:
            RecipeError: Lists every impossible value at once.
        """
        problems = [*_problems(self)]
        if problems:
            raise RecipeError("; ".join(problems), where="instruct recipe")


def _problems(recipe: InstructRecipe) -> Iterator[str]:
    if not recipe.sources:
        yield "give at least one [[sources]] table"
    if not 0 <= recipe.held_out_fraction < 1:
        yield f"held_out_fraction = {recipe.held_out_fraction} is outside [0, 1)"
    if recipe.max_characters < 1:
        yield f"max_characters = {recipe.max_characters} must be at least 1"
    if recipe.decontaminate.action == "cut":
        yield "decontaminate.action = cut is for documents: a row is dropped or reported"
    for source in recipe.sources:
        name = f"source {source.label}"
        if (source.path is None) == (source.kind != "generated"):
            word = "needs a path" if source.path is None else "takes no path"
            yield f"{name}: kind {source.kind} {word}"
        low, high = source.difficulty
        if not 1 <= low <= high <= 4:
            yield f"{name}: difficulty {low}–{high} must rise within 1 to 4"
        if source.count < 1 or source.preferences < 0:
            yield f"{name}: count must be at least 1 and preferences at least 0"
        if source.work == "calculator" and source.form != "messages":
            yield f"{name}: calls of a tool need form = messages"
        if bool(source.endpoint.url) != (source.kind in ASKED):
            word = "takes no" if source.endpoint.url else "needs an"
            yield f"{name}: kind {source.kind} {word} endpoint.url"
        if source.endpoint.url:
            yield from (f"{name}: {problem}" for problem in endpoint_problems(source.endpoint))
        if not 0 < source.most_alike <= 1:
            yield f"{name}: most_alike = {source.most_alike} is outside (0, 1]"
        if source.least_rating is not None and not 1 <= source.least_rating <= 5:
            yield f"{name}: least_rating = {source.least_rating} is outside 1 to 5"
        if not source.languages:
            yield f"{name}: no language is given"
