"""The smaller decoder of `drop` and `distill`: made, foretold by short runs, and trained.

Not for the loss (`distill.py`), nor for which parts are dropped (`drop.py`), nor for the run's
directory (`student_run.py`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from isoflop.compression.distill import Student, distillation_loss
from isoflop.compression.drop import drop_parts
from isoflop.compression.measure import window_losses
from isoflop.compression.recipe import CompressConfig, StudentConfig
from isoflop.compression.sensitivity import LEVEL
from isoflop.compression.texts import Texts
from isoflop.core.console import Progress
from isoflop.core.errors import RecipeError
from isoflop.data.loader import Loader, Windows
from isoflop.models.accounting import flops_per_token
from isoflop.models.build import build_model
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training.loop import LoopConfig, run
from isoflop.training.objectives import TokenBatch
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.pretrain import held_out_scores
from isoflop.training.schedules import learning_rate_factor
from isoflop.training.step import Task

PILOTS = (16, 8, 4)
"""Pilots are whole runs of this part of the steps each."""


@dataclass(frozen=True)
class Shrink:
    """What doubling the text brings, relative to the doubling before."""

    low: float
    typical: float
    """What the pilots' own ratio is averaged with."""
    high: float


LEARNS = Shrink(0.4, 0.7, 1.25)
"""Of new weights. A power law with an exponent β has 2^-β: 0.7 at β = 0.5; early in a training it
is above 1."""
HEALS = Shrink(0.0, 0.3, 0.7)
"""Of weights that were kept: most is gained at once, and the full model is near."""
WARMUP, DECAY = 0.05, 0.2
ROWS = 16
"""Windows per forward and backward pass."""


@dataclass(frozen=True)
class Outlook:
    """What a student will lose, foretold from short runs."""

    tokens: tuple[int, ...]
    """Of each pilot."""
    pilots: tuple[float, ...]
    """Bits per byte that each pilot's student adds to the full model's, on the probe."""
    added: float
    """Bits per byte that the student is foretold to add."""
    low: float
    high: float
    """Ends of the interval at `LEVEL`."""
    bits_per_byte: float
    """Of the full model, on the probe."""

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Outlook:
        """What `asdict` made and JSON kept.

        Raises:
            KeyError, TypeError: It is something else.
        """
        lists = {name: tuple(raw[name]) for name in ("tokens", "pilots")}
        return cls(**{**raw, **lists})


