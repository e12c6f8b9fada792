"""What a server serves and within which limits; no torch here, so that `--help` is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from isoflop.core.errors import RecipeError

BLOCK = 32
"""Positions of a block: of memory, of reuse, and of a prompt computed at once."""

SafetyMode = Literal["off", "flag", "redact", "block"]
"""What becomes of what the safety filter finds: nothing, a note, its replacement, an end."""
THRESHOLD = 0.5
"""Risk above which the safety classifier finds a text, when nothing else is said."""
BuiltinTool = Literal["calculator", "python"]
"""Tools that the server runs itself, where a request asks for them."""


@dataclass(frozen=True)
class EngineConfig:
    """How much an engine takes on at once; none of it changes an answer.

    Raises:
        RecipeError: A value is out of its range.
    """

    cache_tokens: int | None = None
    """Positions of key–value memory; None is enough for `most_running` sequences of the model's
    full length, but at most 262,144."""
    token_budget: int = 256
    """Tokens computed in one step."""
    most_running: int = 32
    """Answers under way at once."""
    draft_tokens: int = 3
    """Tokens guessed ahead, by the draft model or by prompt lookup, while few answers run; 0 for
    none."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} = {getattr(self, name)} must be at least {least}"
            for name, least in (
                ("cache_tokens", BLOCK), ("token_budget", 1), ("most_running", 1),
                ("draft_tokens", 0),
            )
            if getattr(self, name) is not None and getattr(self, name) < least
        ]  # fmt: skip
        if problems:
            raise RecipeError("; ".join(problems), where="serve")


@dataclass(frozen=True)
class Settings:
    """How a server treats its clients."""

    name: str | None = None
    """What clients call the model; the directory's name when None."""
    api_key: str | None = None
    """Asked of every client, as `Authorization: Bearer KEY`; nobody is asked when None."""
    most_waiting: int = 256
    """Answers that may wait; beyond them clients are sent away with 429."""
    most_body_bytes: int = 1_000_000
    body_seconds: float = 30.0
    """Time in which a body must have come."""
    reply_seconds: float = 60.0
    """Time in which a client must take each piece of a reply; a slower one is left."""
    tools: tuple[BuiltinTool, ...] = ("calculator",)
    """Tools that requests may have the server run."""
    drain_seconds: int = 60
    """Time that answers under way get after SIGTERM."""
    safety: SafetyMode = "off"
    safety_lists: Path | None = None
    """Folder of category lists; those that come with Isoflop when None."""
    safety_classifier: Path | None = None
    """Directory of a classifier of harmful texts; only lists and personal data count when None."""
    safety_threshold: float = THRESHOLD
    """Risk, 0 to 1, above which the classifier finds a text."""
    audit: Path | None = None
    """File that notes what the safety filter did, by hashes of the texts."""
    feedback: Path | None = None
    """SQLite file for people's ratings, choices and edits; without one there is no `/feedback`."""
    ledger: Path | None = None
    """Ledger for what answers are foretold to cost, and cost."""
    draft_model: Path | None = None
    """Directory of a smaller model with the same tokenizer that guesses ahead; the text itself does
    when None."""
    engine: EngineConfig = field(default_factory=EngineConfig)
