"""What SFT, reward, DPO, PPO and GRPO will take on this machine, from a few timed passes.

Not for what they come to (`forecast.py`). The model's own speed is measured; how many positions
there are to compute is counted on a sample of the set.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import torch

from isoflop.alignment.dpo_recipe import DpoRecipe, PairRecipe, RewardRecipe
from isoflop.alignment.policy_recipe import GrpoRecipe, PolicyRecipe, PpoRecipe
from isoflop.alignment.policy_task import steps_of
from isoflop.alignment.sft_recipe import SftRecipe
from isoflop.core.foresight import Foresight, Span
from isoflop.core.process import keep_freed_buffers, peak_memory_bytes
from isoflop.data.instruct import open_set
from isoflop.data.instruct_rows import Kind
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.accounting import count_parameters
from isoflop.models.convert import load_decoder
from isoflop.models.decoder import Decoder
from isoflop.models.deepen import deepened
from isoflop.training.objectives import TokenBatch, next_token_loss

Recipe = SftRecipe | RewardRecipe | DpoRecipe | GrpoRecipe | PpoRecipe
SPREAD = 2.0
"""Either way: evaluations, padding and how answers grow are not counted."""
FORWARD = 1 / 3
"""Of a training pass: a model that is only asked."""
_SAMPLE_ROWS = 200
_TURN_TOKENS = 6
_PASSES = 3
_BYTES_KEPT, _CHECKPOINTS = 12, 2


def foresee(recipe: Recipe) -> Foresight:
    """Time a few passes of the model, and count the positions of the run.

    Raises:
        ArtifactError: The model or the set cannot be used.
    """
    torch.set_num_threads(recipe.train.threads or torch.get_num_threads())
    keep_freed_buffers()
    model = load_decoder(recipe.model.path)
    if isinstance(recipe, SftRecipe):
        model = deepened(model, recipe.train.extra_layers, recipe.train.seed)
    positions, rows, how = _positions(recipe, model.config.max_seq_len)
    per_position = _seconds_per_position(model, rows)
    seconds = positions * per_position
    params = count_parameters(model.config).params_total
    return Foresight(
        Span(seconds, seconds / SPREAD, seconds * SPREAD),
        # A reference or a critic beside it, and two moments that the timed passes had not.
        peak_memory_bytes() + params * (8 + (0 if isinstance(recipe, SftRecipe) else 4)),
        params * (4 + _CHECKPOINTS * _BYTES_KEPT),
        (
            how,
            f"{1 / per_position:,.0f} positions a second, forward and backward, measured now on "
            f"{_PASSES} passes of the model of {params:,} parameters",
        ),
    )


def _positions(recipe: Recipe, context: int) -> tuple[float, tuple[int, int], str]:
    """Positions to compute, in training passes; rows and length of a micro-batch; in words."""
    if isinstance(recipe, SftRecipe):
        count, length = _lengths(recipe, ("supervised",))
        total = count * length * recipe.train.epochs
        if recipe.data.replay is not None:
            total /= 1 - recipe.data.replay_share
        width = recipe.train.seq_len or context
        micro = max(1, recipe.train.micro_batch_tokens // width)
        how = f"{count:,} conversations of about {length:.0f} tokens, {recipe.train.epochs:g} times"
        return total, (micro, width), how
    if isinstance(recipe, PairRecipe):
        kto = isinstance(recipe, DpoRecipe) and recipe.dpo.loss == "kto"
        kinds: tuple[Kind, ...] = ("rated", "preference") if kto else ("preference",)
        count, length = _lengths(recipe, kinds)
        asked = FORWARD if isinstance(recipe, DpoRecipe) else 0.0  # the reference, once
        total = count * length * (recipe.train.epochs + asked)
        how = f"{count:,} pairs of about {length:.0f} tokens, {recipe.train.epochs:g} times"
        width = max(1, min(context, round(length / 2)))
        return total, (2 * recipe.train.micro_batch_pairs, width), how
    return _policy_positions(recipe, context)


def _policy_positions(
    recipe: GrpoRecipe | PpoRecipe, context: int
) -> tuple[float, tuple[int, int], str]:
    rollouts = recipe.rollouts
    _, prompt = _lengths(recipe, ("verifiable",))
    width = min(context, round(prompt) + rollouts.max_new_tokens)
    answers = rollouts.prompts * rollouts.answers
    # Each answer is drawn, asked of the reference and of the critic, and learnt from.
    models = 1 + isinstance(recipe, PpoRecipe)
    passes = FORWARD * (2 + (recipe.kl.coef > 0)) + models * rollouts.epochs
    drawn = recipe.train.rounds * answers + recipe.train.forecast_answers * 64
    how = (
        f"{recipe.train.rounds:,} rounds ({steps_of(recipe):,} steps) of {answers:,} answers of at "
        f"most {rollouts.max_new_tokens} tokens to prompts of about {prompt:.0f}"
    )
    return drawn * width * passes, (min(answers, recipe.train.micro_batch_answers), width), how


def _lengths(recipe: Recipe | PolicyRecipe, kinds: Sequence[Kind]) -> tuple[int, float]:
    """Rows of these kinds, and the mean tokens of one, on a sample."""
    given = open_set(recipe.data.set)
    tokenizer = load_tokenizer(recipe.model.path)
    rows = [row for kind in kinds for row in given.rows(kind, "train")]
    sample = rows[:: max(1, len(rows) // _SAMPLE_ROWS)]
    found = [sum(len(tokenizer.encode(text)) + _TURN_TOKENS for text in _texts(r)) for r in sample]
    return len(rows), fmean(found) if found else 0.0


def _texts(row: Mapping[str, Any]) -> list[str]:
    """What a model reads of a row: a preference pair's prompt counts with each of its answers."""
    if "chosen" in row:
        prompt = _words(row.get("prompt", ""))
        return [prompt + _words(row["chosen"]), prompt + _words(row["rejected"])]
    if "messages" in row:
        return [_words([message]) for message in row["messages"]]
    return [_words(row.get(key, "")) for key in ("prompt", "completion") if key in row]


def _words(value: Any) -> str:
    if isinstance(value, list):
        return "".join(str(message.get("content", "")) for message in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _seconds_per_position(model: Decoder, rows: tuple[int, int]) -> float:
    """Forward and backward over random ids; the least of a few, less the first."""
    draw = torch.Generator().manual_seed(0)
    ids_BT = torch.randint(model.config.vocab_size, rows, generator=draw)
    batch = TokenBatch(ids_BT, ids_BT, torch.zeros_like(ids_BT), ids_BT.numel())
    times = []
    for _ in range(_PASSES + 1):
        began = time.perf_counter()
        next_token_loss(model, batch).backward()  # type: ignore[no-untyped-call]
        times.append(time.perf_counter() - began)
    return fmean(times[1:]) / ids_BT.numel()
