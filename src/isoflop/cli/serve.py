"""`isoflop serve`: a model behind OpenAI's API, with a page to talk to it; not for training."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from isoflop.cli.arguments import Arguments, parse_arguments
from isoflop.core.console import print_result
from isoflop.core.errors import RecipeError
from isoflop.data.extras import require
from isoflop.serving.settings import (
    THRESHOLD,
    BuiltinTool,
    EngineConfig,
    SafetyMode,
    Settings,
)

KEY_VARIABLE = "ISOFLOP_API_KEY"


@dataclass(frozen=True)
class ServeArguments(Arguments):
    """Serve a model: OpenAI's API under /v1, a chat page at /. The environment variable
    ISOFLOP_API_KEY, where set, is the key asked of clients. SIGTERM or Ctrl-C ends it."""

    model: Positional[Path]
    """A model directory: `model/` in that of a demo or a run."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: int = 8000
    """Port to listen on; 0 takes any free one."""
    name: str | None = None
    """What clients call the model; the directory's name otherwise."""
    cache_tokens: int | None = None
    """Positions of key–value memory; enough for all running answers otherwise."""
    token_budget: int = 256
    """Tokens computed in one step; fewer make streams smoother, more make prompts faster."""
    most_running: int = 32
    """Answers under way at once."""
    most_waiting: int = 256
    """Answers that may wait; beyond them clients get 429."""
    draft_tokens: int = 3
    """Tokens guessed ahead while few answers run; 0 for none. No answer depends on it."""
    draft_model: Path | None = None
    """A smaller model of the same tokenizer that guesses ahead; the text so far does otherwise."""
    safety: SafetyMode = "off"
    """What becomes of listed subjects and personal data: off, flag, redact or block."""
    safety_lists: Path | None = None
    """Folder of category lists in place of those that come with Isoflop."""
    safety_classifier: Path | None = None
    """A classifier of harmful texts, as `isoflop data classifier` trains it, that also judges what
    no list spells."""
    safety_threshold: float = THRESHOLD
    """Risk, 0 to 1, above which the classifier has a text blocked, or noted under flag and
    redact."""
    audit: Path | None = None
    """File for a line about each thing the safety filter found, texts as hashes."""
    feedback: Path | None = None
    """SQLite file for ratings, choices and edits of the page."""
    tools: tuple[BuiltinTool, ...] = ("calculator",)
    """Tools that the server runs where a request asks for them: calculator, python. Programs are
    kept from network and files; even so, leave python out where strangers come."""
    ledger: Path | None = None
    """File for the promises of what answers will cost, settled when the server ends."""
    drain_seconds: int = 60
    """Time that answers under way get when the server is told to stop."""


def run(args: list[str]) -> int:
    """Run the command; 0 when it was told to stop, 2 (raised) if it cannot start."""
    arguments = parse_arguments(ServeArguments, args, "serve")
    for module in ("fastapi", "uvicorn", "prometheus_client", "jinja2"):
        require(module, "isoflop serve", "serve", where="isoflop serve")
    from isoflop.serving.costs import lines
    from isoflop.serving.server import listen, serve
    from isoflop.serving.service import open_service

    if not 0 <= arguments.port <= 65_535:
        raise RecipeError(f"{arguments.port} is no port", where="--port")
    settings = Settings(
        name=arguments.name,
        api_key=os.environ.get(KEY_VARIABLE) or None,
        most_waiting=arguments.most_waiting,
        safety=arguments.safety,
        safety_lists=arguments.safety_lists,
        safety_classifier=arguments.safety_classifier,
        safety_threshold=arguments.safety_threshold,
        audit=arguments.audit,
        feedback=arguments.feedback,
        tools=arguments.tools,
        ledger=arguments.ledger,
        drain_seconds=arguments.drain_seconds,
        draft_model=arguments.draft_model,
        engine=EngineConfig(
            cache_tokens=arguments.cache_tokens,
            token_budget=arguments.token_budget,
            most_running=arguments.most_running,
            draft_tokens=arguments.draft_tokens,
        ),
    )
    with listen(arguments.host, arguments.port) as bound:
        service = open_service(arguments.model, settings)

        def ready(address: str) -> None:
            document = {
                "address": address, "model": service.name, "sha256": service.sha256,
                "context": service.engine.max_seq_len,
                "batch_invariant": service.engine.independent, "api_key": bool(settings.api_key),
                "safety": settings.safety, "tools": list(settings.tools),
                "costs": [vars(cost) for cost in service.promises.costs],
            }  # fmt: skip
            foretold = "".join(f"  {line}\n" for line in lines(service.promises.costs))
            text = (
                f"{service.name} (context {service.engine.max_seq_len}) at {address}\n"
                f"  page     {address}/\n"
                f"  API      {address}/v1   (OpenAI clients: base_url)\n"
                f"  metrics  {address}/metrics\n"
                f"  key      {'asked of clients' if settings.api_key else 'none asked'}; "
                f"safety filter {settings.safety}\n"
                f"{foretold}"
                "Ctrl-C ends it."
            )
            print_result(document, text, arguments.json)

        if not service.engine.independent:
            print(
                "warning: on this machine an answer's last bits depend on what runs beside it",
                file=sys.stderr,
            )
        serve(service, bound, ready)
    return 0