def smaller_config(config: DecoderConfig, student: StudentConfig) -> DecoderConfig:
    """The shape of a student of `distill`.

    Raises:
        RecipeError: It is no smaller than the model, or its parts do not fit each other.
    """
    width, layers = student.width, student.layers
    if width is None:
        width = config.d_model if layers is not None else max(32, config.d_model // 64 * 32)
    layers = layers or config.n_layers
    if width > config.d_model or layers > config.n_layers:
        raise RecipeError(
            f"a student of width {width} with {layers} layers is larger than the model, which has "
            f"width {config.d_model} and {config.n_layers}",
            where="compress",
            fix="Give a smaller --student.width or --student.layers",
        )
    if (width, layers) == (config.d_model, config.n_layers):
        raise RecipeError(
            f"the student would be as large as the model: width {width}, {layers} layers",
            where="compress",
            fix="Give a smaller --student.width or --student.layers",
        )
    ratio = width / config.d_model
    heads = max(1, round(config.n_heads * ratio))
    experts = config.experts
    if experts is not None:
        experts = replace(experts, d_expert=_inner(experts.d_expert, ratio))
    return replace(
        config,
        d_model=width,
        n_layers=layers,
        n_heads=heads,
        n_kv_heads=math.gcd(config.n_kv_heads, heads),
        d_ff=_inner(config.d_ff, ratio),
        experts=experts,
    )


def _inner(size: int, ratio: float) -> int:
    return size if ratio == 1 else math.ceil(size * ratio / 32) * 32


def make_student(teacher: Decoder, config: CompressConfig, texts: Texts) -> Decoder:
    """The student before its training: some of the teacher's parts, or new weights.

    Raises:
        RecipeError: The shape asked for cannot be.
    """
    if config.method == "drop":
        return drop_parts(teacher, config.student, texts.calibration)
    student = build_model(smaller_config(teacher.config, config.student))
    if not isinstance(student, Decoder):
        raise TypeError("the shape of a decoder made another model")
    initialise(student, config.student.seed)
    return student


def train_student(
    teacher: Decoder,
    start: Decoder,
    student: StudentConfig,
    texts: Texts,
    steps: int,
    directory: Path,
    progress: Progress,
) -> Decoder:
    """Train a copy of `start` for some steps, or go on from the newest checkpoint in `directory`.

    Raises:
        RunError: Training diverged, or was interrupted; a checkpoint was written first.
    """
    hidden = student.hidden_weight > 0
    model = Student(copy.deepcopy(start), teacher.config.d_model if hidden else None).train()
    rows = max(1, student.batch_tokens // teacher.config.max_seq_len)
    step_tokens = rows * teacher.config.max_seq_len
    optimizer = OptimizerConfig(
        learning_rate=student.learning_rate,
        warmup_tokens=round(WARMUP * steps * step_tokens),
        decay_fraction=DECAY,
    )
    directory.mkdir(parents=True, exist_ok=True)
    run(
        model,
        build_optimizer(model, optimizer),
        _rate(optimizer, steps * step_tokens, step_tokens),
        _task(teacher, student, texts, rows),
        LoopConfig(
            steps=steps,
            batch_tokens=lambda step: step_tokens,
            flops_per_token=flops_per_token(start.config, start.config.max_seq_len).training,
            peak_flops=None,
            clip_norm=optimizer.clip_norm,
            log_every=min(20, steps),
            evaluate_at=frozenset({steps // 2, steps} - {0}),
            checkpoint_every=student.checkpoint_every,
            keep_checkpoints_at=frozenset(),
            tensorboard=False,
        ),
        directory,
        progress,
    )
    return model.decoder.eval()


def _task(
    teacher: Decoder, student: StudentConfig, texts: Texts, rows: int
) -> Task[Student, TokenBatch]:
    order = Loader(texts.train, teacher.config.max_seq_len, student.seed)

    def batches(step: int) -> list[TokenBatch]:
        windows = order.batch(step * rows, rows)
        return [_batch(windows, slice(at, at + ROWS)) for at in range(0, rows, ROWS)]

    return Task(
        batches=batches,
        loss=distillation_loss(
            teacher, student.teacher_weight, student.temperature, student.hidden_weight
        ),
        evaluate=lambda model: held_out_scores(model.decoder, texts.probe),
        samples=lambda model: [],
    )


def _batch(windows: Windows, rows: slice) -> TokenBatch:
    labels_BT = windows.labels_BT[rows]
    return TokenBatch(
        ids_BT=torch.from_numpy(windows.ids_BT[rows]),
        labels_BT=torch.from_numpy(labels_BT),
        document_BT=torch.from_numpy(windows.document_BT[rows]),
        n_valid=int(np.count_nonzero(labels_BT >= 0)),
    )


def _rate(optimizer: OptimizerConfig, total: int, step_tokens: int) -> Callable[[int], float]:
    def rate(tokens: int) -> float:
        # Taken at the middle of the step, as in pre-training.
        return optimizer.learning_rate * learning_rate_factor(
            tokens + step_tokens // 2,
            total_tokens=total,
            warmup_tokens=optimizer.warmup_tokens,
            schedule=optimizer.schedule,
            decay_fraction=optimizer.decay_fraction,
            final_fraction=optimizer.final_fraction,
        )

    return rate


# --- what it will come to ------------------------------------------------------------------


def foretell_student(
    teacher: Decoder,
    start: Decoder,
    student: StudentConfig,
    texts: Texts,
    directory: Path,
    progress: Progress,
    shrink: Shrink,
) -> Outlook:
    """Foretell the student's loss from runs over a 16th, an 8th and a quarter of the text, each
    whole with its own warm-up and decay, in directories below `directory`."""
    base = window_losses(teacher, texts.probe)
    per_window: list[npt.NDArray[np.float64]] = []
    for part in PILOTS:
        steps = student.steps // part
        trained = train_student(
            teacher, start, student, texts, steps, directory / f"steps-{steps}", progress
        )
        per_window.append(window_losses(trained, texts.probe) - base)
    to_bits = len(base) / (math.log(2) * texts.probe.text_bytes)
    gaps = [float(each.mean()) * to_bits for each in per_window]
    added, low, high = extrapolated(gaps, round(math.log2(PILOTS[-1])), shrink)
    n = len(base)
    spread = float(per_window[-1].std(ddof=1)) * to_bits
    chance = spread * math.sqrt(1 / n + 1 / len(texts.held_out.ids_BT))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * chance
    rows = max(1, student.batch_tokens // teacher.config.max_seq_len)
    return Outlook(
        tokens=tuple(student.steps // p * rows * teacher.config.max_seq_len for p in PILOTS),
        pilots=tuple(gaps),
        added=added,
        low=low - reach,
        high=high + reach,
        bits_per_byte=float(base.mean()) * to_bits,
    )


def extrapolated(
    gaps: list[float], doublings: int, shrink: Shrink = LEARNS
) -> tuple[float, float, float]:
    """(value, low, high) of a quantity after so many doublings of the text more.

    Args:
        gaps: Its values at three amounts of text, each twice the one before. What a doubling takes
            off is taken to shrink by the same factor each time: the pilots' own, averaged with the
            typical one; the ends allow for the least and the greatest.
    """
    first, second = gaps[0] - gaps[1], gaps[1] - gaps[2]
    seen = second / first if first > 0 else shrink.typical
    factor = math.sqrt(min(shrink.high, max(shrink.low, seen)) * shrink.typical)

    def after(ratio: float) -> float:
        return gaps[-1] - second * sum(ratio**k for k in range(1, doublings + 1))

    found = sorted((after(shrink.low), after(factor), after(shrink.high)))
    return found[1], found[0], found[2]
