"""Asks a model behind an OpenAI-compatible endpoint, within a budget; not for serving one.

Every reply is written down the moment it comes, so that a run that is killed and started again pays
for nothing twice.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.core.errors import DataError, RecipeError

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""HTTP states that a later try may not meet."""
_LONGEST_WAIT = 60.0
_CHARACTERS_A_TOKEN = 4
"""For the budget, where a server does not say what it used."""


@dataclass(frozen=True)
class EndpointConfig:
    """A server of chat completions (`[sources.endpoint]`; none without a url)."""

    url: str = ""
    """Up to and with the version: `http://localhost:8000/v1`."""
    model: str = ""
    """The name the server knows the model by."""
    key_variable: str | None = None
    """Environment variable that holds the key; none is sent when not given."""
    temperature: float = 0.7
    """Sampling temperature of what is asked."""
    max_tokens: int = 512
    """Longest reply."""
    budget_tokens: int = 1_000_000
    """Tokens of prompts and replies after which nothing more is asked."""
    parallel: int = 4
    """Requests under way at a time."""
    retries: int = 5
    """Tries after the first that fails for a passing reason, each after a longer wait."""
    timeout_seconds: float = 120.0
    """Longest wait for a reply."""


def endpoint_problems(config: EndpointConfig) -> list[str]:
    """What of a configuration is impossible."""
    problems = []
    if not config.url.startswith(("http://", "https://")):
        problems.append(f"endpoint.url = {config.url} must begin with http:// or https://")
    if not config.model:
        problems.append("endpoint.model must name the model")
    for name in ("max_tokens", "budget_tokens", "parallel", "timeout_seconds"):
        if not getattr(config, name) > 0:
            problems.append(f"endpoint.{name} = {getattr(config, name)} must be positive")
    if config.temperature < 0 or config.retries < 0:
        problems.append("endpoint.temperature and retries must not be negative")
    return problems


class BudgetSpent(Exception):
    """The tokens of `budget_tokens` are used up."""


class Endpoint:
    """A client with a journal of replies; may be used from several threads.

    Args:
        journal: JSON lines of replies; one that is there is used instead of asking again.
        sleep: Waits between tries.

    Raises:
        RecipeError: The environment variable of the key is not set.
    """

    def __init__(
        self,
        config: EndpointConfig,
        journal: Path,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.config, self._journal, self._sleep = config, journal, sleep
        self._lock = threading.Lock()
        journal.parent.mkdir(parents=True, exist_ok=True)
        self._replies = read_journal(journal)
        self.used_tokens = 0
        """Tokens of all replies that were used, journal included."""
        self._headers = {"Content-Type": "application/json"}
        if config.key_variable is not None:
            key = os.environ.get(config.key_variable)
            if not key:
                raise RecipeError(
                    f"the environment variable {config.key_variable} is not set",
                    where="endpoint.key_variable",
                    fix="Set it to the key of the endpoint",
                )
            self._headers["Authorization"] = f"Bearer {key}"

    def ask(self, messages: Sequence[Mapping[str, str]], seed: int) -> str:
        """The text of one reply.

        Raises:
            BudgetSpent: Nothing more may be asked.
            DataError: The server refuses, does not answer after all tries, or answers in another
                form.
        """
        body = {
            "model": self.config.model,
            "messages": list(messages),
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
            "seed": seed,
        }
        sent = json.dumps(body, ensure_ascii=False, sort_keys=True).encode()
        key = hashlib.sha256(sent).hexdigest()
        with self._lock:
            if self.used_tokens >= self.config.budget_tokens:
                raise BudgetSpent
            known = self._replies.get(key)
        if known is None:
            text, used = self._text(self._post(sent), sent)
            known = {"key": key, "text": text, "tokens": used}
            with self._lock:
                self._replies[key] = known
                with open(self._journal, "a", encoding="utf-8") as file:
                    file.write(json.dumps(known, ensure_ascii=False) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
        with self._lock:
            self.used_tokens += int(known["tokens"])
        return str(known["text"])

    def _post(self, sent: bytes) -> bytes:
        url = f"{self.config.url.rstrip('/')}/chat/completions"
        reason, wait = "", 0.0
        for attempt in range(self.config.retries + 1):
            if attempt:
                self._sleep(wait)
            wait = min(2.0**attempt, _LONGEST_WAIT)
            request = urllib.request.Request(url, sent, self._headers, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=self.config.timeout_seconds) as reply:
                    content: bytes = reply.read()
                    return content
            except urllib.error.HTTPError as error:
                with error:
                    said = error.read(500).decode("utf-8", "replace").strip()
                reason = f"HTTP {error.code} {said}".strip()
                if error.code not in _PASSING:
                    raise DataError(
                        f"the endpoint refuses: {reason}",
                        where=url,
                        fix="See endpoint.url, model and key_variable",
                    ) from None
                wait = _asked_wait(error.headers.get("Retry-After"), wait)
            except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
                reason = str(error) or type(error).__name__
        raise DataError(
            f"the endpoint did not answer in {self.config.retries + 1} tries: {reason}",
            where=url,
            fix="The same command goes on from the replies that are there",
        )

    def _text(self, content: bytes, sent: bytes) -> tuple[str, int]:
        try:
            reply = json.loads(content)
            text = reply["choices"][0]["message"]["content"]
            used = (reply.get("usage") or {}).get("total_tokens")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            text = used = None
        if not isinstance(text, str):
            raise DataError(
                f"the endpoint's reply is no chat completion: {content[:100]!r}",
                where=self.config.url,
            )
        if not isinstance(used, int):
            used = (len(sent) + len(content)) // _CHARACTERS_A_TOKEN
        return text, used


def read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """Request → reply, of a file of replies; a line that a kill cut off is left out."""
    if not path.exists():
        return {}
    found = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and {"key", "text", "tokens"} <= row.keys():
            found[row["key"]] = row
    return found


def _asked_wait(said: str | None, otherwise: float) -> float:
    """The seconds of a Retry-After header, if it has any."""
    if said is not None and said.isdigit():
        return min(float(said), _LONGEST_WAIT)
    return otherwise
