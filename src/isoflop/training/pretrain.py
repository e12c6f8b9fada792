"""Pre-training from recipe to result, and the `Task` of next-token prediction for the loop.

Not for the loop itself (`loop.py`) nor the run directory's bookkeeping (`run_directory.py`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from isoflop.core.artifact import MANIFEST, read_json, write_json
from isoflop.core.console import SILENT, Progress, warn
from isoflop.core.process import keep_freed_buffers
from isoflop.data.loader import EvalWindows, Windows
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.accounting import count_parameters, flops_per_token
from isoflop.models.attention_logits import largest_attention_logits
from isoflop.models.build import build_model
from isoflop.models.config import AnyConfig
from isoflop.models.convert import save_model
from isoflop.models.decoder import Decoder
from isoflop.models.generate import generate
from isoflop.models.initialise import initialise
from isoflop.models.moe import count_assigned, expert_use
from isoflop.training.batches import (
    HeldOut,
    TrainingData,
    described,
    micro_batches,
    open_data,
    step_rows,
)
from isoflop.training.execution import arrange, choose_kernels
from isoflop.training.forecast import Forecaster
from isoflop.training.loop import LoopConfig, run
from isoflop.training.masked import masked_work
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizers import build_optimizer
from isoflop.training.parallel.apply import apply_layout, whole_model
from isoflop.training.parallel.ranks import Ranks, processes
from isoflop.training.parallel.recipe import require_fit, require_passes
from isoflop.training.precision import Precision, choose_precision
from isoflop.training.recipe import TrainRecipe
from isoflop.training.run_directory import claimed, seal
from isoflop.training.scaling import Scaling, scale_output
from isoflop.training.schedules import learning_rate_factor
from isoflop.training.seq2seq import pair_work, span_work
from isoflop.training.step import Task, Work, one_pass

SAMPLE_TOKENS = 48
EVAL_ROWS = 16
"""Windows per forward pass of an evaluation."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished run came to."""

    run: Path
    params: int
    """Weights, except input and position embeddings."""
    params_total: int
    tokens: int
    """Training tokens of the whole run."""
    flops: float
    steps: int
    loss: float
    """Final held-out loss in nats per token."""
    bits_per_byte: float | None
    """Final held-out loss per byte of text; None where not every byte is foretold."""
    seconds: float
    """Wall-clock seconds of training, over all sessions."""
    peak_memory_bytes: int
    """Most memory a process of the run has held; on another device than the CPU, its tensors
    there."""


def train(
    recipe: TrainRecipe,
    out: Path,
    progress: Progress = SILENT,
    *,
    branch_from: Path | None = None,
) -> TrainResult:
    """Run or continue a pre-training run in the directory `out`.

    Started by torchrun, the processes share it as the recipe's `[parallel]` says; the main rank
    writes the files, and all return the same.

    Args:
        branch_from: Another run's checkpoint to begin from. With the `wsd` schedule, beginning
            from a trunk's checkpoint before this run's decay gives the bits of a run from
            scratch.

    Raises:
        RunError: The directory belongs to another recipe or version, or training diverged.
        ArtifactError: The shards or a checkpoint cannot be used.
    """
    with processes(recipe.parallel) as ranks, claimed(out, recipe, ranks):
        finished = out / "result.json"
        if ranks.from_main(finished.exists):
            result = TrainResult(**{**read_json(finished), "run": out})
        else:
            mine = progress if ranks.is_main else SILENT
            result = _train(recipe, out, mine, branch_from, ranks)
            if ranks.is_main:
                write_json(finished, {**vars(result), "run": out.name})
        if ranks.is_main and not (out / MANIFEST).exists():  # a kill may have come in between
            seal(out, recipe)
        return result


def _train(
    recipe: TrainRecipe, out: Path, progress: Progress, branch_from: Path | None, ranks: Ranks
) -> TrainResult:
    torch.set_num_threads(recipe.train.threads or torch.get_num_threads())
    keep_freed_buffers()
    # What it measures or builds is kept on disk: the others find it there.
    precision = ranks.main_first(lambda: choose_precision(recipe.train.dtype, recipe.train.device))
    work = work_of(recipe)
    for warning in work.warnings if ranks.is_main else ():
        warn(warning)
    config = work.config
    require_fit(recipe.parallel, config, recipe.train.seq_len)
    for step in (0, recipe.steps - 1):
        passes = recipe.batch_ramp.batch_tokens(step) // recipe.train.micro_batch_tokens
        require_passes(recipe.parallel, passes)
    model = build_model(config)
    initialise(model, recipe.train.seed)
    scaling = scaling_of(recipe, config)
    scale_output(model, scaling)
    model.to(precision.device)
    facts = ranks.main_first(lambda: choose_kernels(recipe.train, precision))
    if isinstance(model, Decoder):
        once = one_pass(model, work.task, precision)
        facts = {**facts, **arrange(model, recipe.train, precision, once)}
    task = apply_layout(model, work.task, ranks, recipe.train.seq_len)
    progress.start(f"train {out.name}", recipe.batch_ramp.first_token(recipe.steps), "tokens")
    state = run(
        model,
        build_optimizer(model, recipe.optimizer, scaling),
        _learning_rate(recipe),
        task,
        replace(_loop_config(recipe, work, precision, ranks), facts=facts),
        out,
        progress,
        branch_from,
    )
    whole = whole_model(model, ranks)
    score = ranks.from_main(lambda: _last_row(out / "evals.jsonl"))
    progress.finish(f"held-out loss {score['loss']:.4f}")
    read = (*recipe.data.directories, *recipe.data.files)
    folder, seed = work.tokenizer_directory, recipe.train.seed
    ranks.from_main(lambda: save_model(whole, out / "model", folder, inputs=read, seed=seed))
    count = count_parameters(config)
    return TrainResult(
        run=out,
        params=count.params,
        params_total=count.params_total,
        tokens=state.tokens,
        flops=state.flops,
        steps=state.step,
        loss=score["loss"],
        bits_per_byte=score.get("bits_per_byte"),
        seconds=ranks.from_main(lambda: state.seconds),
        peak_memory_bytes=ranks.largest(precision.peak_memory_bytes()),
    )


