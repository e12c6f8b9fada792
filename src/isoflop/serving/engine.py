"""Runs many requests on one decoder: batches that change at every step, one answer not knowing of
the others.

`Engine` is used from one thread; `worker.py` gives it one. Not for texts as messages
(`chat_template.py`) nor for the network (`api.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from isoflop.core.errors import RecipeError
from isoflop.models.decoder import Decoder
from isoflop.models.decoder_weights import DecoderWeights
from isoflop.serving.beam import BeamSearch, beam_problem, blocks_needed
from isoflop.serving.cache import BlockPool
from isoflop.serving.drafts import DraftModel
from isoflop.serving.forward import rows_are_independent
from isoflop.serving.native_forward import paged
from isoflop.serving.request import Answer, Finish, Output, Request, Sink
from isoflop.serving.scheduler import Scheduler, Work
from isoflop.serving.sequence import AnswerInProgress
from isoflop.serving.settings import BLOCK, EngineConfig

_LOGIT_ROWS = 256


_MOST_DEFAULT_CACHE = 262_144
_DRAFTED_WHILE_RUNNING = 4


@dataclass(frozen=True)
class Load:
    """Counts of an engine's work."""

    running: int
    waiting: int
    blocks: int
    blocks_held: int
    preempted: int
    prompt_tokens: int
    cached_tokens: int
    """Of the prompt tokens, those found in the cache."""
    new_tokens: int
    drafted: int
    accepted: int
    """Of the drafted tokens, those that were right."""


