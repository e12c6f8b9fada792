"""Supervised fine-tuning: the `Task` that learns assistants' turns, from recipe to result.

Not for the loop itself (`training/loop.py`), what is learnt (`sft_data.py`) nor the adapters
(`lora.py`).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isoflop.alignment.chat import Chat, open_chat
from isoflop.alignment.lora import attach, merge, save_adapter
from isoflop.alignment.packed import Conversations
from isoflop.alignment.replay import Replay, open_replay
from isoflop.alignment.run import in_directory, loop_config, rate_over, write_left_out
from isoflop.alignment.save import save_chat_model
from isoflop.alignment.sft_data import SftData, open_conversations, spread
from isoflop.alignment.sft_recipe import SftRecipe
from isoflop.alignment.tools import answer
from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import RecipeError
from isoflop.core.process import peak_memory_bytes
from isoflop.data.answers import is_right
from isoflop.data.loader import Windows
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.accounting import count_parameters
from isoflop.models.convert import load_decoder
from isoflop.models.decoder import Decoder
from isoflop.models.deepen import deepened
from isoflop.training.loop import run
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizers import build_optimizer
from isoflop.training.parallel.apply import apply_layout, whole_model
from isoflop.training.parallel.ranks import Ranks, processes
from isoflop.training.pretrain import held_out_scores
from isoflop.training.step import Task

EVAL_ROWS = 16
"""Windows per forward pass of an evaluation."""
_SAMPLES = 4


@dataclass(frozen=True)
class SftBatch(TokenBatch):
    """One micro-batch of packed conversations."""

    noise_seed: int
    """Of its NEFTune noise."""


@dataclass(frozen=True)
class SftResult:
    """What a finished fine-tuning came to."""

    run: Path
    params_total: int
    trained_params: int
    """Weights that were trained."""
    conversations: int
    left_out: int
    """Conversations that were not used, or cut; `left_out.jsonl` names them by file and line."""
    supervised_tokens: int
    """Tokens to learn in one epoch."""
    padding: float
    """Share of positions that hold no token."""
    steps: int
    loss: float | None
    """Final held-out loss in nats per supervised token; None if nothing is held out."""
    exact_match: float | None
    """Share of held-out questions answered right; None if none has an answer."""
    bits_per_byte: float | None
    """Of held-out text of `data.replay`; None without it."""
    bits_per_byte_before: float | None
    """Of the same text by the model it started from."""
    seconds: float
    peak_memory_bytes: int


def sft(recipe: SftRecipe, out: Path, progress: Progress = SILENT) -> SftResult:
    """Run or continue a supervised fine-tuning in the directory `out`.

    Raises:
        RunError: The directory belongs to another recipe or version, or training diverged.
        ArtifactError: The model, the set or a checkpoint cannot be used.
        DataError: A conversation cannot be learnt from; it is named by file and line.
    """
    inputs = [(recipe.data.set, "instruct"), (recipe.model.path, "model")]
    if recipe.data.replay is not None:
        inputs.append((recipe.data.replay, "shards"))
    train = recipe.train
    with processes(recipe.parallel) as ranks:
        mine = progress if ranks.is_main else SILENT
        return in_directory(
            out, recipe, inputs, train.seed, train.threads,
            lambda fields: SftResult(**fields), lambda: _sft(recipe, out, mine, ranks), ranks,
        )  # fmt: skip


def _sft(recipe: SftRecipe, out: Path, progress: Progress, ranks: Ranks) -> SftResult:
    train = recipe.train
    model = load_decoder(recipe.model.path)
    model = deepened(model, train.extra_layers, train.seed).train()
    chat = open_chat(load_tokenizer(recipe.model.path), recipe.model.chat_template)
    seq_len = train.seq_len or model.config.max_seq_len
    _check_windows(recipe, seq_len, model.config.max_seq_len)
    replay, before = None, None
    if recipe.data.replay is not None:
        replay = open_replay(recipe.data.replay, recipe.model.path, seq_len, train.seed)
        with torch.no_grad():
            before = held_out_scores(model.eval(), replay.held_out)["bits_per_byte"]
        model.train()
    data = open_conversations(recipe, chat, seq_len)
    write_left_out(out, data.left_out, data.counted(), ranks)
    if recipe.lora.rank is not None:
        attach(model, recipe.lora.rank, recipe.lora.alpha, recipe.lora.dora, train.seed)
    rows = train.global_batch_tokens // seq_len - _text_rows(recipe, seq_len)
    steps = math.ceil(train.epochs * data.train.n_windows / rows)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    progress.start(f"sft {out.name}", steps * train.global_batch_tokens, "tokens")
    task = apply_layout(model, sft_task(recipe, chat, data, seq_len, replay), ranks)
    state = run(
        model,
        build_optimizer(model, recipe.optimizer),
        rate_over(recipe.optimizer, steps, train.global_batch_tokens),
        task,
        loop_config(
            train, recipe.optimizer, recipe.guard, model.config, steps,
            train.global_batch_tokens, seq_len, ranks=ranks,
        ),
        out,
        progress,
    )  # fmt: skip
    score = json.loads(ranks.from_main((out / "evals.jsonl").read_text).splitlines()[-1])
    if recipe.lora.rank is not None:
        save_adapter(model, out / "adapter", recipe.lora, recipe.model.path)
        merge(model)
    whole = whole_model(model, ranks)
    ranks.from_main(
        lambda: save_chat_model(whole, out / "model", recipe.model.path, chat, recipe.data.set)
    )
    told = ", ".join(f"{key} {score[key]:.4f}" for key in ("loss", "exact_match") if key in score)
    progress.finish(f"held-out {told}" if told else "")
    return SftResult(
        run=out,
        params_total=count_parameters(model.config).params_total,
        trained_params=trained,
        conversations=data.conversations,
        left_out=len(data.left_out),
        supervised_tokens=data.train.n_labels,
        padding=data.train.padding,
        steps=state.step,
        loss=score.get("loss"),
        exact_match=score.get("exact_match"),
        bits_per_byte=score.get("bits_per_byte"),
        bits_per_byte_before=before,
        seconds=ranks.from_main(lambda: state.seconds),
        peak_memory_bytes=ranks.largest(peak_memory_bytes()),
    )


def _check_windows(recipe: SftRecipe, seq_len: int, context: int) -> None:
    train, problems = recipe.train, []
    if seq_len > context:
        problems.append(f"train.seq_len = {seq_len} exceeds the model's context of {context}")
    if train.micro_batch_tokens % seq_len:
        problems.append(
            f"train.micro_batch_tokens = {train.micro_batch_tokens} is not a multiple of "
            f"train.seq_len = {seq_len}"
        )
    if train.global_batch_tokens % train.micro_batch_tokens:
        problems.append(
            f"train.global_batch_tokens = {train.global_batch_tokens} is not a multiple of "
            f"train.micro_batch_tokens = {train.micro_batch_tokens}"
        )
    if recipe.data.replay is not None and train.global_batch_tokens < 2 * seq_len:
        problems.append("data.replay needs a train.global_batch_tokens of two windows or more")
    if problems:
        raise RecipeError("; ".join(problems), where="sft recipe")


# --- the task ------------------------------------------------------------------------------


def _text_rows(recipe: SftRecipe, seq_len: int) -> int:
    """Windows of a step that are replayed text: at least one of them, and one that is not."""
    rows = recipe.train.global_batch_tokens // seq_len
    if recipe.data.replay is None:
        return 0
    return min(max(1, round(recipe.data.replay_share * rows)), rows - 1)


def sft_task(
    recipe: SftRecipe, chat: Chat, data: SftData, seq_len: int, replay: Replay | None = None
) -> Task[Decoder, SftBatch]:
    """Learning the assistants' turns, judged by loss and by answers on held-out conversations."""
    train, text_rows = recipe.train, _text_rows(recipe, seq_len)
    rows, micro = train.global_batch_tokens // seq_len, train.micro_batch_tokens // seq_len

    def batches(step: int) -> list[SftBatch]:
        windows = data.train.batch(step * (rows - text_rows), rows - text_rows)
        if replay is not None:
            windows = replay.mixed(windows, step * text_rows, text_rows)
        starts = range(0, rows, micro)
        return [
            batch_of(windows, slice(i, i + micro), train.seed + step * rows + i) for i in starts
        ]

    def loss(model: Decoder, batch: SftBatch) -> Tensor:
        noisy = train.neftune_alpha is not None and torch.is_grad_enabled()
        with _noise(model, train.neftune_alpha or 0.0, batch) if noisy else nullcontext():
            return next_token_loss(model, batch)

    def evaluate(model: Decoder) -> dict[str, float]:
        scores: dict[str, float] = {}
        if data.held_out is not None:
            scores["loss"] = held_out_loss(model, data.held_out)
        if replay is not None:
            scores["bits_per_byte"] = held_out_scores(model, replay.held_out)["bits_per_byte"]
        return scores | answer_scores(model, chat, data, train.max_new_tokens)

    def samples(model: Decoder) -> list[Mapping[str, Any]]:
        written: list[Mapping[str, Any]] = []
        for question in spread(data.questions, _SAMPLES):
            turn = answer(model, chat, question.prompt_ids, train.max_new_tokens)
            calls = "".join(f"[{c.name} {c.arguments} → {c.result}] " for c in turn.calls)
            written.append({"prompt": chat.decode(question.prompt_ids), "text": calls + turn.text})
        return written

    return Task(batches=batches, loss=loss, evaluate=evaluate, samples=samples)