def work_of(recipe: TrainRecipe) -> Work:
    """Open the data of a recipe and make its objective's task.

    Raises:
        ArtifactError: The shards cannot be used.
        DataError: There is too little data, or the tokenizer lacks tokens that are needed.
    """
    if recipe.kind == "seq2seq":
        return pair_work(recipe)
    data = open_data(recipe)
    if recipe.kind == "masked":
        return masked_work(recipe, data)
    if recipe.kind == "spans":
        return span_work(recipe, data)
    config = recipe.model.decoder_config(data.vocab_size, recipe.train.seq_len)
    return Work(
        config=config,
        task=next_token_task(recipe, data),
        tokenizer_directory=data.tokenizer_directory,
        flops_per_token=flops_per_token(config, recipe.train.seq_len).training,
        warnings=data.warnings,
    )


def scaling_of(recipe: TrainRecipe, config: AnyConfig) -> Scaling:
    """How much larger the model is than the one whose learning rate was tuned."""
    optimizer = recipe.optimizer
    return Scaling.of(config.d_model, config.n_layers, optimizer.base_width, optimizer.base_depth)


def next_token_task(recipe: TrainRecipe, data: TrainingData) -> Task[Decoder, TokenBatch]:
    """Next-token prediction on the training splits, judged on the held-out ones."""
    train = recipe.train
    tokenizer = load_tokenizer(data.tokenizer_directory)
    ramp = recipe.batch_ramp

    def batches(step: int) -> list[TokenBatch]:
        windows = step_rows(data.order, ramp, train.seq_len, step).windows
        n_rows, width = windows.ids_BT.shape
        slices = micro_batches(n_rows, width, train.micro_batch_tokens)
        return [_token_batch(windows, rows) for rows in slices]

    def samples(model: Decoder) -> list[Mapping[str, str]]:
        written: list[Mapping[str, str]] = []
        for prompt in train.sample_prompts:
            new_ids = generate(
                model, tokenizer.encode(prompt), SAMPLE_TOKENS, stop_ids=(data.eos_id,)
            )
            written.append({"prompt": prompt, "text": tokenizer.decode(new_ids)})
        return written

    return Task(
        batches=batches,
        loss=next_token_loss,
        evaluate=lambda model: {
            **data_scores(model, data.held_out),
            "attention_logit_max": attention_logit_max(model, data.held_out),
        },
        samples=samples,
        position=lambda steps: data.position(ramp.first_token(steps) // train.seq_len),
        describe=lambda step: described(recipe, data, step),
    )


def data_scores(model: Decoder, held_out: Mapping[str, HeldOut]) -> dict[str, float]:
    """`held_out_scores` of the data: of the only source, or of a mixture and of each source.

    The loss of a mixture is that of a token drawn from the training as a whole: the losses of the
    sources, weighted by their shares.
    """
    if "" in held_out:
        return held_out_scores(model, held_out[""].windows)
    scores: dict[str, float] = {}
    loss, text_bytes = 0.0, 0.0
    for name, part in held_out.items():
        own = held_out_scores(model, part.windows)
        scores |= {f"loss_{name}": own["loss"], f"bits_per_byte_{name}": own["bits_per_byte"]}
        loss += part.share * own["loss"]
        text_bytes += part.share * part.windows.text_bytes / part.windows.n_labels
    return {"loss": loss, "bits_per_byte": loss / math.log(2) / text_bytes, **scores}


def attention_logit_max(model: Decoder, held_out: Mapping[str, HeldOut]) -> float:
    """The largest attention logit of all layers on the first held-out window."""
    windows = next(iter(held_out.values())).windows
    batch = Precision(model.lm_head.weight.device).moved(_token_batch(windows, slice(0, 1)))
    return largest_attention_logits(model, batch.ids_BT, batch.document_BT).max().item()


def held_out_scores(model: Decoder, windows: EvalWindows) -> dict[str, float]:
    """Loss in nats per token and in bits per byte of text, whole and by kind of document; for a
    mixture of experts also how evenly they were used (`models.moe.ExpertUse`)."""
    loss_sum, kinds = 0.0, len(windows.kinds)
    place = Precision(model.lm_head.weight.device)
    by_kind = np.zeros(kinds)
    assigned: list[torch.Tensor] = []
    for start in range(0, len(windows.ids_BT), EVAL_ROWS):
        rows = slice(start, start + EVAL_ROWS)
        batch = place.moved(_token_batch(windows, rows))
        x_BTD, routing = model.routed(batch.ids_BT, batch.document_BT)
        if routing:
            assigned.append(count_assigned(routing))
        logits_BTV = model.lm_head(x_BTD)
        wide = torch.promote_types(logits_BTV.dtype, torch.float32)
        losses = torch.nn.functional.cross_entropy(
            logits_BTV.to(wide).flatten(0, 1), batch.labels_BT.flatten(), reduction="none"
        ).double()
        loss_sum += losses.sum().item()
        order = _whole_documents_first(windows, rows)
        kind = windows.kind_BT[rows][order].reshape(-1)
        by_kind += np.bincount(kind, weights=losses.cpu().numpy(), minlength=kinds)
    scores = {
        "loss": loss_sum / windows.n_labels,
        "bits_per_byte": loss_sum / math.log(2) / windows.text_bytes,
    }
    for index, name in enumerate(windows.kinds):
        n_bytes = windows.text_bytes_by_kind[name]
        if n_bytes:
            scores[f"bits_per_byte_{name}"] = by_kind[index] / math.log(2) / n_bytes
    if assigned:
        use = expert_use(torch.stack(assigned).sum(0))
        scores |= {f"experts_{name}": value for name, value in vars(use).items()}
    return scores


def _token_batch(windows: Windows, rows: slice) -> TokenBatch:
    order = _whole_documents_first(windows, rows)
    labels_BT = windows.labels_BT[rows][order]
    return TokenBatch(
        ids_BT=torch.from_numpy(windows.ids_BT[rows][order]),
        labels_BT=torch.from_numpy(labels_BT),
        document_BT=torch.from_numpy(windows.document_BT[rows][order]),
        n_valid=int(np.count_nonzero(labels_BT >= 0)),
    )


def _whole_documents_first(windows: Windows, rows: slice) -> npt.NDArray[np.intp]:
    # Rows of a single document take the faster causal kernel; the sum does not mind the order.
    return np.argsort(windows.document_BT[rows][:, -1] > 0, kind="stable")


def _learning_rate(recipe: TrainRecipe) -> Callable[[int], float]:
    optimizer = recipe.optimizer
    total = recipe.batch_ramp.first_token(recipe.steps)

    def at(tokens: int) -> float:
        # The factor of a step is taken at its middle, so that the first step of a warm-up
        # already learns and the last one of a decay to zero still does.
        middle = tokens + recipe.train.global_batch_tokens // 2
        return optimizer.learning_rate * learning_rate_factor(
            middle,
            total_tokens=total,
            warmup_tokens=optimizer.warmup_tokens,
            schedule=optimizer.schedule,
            decay_fraction=optimizer.decay_fraction,
            final_fraction=optimizer.final_fraction,
        )

    return at


def _loop_config(recipe: TrainRecipe, work: Work, precision: Precision, ranks: Ranks) -> LoopConfig:
    train = recipe.train
    peak = ranks.from_main(lambda: precision.peak_flops(torch.get_num_threads()))
    return LoopConfig(
        steps=recipe.steps,
        batch_tokens=recipe.batch_ramp.batch_tokens,
        flops_per_token=work.flops_per_token,
        peak_flops=None if peak is None else peak * ranks.size,
        clip_norm=recipe.optimizer.clip_norm,
        log_every=train.log_every,
        evaluate_at=frozenset(
            round(recipe.steps * (i + 1) / train.evaluations) for i in range(train.evaluations)
        ),
        checkpoint_every=train.checkpoint_every,
        keep_checkpoints_at=frozenset(
            tokens // train.global_batch_tokens for tokens in train.keep_checkpoints_at
        ),
        tensorboard=train.tensorboard,
        guard=recipe.guard,
        precision=precision,
        forecaster=_forecaster(recipe, work.config) if recipe.forecast.on else None,
        average_decay=recipe.optimizer.average_decay,
        ranks=ranks,
    )


def _forecaster(recipe: TrainRecipe, config: AnyConfig) -> Forecaster:
    ramp, rate = recipe.batch_ramp, _learning_rate(recipe)
    return Forecaster(
        recipe.forecast,
        params=count_parameters(config).params,
        tokens=ramp.first_token(recipe.steps),
        steps=recipe.steps,
        learning_rate=lambda step: rate(ramp.first_token(step)),
    )


def _last_row(path: Path) -> Mapping[str, float]:
    lines: Sequence[str] = path.read_text().splitlines()
    row: Mapping[str, float] = json.loads(lines[-1])
    return row