class Engine:
    """Continuous batching over one decoder.

    Args:
        token_bytes: The bytes that each token id shows; b"" for those that show none.
        draft: A smaller model of the same tokens, which guesses ahead; without it the text itself
            does.

    Raises:
        RecipeError: The draft model has other tokens or a shorter context.
    """

    def __init__(
        self,
        model: Decoder | DecoderWeights,
        token_bytes: Sequence[bytes],
        config: EngineConfig | None = None,
        draft: Decoder | DecoderWeights | None = None,
    ) -> None:
        _check_draft(model, draft)
        self.config = config or EngineConfig()
        self.max_seq_len = model.config.max_seq_len
        self.vocab_size = model.config.vocab_size
        self._token_bytes = token_bytes
        whole = -(-self.max_seq_len // BLOCK)
        asked = self.config.cache_tokens
        n_blocks = (
            max(whole, min(whole * self.config.most_running, _MOST_DEFAULT_CACHE // BLOCK))
            if asked is None
            else asked // BLOCK
        )
        self.model = paged(model, max(2, n_blocks))
        self._draft_model = None if draft is None else DraftModel(draft, max(2, n_blocks))
        self.scheduler: Scheduler[AnswerInProgress] = Scheduler(
            BlockPool(max(2, n_blocks)), self.config.token_budget, self.config.most_running
        )
        self.independent = rows_are_independent(self.model, self.config.token_budget)
        """Whether answers are the same bits whatever runs beside them, measured at the start."""
        self._requests: dict[int, list[AnswerInProgress]] = {}
        self._beams: dict[int, BeamSearch] = {}
        self._next_id = 0
        self._prompt_tokens = self._cached_tokens = self._new_tokens = 0
        self._drafted = self._accepted = 0

    def problem(self, request: Request) -> str | None:
        """Why a request can never be answered, or None."""
        room = self.max_seq_len - len(request.prompt)
        if not request.prompt:
            return "the prompt is empty: there is no token to continue"
        if any(not 0 <= token < self.vocab_size for token in request.prompt):
            return f"the prompt holds token ids outside 0 … {self.vocab_size - 1}"
        if any(not 0 <= token < self.vocab_size for token in request.sampling.logit_bias):
            return f"logit_bias names token ids outside 0 … {self.vocab_size - 1}"
        if room < request.max_new_tokens:
            return (
                f"the model's context is {self.max_seq_len} tokens; the prompt has "
                f"{len(request.prompt)} and {request.max_new_tokens} more were asked for"
            )
        if not self.scheduler.fits(len(request.prompt) + request.max_new_tokens):
            blocks = self.scheduler.pool.n_blocks
            return f"the engine's cache of {blocks * BLOCK} tokens cannot hold this request"
        if request.beams:
            problem = beam_problem(request)
            if problem is None and blocks_needed(request) > self.scheduler.pool.n_blocks:
                problem = "the engine's cache cannot hold so many beams"
            return problem
        return None

    def add(self, request: Request, sink: Sink) -> int:
        """Queue a request; `sink` is called with news of it during `step`. Returns its number.

        Raises:
            RecipeError: It can never be answered.
        """
        problem = self.problem(request)
        if problem is not None:
            raise RecipeError(problem, where="request")
        number, self._next_id = self._next_id, self._next_id + 1
        sequences: list[AnswerInProgress] = []
        for choice in range(request.n):
            first = sequences[0] if sequences else None
            sequence = AnswerInProgress.begin(request, choice, sink, self.vocab_size, first)
            sequences.append(sequence)
            if not request.beams:
                self.scheduler.add(sequence)
        if request.beams:
            self._beams[number] = BeamSearch(request, self.scheduler.pool, self.model)
        self._requests[number] = sequences
        self._prompt_tokens += len(request.prompt) * request.n
        return number

    def cancel(self, number: int) -> None:
        """Forget a request and free its memory; nothing happens if it has ended."""
        for sequence in self._requests.pop(number, []):
            self.scheduler.remove(sequence)
        search = self._beams.pop(number, None)
        if search is not None:
            search.close()

    @property
    def busy(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self._requests)

    def load(self) -> Load:
        """What the engine holds and has done."""
        pool, scheduler = self.scheduler.pool, self.scheduler
        return Load(
            running=len(scheduler.running), waiting=len(scheduler.waiting), blocks=pool.n_blocks,
            blocks_held=pool.n_held, preempted=scheduler.n_preempted,
            prompt_tokens=self._prompt_tokens, cached_tokens=self._cached_tokens,
            new_tokens=self._new_tokens, drafted=self._drafted, accepted=self._accepted,
        )  # fmt: skip

    def step(self) -> bool:
        """Compute one batch and tell the news; False if there was nothing to do."""
        self._draft()
        works = self.scheduler.plan()
        units = [unit for work in works for unit in work.units]
        searches = [(key, one) for key, one in self._beams.items() if one.begin()]
        if not works and not searches:
            return False
        searched = [one.units(self.config.token_budget) for _, one in searches]
        units += [unit for group in searched for unit in group]
        hidden_ND = self.model.hidden(units)
        if self._draft_model is not None:
            self._draft_model.follow(works)
        wanted: list[int] = []
        spans: list[tuple[int, int, int]] = []
        row = 0
        for work in works:
            first, last = work.units[0], work.units[-1]
            n_rows = last.start + len(last.tokens) - first.start
            sequence = work.sequence
            begin = 0 if sequence.scores_prompt else len(sequence.tokens) - 1
            skipped = min(n_rows, max(0, begin - first.start))
            spans.append((first.start + skipped, len(wanted), n_rows - skipped))
            wanted += range(row + skipped, row + n_rows)
            if sequence.request.embed:
                sequence.pool_states(first.start, hidden_ND[row : row + n_rows])
            row += n_rows
        spans_of_beams: list[slice] = []
        for (_, search), group in zip(searches, searched, strict=True):
            row += sum(len(unit.tokens) for unit in group)
            spans_of_beams.append(slice(len(wanted), len(wanted) + search.n_rows))
            wanted += range(row - search.n_rows, row)
        logits = self._logits(hidden_ND, wanted)
        likeliest = logits.argmax(-1).tolist()
        for work, (position, at, count) in zip(works, spans, strict=True):
            self.scheduler.computed(work)
            rows = slice(at, at + count)
            self._advance(work, position, logits[rows], likeliest[rows])
        for (number, search), rows in zip(searches, spans_of_beams, strict=True):
            if search.n_rows and search.take(logits[rows]):
                self._tell_beams(number, search)
        return True

    def answer(self, requests: Sequence[Request]) -> list[list[Answer]]:
        """Answer requests together and wait for all: a list of `n` answers for each.

        Raises:
            RecipeError: One can never be answered.
        """
        news: list[dict[int, list[Output]]] = [{} for _ in requests]
        numbers = []
        for request, outputs in zip(requests, news, strict=True):

            def sink(output: Output, outputs: dict[int, list[Output]] = outputs) -> None:
                outputs.setdefault(output.choice, []).append(output)

            numbers.append(self.add(request, sink))
        sequences = [self._requests[number] for number in numbers]
        while self.busy:
            self.step()
        return [
            [_joined(outputs[one.choice], tuple(one.tokens[one.n_prompt :])) for one in group]
            for outputs, group in zip(news, sequences, strict=True)
        ]

    # --- one step ---------------------------------------------------------------------------

    def _draft(self) -> None:
        """Guess ahead where few answers run."""
        running = self.scheduler.running
        if not self.config.draft_tokens or not 0 < len(running) <= _DRAFTED_WHILE_RUNNING:
            return
        guessing, most = [], []
        for sequence in running:
            n_known = len(sequence.tokens)
            left = sequence.n_prompt + sequence.request.max_new_tokens - n_known - 1
            if sequence.waits_for_prompt or left <= 0 or sequence.n_computed < n_known - 1:
                continue
            room = self.scheduler.reserve(sequence, n_known + min(self.config.draft_tokens, left))
            guessing.append(sequence)
            most.append(max(0, room - n_known))
        if self._draft_model is not None:
            self._draft_model.guess(guessing, most)
        else:
            for sequence, n_tokens in zip(guessing, most, strict=True):
                sequence.drafts = sequence.lookup.guess(sequence.tokens, n_tokens)
        self._drafted += sum(len(sequence.drafts) for sequence in guessing)

    def _logits(self, hidden_ND: Tensor, rows: list[int]) -> npt.NDArray[np.float32]:
        if not rows:
            return np.empty((0, self.vocab_size), dtype=np.float32)
        picked_ND = hidden_ND
        if len(rows) < len(hidden_ND):
            picked_ND = hidden_ND[torch.tensor(rows, device=hidden_ND.device)]
        parts = [
            self.model.logits(part).numpy(force=True)
            for part in torch.split(picked_ND, _LOGIT_ROWS)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _advance(
        self,
        work: Work[AnswerInProgress],
        position: int,
        logits_RV: npt.NDArray[np.float32],
        likeliest: Sequence[int],
    ) -> None:
        """Take the logits of R positions from `position` on, and where each are largest: score the
        prompt, add tokens."""
        sequence = work.sequence
        n_known, drafts = len(sequence.tokens), sequence.drafts
        finish: Finish | None = None
        text = ""
        if sequence.scores_prompt:
            sequence.score_prompt(position, logits_RV)
        last = work.units[-1]
        reached_end = last.start + len(last.tokens) >= n_known
        if reached_end and not sequence.request.max_new_tokens:
            finish = "length"
        elif reached_end:
            for row in range(n_known - 1 - position, len(logits_RV)):
                guessed = position + row + 1 - n_known
                piece, finish = sequence.take(
                    logits_RV[row], likeliest[row], position + row + 1, self._token_bytes
                )
                text += piece
                right = guessed < len(drafts) and sequence.tokens[-1] == drafts[guessed]
                self._accepted += right
                if finish is not None or not right:
                    break
            sequence.n_computed = min(sequence.n_computed, len(sequence.tokens) - 1)
            sequence.n_drafted = min(sequence.n_drafted, len(sequence.tokens) - 1)
            self._new_tokens += len(sequence.tokens) - n_known
        sequence.drafts = []
        output = sequence.news(text, finish)
        if output is not None:
            if output.finish is not None:
                self._cached_tokens += sequence.n_cached
                self._end(sequence)
            sequence.sink(output)

    def _tell_beams(self, number: int, search: BeamSearch) -> None:
        """Tell the answers of a search that is over."""
        sequences = list(self._requests[number])
        search.close()
        del self._beams[number]
        for sequence, found in zip(sequences, search.best(), strict=True):
            text = ""
            finish: Finish | None = None
            for token in found.ids:
                piece, finish = sequence.add(token, None, self._token_bytes)
                text += piece
            self._new_tokens += len(found.ids)
            output = sequence.news(text, finish)
            self._end(sequence)
            if output is not None:
                sequence.sink(output)

    def _end(self, sequence: AnswerInProgress) -> None:
        self.scheduler.remove(sequence)
        for number, sequences in list(self._requests.items()):
            if sequence in sequences:
                left = [one for one in sequences if one is not sequence]
                if left:
                    self._requests[number] = left
                else:
                    del self._requests[number]


def _check_draft(model: Decoder | DecoderWeights, draft: Decoder | DecoderWeights | None) -> None:
    if draft is not None and draft.config.vocab_size != model.config.vocab_size:
        raise RecipeError(
            f"the draft model has {draft.config.vocab_size} tokens, the model "
            f"{model.config.vocab_size}",
            where="draft model",
            fix="Take one that was trained with the same tokenizer",
        )
    if draft is not None and draft.config.max_seq_len < model.config.max_seq_len:
        raise RecipeError(
            f"the draft model's context is {draft.config.max_seq_len}, the model's "
            f"{model.config.max_seq_len}",
            where="draft model",
        )


def _joined(outputs: Sequence[Output], ids: tuple[int, ...]) -> Answer:
    last = outputs[-1]
    return Answer(
        text="".join(output.text for output in outputs),
        ids=ids,
        finish=last.finish or "cancelled",
        tokens=tuple(token for output in outputs for token in output.tokens),
        prompt_tokens=last.prompt_tokens,
        embedding=last.embedding,
        n_cached=last.n_cached,
    )
