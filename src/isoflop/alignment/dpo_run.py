"""`isoflop dpo` from recipe to result: the reference kept on disk, the loop, the model written.

Not for the losses (`preference.py`) nor the task (`dpo.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from isoflop.alignment.answers import Answer, AnswerRows, answer_rows
from isoflop.alignment.chat import Chat, open_chat
from isoflop.alignment.dpo import PairBatch, dpo_task, reference_logprobs, steps_for
from isoflop.alignment.dpo_recipe import DpoRecipe
from isoflop.alignment.pairs import Pairs, Rated, answers_of, open_pairs, open_rated
from isoflop.alignment.replay import text_cost
from isoflop.alignment.run import in_directory, loop_config, rate_over, write_left_out
from isoflop.alignment.save import save_chat_model
from isoflop.core.artifact import (
    MANIFEST,
    atomic_file,
    read_json,
    sha256_file,
    sha256_json,
    write_json,
)
from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import DataError, RecipeError
from isoflop.core.process import peak_memory_bytes
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.accounting import count_parameters
from isoflop.models.convert import load_decoder
from isoflop.models.decoder import Decoder
from isoflop.training.loop import run
from isoflop.training.optimizers import build_optimizer
from isoflop.training.parallel.apply import apply_layout, whole_model
from isoflop.training.parallel.ranks import Ranks, processes

REFERENCE, REFERENCE_FACTS = "reference.safetensors", "reference.json"


@dataclass(frozen=True)
class DpoResult:
    """What a finished run of DPO came to."""

    run: Path
    params_total: int
    pairs: int
    """Pairs (of KTO: rated answers) learnt from."""
    left_out: int
    """Pairs that were too long or the same."""
    steps: int
    loss: float | None
    """Final held-out loss; None if nothing is held out."""
    accuracy: float | None
    """Share of held-out pairs whose chosen answer has the larger implicit reward."""
    margin: float | None
    """Mean implicit reward of chosen less rejected, held out."""
    bits_per_byte_before: float | None
    """Of held-out text of `data.text` by the model it started from; None without it."""
    bits_per_byte: float | None
    """Of the same text by what it became."""
    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class _Data:
    train: PairBatch
    held_out: PairBatch | None
    pairs: Pairs
    """Where it was made of them; none for KTO."""


def dpo(recipe: DpoRecipe, out: Path, progress: Progress = SILENT) -> DpoResult:
    """Run or continue direct preference optimisation in the directory `out`.

    Raises:
        RunError: The directory belongs to another recipe or version, or training diverged.
        ArtifactError: The model, the set or a checkpoint cannot be used.
        DataError: The set has no pairs that can be used.
    """
    inputs = [(recipe.data.set, "instruct"), (recipe.model.path, "model")]
    if recipe.data.text is not None:
        inputs.append((recipe.data.text, "shards"))
    if recipe.dpo.reference is not None:
        inputs.append((recipe.dpo.reference, "model"))
    train = recipe.train
    with processes(recipe.parallel) as ranks:
        mine = progress if ranks.is_main else SILENT
        return in_directory(
            out, recipe, inputs, train.seed, train.threads,
            lambda fields: DpoResult(**fields), lambda: _train(recipe, out, mine, ranks), ranks,
        )  # fmt: skip


def _train(recipe: DpoRecipe, out: Path, progress: Progress, ranks: Ranks) -> DpoResult:
    train = recipe.train
    model = load_decoder(recipe.model.path)
    chat = open_chat(load_tokenizer(recipe.model.path), recipe.model.chat_template)
    data = ranks.main_first(lambda: _open(recipe, chat, model, out))
    write_left_out(out, data.pairs.left_out, data.pairs.counted(), ranks)
    rows, count = data.train.rows, data.train.n_valid
    text, start = recipe.data.text, recipe.model.path
    before = None if text is None else text_cost(model, text, start)
    steps = steps_for(train.epochs, count, train.batch_pairs)
    positions = rows.ids_BT.shape[1]
    step_tokens = 2 * train.batch_pairs * positions
    progress.start(out.name, steps * step_tokens, "tokens")
    task = apply_layout(model.train(), dpo_task(recipe, data.train, data.held_out), ranks)
    state = run(
        model,
        build_optimizer(model, recipe.optimizer),
        rate_over(recipe.optimizer, steps, step_tokens),
        task,
        loop_config(
            train,
            recipe.optimizer,
            recipe.guard,
            model.config,
            steps,
            step_tokens,
            positions,
            ranks=ranks,
        ),
        out,
        progress,
    )
    lines = ranks.from_main((out / "evals.jsonl").read_text).splitlines()
    score = json.loads(lines[-1])
    whole = whole_model(model, ranks)
    ranks.from_main(
        lambda: save_chat_model(whole, out / "model", recipe.model.path, chat, recipe.data.set)
    )
    progress.finish(f"held-out accuracy {score['accuracy']:.1%}" if "accuracy" in score else "")
    return DpoResult(
        run=out,
        params_total=count_parameters(model.config).params_total,
        pairs=count,
        left_out=len(data.pairs.left_out),
        steps=state.step,
        loss=score.get("loss"),
        accuracy=score.get("accuracy"),
        margin=score.get("margin"),
        bits_per_byte_before=before,
        bits_per_byte=None
        if text is None
        else ranks.from_main(lambda: text_cost(whole, text, start)),
        seconds=ranks.from_main(lambda: state.seconds),
        peak_memory_bytes=ranks.largest(peak_memory_bytes()),
    )


def _open(recipe: DpoRecipe, chat: Chat, model: Decoder, out: Path) -> _Data:
    """The pairs (for KTO the rated answers) with their reference log-probabilities."""
    limit = recipe.train.max_tokens or model.config.max_seq_len
    most, directory = recipe.train.eval_pairs, recipe.data.set
    desirable: list[Tensor | None] = [None, None]
    if recipe.dpo.loss == "kto":
        splits = [
            open_rated(directory, "train", chat, limit),
            open_rated(directory, "held_out", chat, limit)[:most],
        ]
        if len(splits[0]) < 2:
            raise DataError(
                "the set has fewer than two rated answers to learn from",
                where=str(directory),
                fix="Give rows with `label`, or preference pairs",
            )
        if len(splits[1]) < 2:
            splits[1] = []
        answers = [with_mismatched(split) for split in splits]
        desirable = [torch.tensor([each.desirable for each in split]) for split in splits]
        pairs = Pairs((), (), ())
    else:
        pairs = open_pairs(directory, chat, limit)
        answers = [answers_of(pairs.train), answers_of(pairs.held_out[:most])]
    rows = [answer_rows(some) for some in answers if some]
    known = _reference(recipe, chat, model, rows, out)
    batches = [
        PairBatch(some, logprobs, recipe.dpo.label_smoothing, good)
        for some, logprobs, good in zip(rows, known, desirable, strict=False)
    ]
    return _Data(batches[0], batches[1] if len(batches) > 1 else None, pairs)


def with_mismatched(rated: Sequence[Rated]) -> list[Answer]:
    """The answers, then each answer behind the prompt of the next row: KTO's measure of how far
    the policy drifts anyway."""
    answers = [each.answer for each in rated]
    behind = [*answers[1:], *answers[:1]]
    return answers + [
        Answer(other.prompt, answer.ids) for answer, other in zip(answers, behind, strict=True)
    ]


def _reference(
    recipe: DpoRecipe, chat: Chat, model: Decoder, rows: Sequence[AnswerRows], out: Path
) -> list[Tensor]:
    """log π_ref of all answers, computed once and kept in the run directory with its hash."""
    ids = [torch.cat((some.start_B, some.lengths_B)).tolist() for some in rows]
    origin = recipe.dpo.reference or recipe.model.path
    about = {
        "model": sha256_file(origin / MANIFEST),
        "set": sha256_file(recipe.data.set / MANIFEST),
        "template": chat.template,
        "rows": ids,
    }
    key, path, facts = sha256_json(about), out / REFERENCE, out / REFERENCE_FACTS
    if path.exists() and facts.exists():
        told = read_json(facts)
        if told == {"key": key, "sha256": sha256_file(path)}:
            held = safetensors.torch.load_file(path)
            return [held[name] for name in sorted(held)]
    given = recipe.dpo.reference
    reference = (deepcopy(model) if given is None else load_decoder(given)).requires_grad_(False)
    if reference.config.vocab_size != model.config.vocab_size:
        raise RecipeError(
            "the reference has another vocabulary than the model",
            where=str(given),
            fix="Take one with the same tokenizer",
        )
    size = 2 * recipe.train.micro_batch_pairs
    found = [reference_logprobs(reference, some, size) for some in rows]
    tensors = {f"{number}": logprobs for number, logprobs in enumerate(found)}
    with atomic_file(path) as file:
        file.write(safetensors.torch.save(tensors))
    write_json(facts, {"key": key, "sha256": sha256_file(path)})
    return found
