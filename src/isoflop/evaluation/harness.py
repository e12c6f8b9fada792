"""A model directory as lm-evaluation-harness asks models: any of its tasks runs on it.

Needs the extra `isoflop[eval]`. Not for our own tasks, which ask without it. Give an
`IsoflopLM` to `lm_eval.simple_evaluate(model=…)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isoflop.core.errors import RecipeError
from isoflop.evaluation.evaluate import open_subject
from isoflop.evaluation.generation import Sampling, generate_until
from isoflop.evaluation.likelihood import (
    BATCH_TOKENS,
    encode_pair,
    loglikelihood_rolling,
    score_ids,
)

try:
    from lm_eval.api.model import TemplateLM
except ModuleNotFoundError as error:
    raise RecipeError(
        f"lm-evaluation-harness is not installed ({error})", fix="pip install 'isoflop[eval]'"
    ) from None

MAX_NEW_TOKENS = 256
"""Of a task that names no number, as in lm-evaluation-harness."""


class IsoflopLM(TemplateLM):  # type: ignore[misc]  # the harness has no types
    """A model directory behind the harness's interface.

    Args:
        model: A model directory with its tokenizer.
        batch_tokens: Tokens computed at once at most; it changes no result.
    """

    def __init__(self, model: str | Path, batch_tokens: int = BATCH_TOKENS) -> None:
        super().__init__()
        self.subject = open_subject(Path(model), batch_tokens)

    @property
    def eot_token_id(self) -> int:
        """The id that ends a document."""
        return self.subject.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The id that an empty context is replaced with."""
        return self.subject.start_id

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: object
    ) -> list[int]:
        """Ids of a text; special tokens are never added."""
        return self.subject.tokenizer.encode(string)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        before, after = encode_pair(self.subject, context, continuation)
        return list(before), list(after)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], Sequence[int], Sequence[int]]],
        **_: object,
    ) -> list[tuple[float, bool]]:
        pairs = [(tuple(before), tuple(after)) for _, before, after in requests]
        return [(each.logprob, each.greedy) for each in score_ids(self.subject, pairs)]

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Natural log-probability of each whole text."""
        texts = [request.args[0] for request in requests]
        return [each.logprob for each in loglikelihood_rolling(self.subject, texts)]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text after each prompt, by the task's own `until`, length and temperature."""
        alike: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            alike.setdefault(repr(sorted(request.args[1].items())), []).append(number)
        texts = [""] * len(requests)
        for numbers in alike.values():
            stop, most, sampling = _options(requests[numbers[0]].args[1])
            prompts = [requests[number].args[0] for number in numbers]
            written = generate_until(self.subject, prompts, stop, most, sampling)
            for number, (one,) in zip(numbers, written, strict=True):
                texts[number] = one.text
        return texts


def _options(said: Mapping[str, Any]) -> tuple[tuple[str, ...], int, Sampling]:
    """(stop strings, most new tokens, sampling) of a task's `generation_kwargs`."""
    until = said.get("until") or ()
    stop = (until,) if isinstance(until, str) else tuple(until)
    most = int(said.get("max_gen_toks", said.get("max_new_tokens", MAX_NEW_TOKENS)))
    temperature = float(said.get("temperature") or 0.0) if said.get("do_sample", True) else 0.0
    return stop, most, Sampling(temperature, said.get("top_p"), int(said.get("seed", 0)))
