"""Beam search: the likeliest whole answers that a search of some width finds.

At each step every beam is continued by every token, and the likeliest continuations are kept; those
that end are set aside. The search ends when as many have ended as there are beams, or at the limit
(`early_stopping=True` of transformers). Beams share the blocks of what they have in common. Not for
answers drawn token by token (`sequence.py`).

Shape suffixes: R beams, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from isoflop.serving.cache import BlockPool
from isoflop.serving.forward import Paged, Unit
from isoflop.serving.request import Request
from isoflop.serving.sampler import Sampling, log_softmax
from isoflop.serving.settings import BLOCK


@dataclass(frozen=True)
class Hypothesis:
    """An answer, or the beginning of one."""

    ids: tuple[int, ...] = ()
    logprob: float = 0.0
    """Natural; the sum over its tokens."""
    ended: bool = False
    """Whether its last token is one that ends answers."""
    blocks: tuple[int, ...] = field(default=(), compare=False)

    def score(self, length_penalty: float) -> float:
        """What answers are ranked by: logprob / length^penalty."""
        return self.logprob / float(len(self.ids) ** length_penalty)


def beam_problem(request: Request) -> str | None:
    """Why a request cannot be answered by beams, or None."""
    sampling = request.sampling
    if request.n > request.beams:
        return f"n = {request.n} answers are asked of {request.beams} beams"
    if request.max_new_tokens < 1:
        return "a beam search writes at least one token"
    plain = Sampling(temperature=sampling.temperature, seed=sampling.seed)
    if sampling != plain or sampling.temperature not in (0, 1):
        return (
            "beam search takes the model's own probabilities: no temperature, penalty, bias, "
            "top_k, top_p or min_p"
        )
    for name, given in (
        ("stop strings", request.stop), ("a grammar", request.grammar),
        ("log-probabilities", request.logprobs is not None), ("an embedding", request.embed),
    ):  # fmt: skip
        if given:
            return f"beam search does not go with {name}"
    return None


def blocks_needed(request: Request) -> int:
    """Blocks that a search may hold at once."""
    whole = -(-(len(request.prompt) + request.max_new_tokens) // BLOCK)
    shared = len(request.prompt) // BLOCK
    return shared + request.beams * (whole - shared + 1)


class BeamSearch:
    """One search under way.

    Args:
        pool: Where the blocks come from; all that may be needed are taken when it begins.
        model: Whose blocks they are.
    """

    def __init__(self, request: Request, pool: BlockPool, model: Paged) -> None:
        self.request = request
        self._pool, self._model = pool, model
        self._free: list[int] = []
        self._holders: dict[int, int] = {}
        self.n_computed = 0
        """Tokens of the prompt whose keys and values are in memory."""
        self.beams: list[Hypothesis] = []
        self.ended: list[Hypothesis] = []

    def begin(self) -> bool:
        """Take the blocks; whether there were enough, now or before."""
        if self.beams:
            return True
        needed = blocks_needed(self.request)
        if self._pool.n_free < needed:
            return False
        while len(self._free) < needed:
            block = self._pool.allocate()
            if block is not None:
                self._free.append(block)
        count = -(-len(self.request.prompt) // BLOCK)
        self.beams = [Hypothesis(blocks=tuple(self._take() for _ in range(count)))]
        return True

    def close(self) -> None:
        """Give the blocks back."""
        for block in (*self._free, *self._holders):
            self._pool.release(block)
        self._free, self._holders, self.beams = [], {}, []

    def units(self, budget: int) -> list[Unit]:
        """What to compute next: blocks of the prompt within the budget, or each beam's last token,
        of which the logits are then to be taken."""
        prompt = self.request.prompt
        if self.n_computed == len(prompt):
            at = len(prompt) + len(self.beams[0].ids) - 1
            return [Unit(beam.ids[-1:], at, beam.blocks) for beam in self.beams]
        units: list[Unit] = []
        while self.n_computed < len(prompt) and (not units or budget >= BLOCK):
            piece = prompt[self.n_computed : self.n_computed + BLOCK]
            units.append(Unit(piece, self.n_computed, self.beams[0].blocks))
            self.n_computed += len(piece)
            budget -= len(piece)
        return units

    @property
    def n_rows(self) -> int:
        """How many rows of logits it waits for, the last ones of its units."""
        return len(self.beams) if self.n_computed == len(self.request.prompt) else 0

    def take(self, logits_RV: npt.NDArray[np.float32]) -> bool:
        """Continue the beams by the logits after each; whether the search is over."""
        request, width = self.request, self.request.beams
        logprobs_RV = np.stack([log_softmax(row.astype(np.float64)) for row in logits_RV])
        total = (np.array([[beam.logprob] for beam in self.beams]) + logprobs_RV).ravel()
        most = min(2 * width, len(total))
        best = np.argpartition(-total, most - 1)[:most]
        best = best[np.lexsort((best, -total[best]))]
        kept: list[tuple[int, Hypothesis]] = []
        for rank, place in enumerate(best.tolist()):
            parent, token = divmod(place, logits_RV.shape[1])
            ids = (*self.beams[parent].ids, token)
            found = Hypothesis(ids, float(total[place]), token in request.stop_ids)
            if not found.ended and len(kept) < width:
                kept.append((parent, found))
            elif found.ended and rank < width:
                self.ended.append(found)
        if len(self.ended) >= width or len(kept[0][1].ids) == request.max_new_tokens:
            if len(self.ended) < width:
                self.ended += [found for _, found in kept]
            return True
        self._follow(kept)
        return False

    def best(self) -> list[Hypothesis]:
        """The answers, the best first; `n` of them."""
        penalty = self.request.length_penalty
        ranked = sorted(self.ended, key=lambda found: -found.score(penalty))
        return ranked[: self.request.n]

    def _follow(self, kept: list[tuple[int, Hypothesis]]) -> None:
        """Let the kept ones be the beams, with the blocks of those they continue."""
        position = len(self.request.prompt) + len(kept[0][1].ids) - 1
        full, begun = divmod(position, BLOCK)
        before, taken = self.beams, set[int]()
        beams = []
        for parent, found in kept:
            blocks = before[parent].blocks[:full]
            for block in blocks:
                self._holders[block] += 1
            last = before[parent].blocks[full] if begun else None
            if last is not None and parent not in taken:
                self._holders[last] += 1
                taken.add(parent)
                own = last
            else:
                own = self._take()
                if last is not None:
                    self._model.copy_block(last, own)
            beams.append(Hypothesis(found.ids, found.logprob, blocks=(*blocks, own)))
        for beam in before:
            for block in beam.blocks:
                self._drop(block)
        self.beams = beams

    def _take(self) -> int:
        block = self._free.pop()
        self._holders[block] = 1
        return block

    def _drop(self, block: int) -> None:
        self._holders[block] -= 1
        if not self._holders[block]:
            del self._holders[block]
            self._free.append(block)
