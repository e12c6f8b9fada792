"""One answer in the making: its tokens chosen, scored and told; not when (`scheduler.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from torch import Tensor

from isoflop.serving.prompt_lookup import PromptLookup
from isoflop.serving.request import (
    Finish,
    Grammar,
    Guard,
    Output,
    Request,
    Sink,
    TokenScore,
    top_scores,
)
from isoflop.serving.sampler import adjusted, choose, log_softmax
from isoflop.serving.scheduler import Progress
from isoflop.serving.text_stream import TextStream


@dataclass(eq=False)
class AnswerInProgress(Progress):
    """A sequence with what becomes of its tokens."""

    request: Request = field(kw_only=True)
    choice: int = field(kw_only=True)
    sink: Sink = field(kw_only=True)
    stream: TextStream = field(kw_only=True)
    grammar: Grammar | None = field(kw_only=True)
    guard: Guard | None = field(kw_only=True)
    counts: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = field(kw_only=True)
    """(V,) how often each token occurs in prompt and answer, where that matters."""
    lookup: PromptLookup = field(default_factory=PromptLookup)
    scores: list[tuple[int, int, TokenScore]] = field(default_factory=list)
    """Tokens not yet told, with the span of their characters in the text."""
    prompt_scores: list[TokenScore] = field(default_factory=list)
    state_sum: npt.NDArray[np.float64] | None = None
    """(D,) sum of the prompt's final states."""

    @classmethod
    def begin(
        cls,
        request: Request,
        choice: int,
        sink: Sink,
        vocab_size: int,
        after: AnswerInProgress | None,
    ) -> AnswerInProgress:
        """An answer to the request of which no token is there.

        Args:
            after: An answer to the same prompt whose computed prompt this one reuses.
        """
        counts = None
        if request.sampling.penalises:
            seen = np.bincount(request.prompt, minlength=vocab_size)
            counts = (seen, np.zeros(vocab_size, dtype=np.int64))
        return cls(
            tokens=list(request.prompt),
            n_prompt=len(request.prompt),
            after=after,
            reuse=not (request.prompt_logprobs or request.embed),
            request=request,
            choice=choice,
            sink=sink,
            stream=TextStream(request.stop),
            grammar=request.grammar() if request.grammar else None,
            guard=request.guard() if request.guard else None,
            counts=counts,
        )

    @property
    def n_new(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.n_prompt

    @property
    def scores_prompt(self) -> bool:
        """Whether the prompt's tokens are still to be scored."""
        return self.request.prompt_logprobs and len(self.prompt_scores) < self.n_prompt

    def pool_states(self, start: int, hidden_ND: Tensor) -> None:
        """Add the final states of positions from `start` on, as far as they are the prompt's."""
        within = hidden_ND[: max(0, self.n_prompt - start)].double().sum(0).numpy(force=True)
        self.state_sum = within if start == 0 or self.state_sum is None else within + self.state_sum

    def score_prompt(self, position: int, logits_RV: npt.NDArray[np.float32]) -> None:
        """Score the prompt's tokens that follow positions from `position` on."""
        scores = self.prompt_scores
        if position == 0:
            scores[:] = [TokenScore(self.tokens[0], None)]
        for row in range(min(len(logits_RV), self.n_prompt - 1 - position)):
            scores.append(self._score(logits_RV[row], self.tokens[position + row + 1]))

    def _score(self, logits_V: npt.NDArray[np.float32], token: int) -> TokenScore:
        logprobs_V = log_softmax(logits_V.astype(np.float64))
        top = top_scores(logprobs_V, self.request.logprobs or 0)
        return TokenScore(token, float(logprobs_V[token]), top)

    @property
    def takes_likeliest(self) -> bool:
        """Whether its next token is that with the largest logit."""
        sampling = self.request.sampling
        return (
            sampling.temperature == 0
            and not sampling.logit_bias
            and self.counts is None
            and self.grammar is None
        )

    def take(
        self,
        logits_V: npt.NDArray[np.float32],
        likeliest: int,
        position: int,
        token_bytes: Sequence[bytes],
    ) -> tuple[str, Finish | None]:
        """Choose a token and add it: the text it releases, and whether the answer ends.

        Args:
            likeliest: Where the logits are largest.
        """
        token = likeliest
        if not self.takes_likeliest:
            chosen = self._choose(logits_V, position)
            if chosen is None:
                return "", "stop"
            token = chosen
        return self.add(token, logits_V, token_bytes)

    def add(
        self,
        token: int,
        logits_V: npt.NDArray[np.float32] | None,
        token_bytes: Sequence[bytes],
    ) -> tuple[str, Finish | None]:
        """Add a token: the text it releases, and whether the answer ends.

        Args:
            logits_V: It was chosen from; None where no log-probability is asked for.
        """
        request = self.request
        self.tokens.append(token)
        if self.counts is not None:
            self.counts[1][token] += 1
        if self.grammar is not None:
            self.grammar.accept(token)
        begin = self.stream.decoded
        text = ""
        ends = token in request.stop_ids
        if not ends:
            text = self.stream.push(request.visible.get(token, token_bytes[token]))
        if request.logprobs is not None and logits_V is not None:
            score = self._score(logits_V, token)
            self.scores.append((begin, self.stream.decoded, score))
        if ends or self.stream.stopped is not None:
            return text, "stop"
        return text, "length" if self.n_new >= request.max_new_tokens else None

    def _choose(self, logits_V: npt.NDArray[np.float32], position: int) -> int | None:
        """A token by the request's sampling; None where the grammar allows no more."""
        request, counts = self.request, self.counts
        values = logits_V.astype(np.float64)
        if counts is not None:
            values = adjusted(values, request.sampling, *counts)
        else:
            for index, bias in request.sampling.logit_bias.items():
                values[index] += bias
        if self.grammar is not None:
            allowed = self.grammar.allowed()
            if not allowed.any():
                return None
            values = np.where(allowed, values, -np.inf)
        return choose(values, request.sampling, request.first_choice + self.choice, position)

    def news(self, text: str, finish: Finish | None) -> Output | None:
        """What is to be told after a step, or None if that is nothing.

        Args:
            text: What the new tokens released.
        """
        guard, stream = self.guard, self.stream
        if finish is not None:
            text += stream.finish()
        shown, hidden = stream.released, []
        if guard is not None:
            text = guard.push(text) + (guard.finish() if finish is not None else "")
            shown, hidden = guard.consumed, guard.hidden
            finish = "content_filter" if guard.blocked else finish
        ready = [score for score in self.scores if score[1] <= shown]
        self.scores = self.scores[len(ready) :]
        tokens = tuple(
            score
            for begin, end, score in ready
            if not any(begin < high and low < end for low, high in hidden)
        )
        if finish is None and not text and not tokens:
            return None
        embedding = None
        if finish is not None and self.state_sum is not None:
            mean = self.state_sum / self.n_prompt
            embedding = tuple(map(float, mean / max(float(np.linalg.norm(mean)), 1e-12)))
        prompt = tuple(self.prompt_scores) if finish else ()
        return Output(
            self.choice, text, tokens, prompt, embedding, finish, self.n_new, self.n_cached
        )