def batch_of(windows: Windows, rows: slice, noise_seed: int = 0) -> SftBatch:
    """Some of the windows as tensors."""
    # Rows of a single document take the faster causal kernel; the sum does not mind the order.
    order = np.argsort(windows.document_BT[rows][:, -1] > 0, kind="stable")
    labels_BT = windows.labels_BT[rows][order]
    return SftBatch(
        ids_BT=torch.from_numpy(windows.ids_BT[rows][order]),
        labels_BT=torch.from_numpy(labels_BT),
        document_BT=torch.from_numpy(windows.document_BT[rows][order]),
        n_valid=int(np.count_nonzero(labels_BT >= 0)),
        noise_seed=noise_seed,
    )


@contextmanager
def _noise(model: Decoder, alpha: float, batch: SftBatch) -> Iterator[None]:
    """NEFTune (Jain et al. 2024): uniform noise of size alpha/√(T·D) on every embedding."""
    draw = torch.Generator().manual_seed(batch.noise_seed)

    def add(module: nn.Module, args: tuple[Tensor, ...], out_BTD: Tensor) -> Tensor:
        size = alpha / math.sqrt(out_BTD.shape[1] * out_BTD.shape[2])
        noise_BTD = torch.rand(out_BTD.shape, generator=draw, dtype=out_BTD.dtype)
        return out_BTD + (2 * noise_BTD - 1) * size

    handle = model.embed_tokens.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def held_out_loss(model: Decoder, conversations: Conversations) -> float:
    """Nats per supervised token."""
    total, count = 0.0, 0
    for start in range(0, conversations.n_windows, EVAL_ROWS):
        bins = np.arange(start, min(start + EVAL_ROWS, conversations.n_windows))
        batch = batch_of(conversations.at(bins), slice(None))
        total += next_token_loss(model, batch).item()
        count += batch.n_valid
    return total / count


def answer_scores(model: Decoder, chat: Chat, data: SftData, most: int) -> dict[str, float]:
    """Share of held-out questions answered right, whole and by kind of problem, and the share of
    answers in which a tool was called."""
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    called = 0
    for question in data.questions:
        turn = answer(model, chat, question.prompt_ids, most)
        asked[question.kind] += 1
        right[question.kind] += is_right(turn.text, question.answer)
        called += bool(turn.calls)
    total = asked.total()
    if not total:
        return {}
    by_kind = {f"exact_match_{kind}": right[kind] / asked[kind] for kind in sorted(asked) if kind}
    scores = {"exact_match": right.total() / total, **by_kind}
    return scores | ({"tool_calls": called / total} if called else {})
