"""Grokking: (a + b) mod p is first memorised and, with enough weight decay, later understood.

After Power et al. 2022 and Nanda et al. 2023, on the one training loop. Not for language, nor for
pictures (`reporting/grokking_page.py`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.core.artifact import write_json, write_manifest
from isoflop.core.console import SILENT, Progress
from isoflop.core.foresight import Foresight, Span
from isoflop.core.hardware import machine
from isoflop.core.lock import locked
from isoflop.core.process import peak_memory_bytes
from isoflop.core.recipe import to_dict
from isoflop.data.loader import IGNORED
from isoflop.evaluation.grokking_recipe import GrokkingRecipe
from isoflop.models.accounting import flops_per_token
from isoflop.models.build import build_model
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training.guard_recipe import GuardConfig
from isoflop.training.loop import LoopConfig, run
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.run_directory import CONFIG, claim_for
from isoflop.training.step import Task

RESULTS = "grokking.json"
KNOWN = 0.99
"""Accuracy from which pairs count as memorised, or held-out ones as understood."""
TOKENS = 3
"""Of an example: a, b, and the sign after which the sum is foretold."""
WARMUP_STEPS = 10
TOP_FREQUENCIES = 5
_TIMED_STEPS = 40
_SPREAD = 1.5
"""Evaluations lie closer together at the start, which is what is timed."""


@dataclass(frozen=True)
class Moment:
    """An arm after some steps."""

    step: int
    train_loss: float
    """Nats per pair, over all trained pairs."""
    loss: float
    """The same over the held-out pairs."""
    train_accuracy: float
    accuracy: float
    """Of the held-out pairs."""
    weight_norm: float
    """Root of the sum of all squared weights."""
    fourier_top: float
    """Share of the embedding's energy in its five strongest frequencies (Nanda et al. 2023: a
    model that adds on circles needs few)."""


@dataclass(frozen=True)
class Arm:
    """One weight decay."""

    weight_decay: float
    moments: tuple[Moment, ...]
    spectrum: tuple[float, ...]
    """Share of the embedding's energy at the frequencies 1 … (p − 1)/2, at the end."""

    @property
    def memorised_at(self) -> int | None:
        """First step judged at which 99 % of the trained pairs are right."""
        return next((m.step for m in self.moments if m.train_accuracy >= KNOWN), None)

    @property
    def generalised_at(self) -> int | None:
        """First step judged at which 99 % of the held-out pairs are right."""
        return next((m.step for m in self.moments if m.accuracy >= KNOWN), None)

    @property
    def best_accuracy(self) -> float:
        """Highest held-out accuracy of all moments."""
        return max(m.accuracy for m in self.moments)

    def document(self) -> dict[str, Any]:
        """As in `grokking.json`."""
        return {
            "weight_decay": self.weight_decay, "memorised_at": self.memorised_at,
            "generalised_at": self.generalised_at, "best_accuracy": self.best_accuracy,
            "moments": [asdict(m) for m in self.moments], "spectrum": list(self.spectrum),
        }  # fmt: skip


@dataclass(frozen=True)
class Grokking:
    """All arms."""

    recipe: GrokkingRecipe
    arms: tuple[Arm, ...]

    def document(self) -> dict[str, Any]:
        """As in `grokking.json`."""
        return {"recipe": to_dict(self.recipe), "arms": [arm.document() for arm in self.arms]}


@dataclass(frozen=True)
class _Pairs:
    """All examples, split."""

    ids_NT: Tensor
    sum_N: Tensor
    train: Tensor
    """Numbers of the examples trained on."""
    held_out: Tensor


def run_grokking(recipe: GrokkingRecipe, out: Path, progress: Progress = SILENT) -> Grokking:
    """Train all arms in `out`, or continue where they stopped; writes `grokking.json`.

    Raises:
        RunError: `out` holds something else.
    """
    with locked(out):
        claim_for(out, to_dict(recipe), (), "", "grokking run")
        pairs = _pairs(recipe)
        total = recipe.steps * recipe.batch_pairs * TOKENS
        arms = []
        for decay in recipe.weight_decays:
            progress.start(f"weight decay {decay:g}", total, "tokens")
            arms.append(_train(recipe, pairs, decay, out / "arms" / f"decay-{decay:g}", progress))
            progress.finish(f"held-out accuracy {arms[-1].moments[-1].accuracy:.1%}")
        found = Grokking(recipe, tuple(arms))
        write_json(out / RESULTS, found.document())
        write_manifest(
            out, kind="grokking", config=to_dict(recipe), machine=machine(), seed=recipe.seed,
            files=[out / RESULTS, out / CONFIG, *sorted((out / "arms").rglob("*.jsonl"))],
        )  # fmt: skip
    return found


def foresee(recipe: GrokkingRecipe) -> Foresight:
    """Time a few steps of one arm; they all cost the same, and checkpoints are two at most."""
    few = replace(recipe, steps=_TIMED_STEPS, evaluations=1, weight_decays=recipe.weight_decays[:1])
    with TemporaryDirectory() as aside:
        began = time.perf_counter()
        run_grokking(few, Path(aside) / "timed")
        each = (time.perf_counter() - began) / _TIMED_STEPS
    arms = len(recipe.weight_decays)
    seconds = arms * recipe.steps * each
    params = sum(p.numel() for p in _model(recipe).parameters())
    return Foresight(
        Span(seconds, seconds / _SPREAD, seconds * _SPREAD),
        peak_memory_bytes(),
        arms * (2 * 12 * params + 30 * recipe.steps),
        (f"{arms} arms of {recipe.steps:,} steps of {1000 * each:.3g} ms, measured now",),
    )


def fourier_shares(embedding_PD: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Share of a table's energy at each frequency of its rows' numbers.

    Args:
        embedding_PD: One row per number 0 … p − 1.

    Returns:
        (p // 2,) shares of frequencies 1 …; that of the mean row, frequency 0, is left out.
    """
    amplitudes = np.fft.rfft(embedding_PD.astype(np.float64), axis=0)[1:]
    energy = (np.abs(amplitudes) ** 2).sum(axis=1)
    return np.asarray(energy / energy.sum())


def _pairs(recipe: GrokkingRecipe) -> _Pairs:
    p = recipe.modulus
    a_N, b_N = torch.arange(p).repeat_interleave(p), torch.arange(p).repeat(p)
    ids_NT = torch.stack((a_N, b_N, torch.full_like(a_N, p)), dim=1)
    order = torch.randperm(p * p, generator=torch.Generator().manual_seed(recipe.seed))
    train = order[: recipe.train_pairs]
    return _Pairs(ids_NT, (a_N + b_N) % p, train, order[recipe.train_pairs :])


def _model(recipe: GrokkingRecipe) -> Decoder:
    model = build_model(
        DecoderConfig(
            vocab_size=recipe.modulus + 1, d_model=recipe.d_model, n_layers=1,
            n_heads=recipe.n_heads, n_kv_heads=recipe.n_heads,
            head_dim=recipe.d_model // recipe.n_heads, d_ff=4 * recipe.d_model,
            max_seq_len=TOKENS, tie_embeddings=False, positions="learned", activation="relu",
            qk_norm=False,
        )
    )  # fmt: skip
    if not isinstance(model, Decoder):
        raise TypeError("a decoder's config makes a decoder")
    initialise(model, recipe.seed)
    return model


def _train(
    recipe: GrokkingRecipe, pairs: _Pairs, decay: float, directory: Path, progress: Progress
) -> Arm:
    directory.mkdir(parents=True, exist_ok=True)
    model = _model(recipe)
    tokens = recipe.batch_pairs * TOKENS
    run(
        model,
        # All weights decay: every row of the embedding gets a gradient to oppose it.
        torch.optim.AdamW(
            model.parameters(), recipe.learning_rate, (0.9, recipe.beta2), weight_decay=decay
        ),
        lambda seen: recipe.learning_rate * min(1.0, (seen / tokens + 1) / WARMUP_STEPS),
        _task(recipe, pairs),
        LoopConfig(
            steps=recipe.steps,
            batch_tokens=lambda step: tokens,
            flops_per_token=flops_per_token(model.config, TOKENS).training,
            peak_flops=None,
            clip_norm=math.inf,
            log_every=10,
            evaluate_at=recipe.moments,
            checkpoint_every=1000,
            keep_checkpoints_at=frozenset(),
            tensorboard=False,
            guard=GuardConfig(spike_z=0),  # with strong decay losses jump, and that is the subject
        ),
        directory,
        progress,
    )
    rows = [json.loads(line) for line in (directory / "evals.jsonl").read_text().splitlines()]
    names = Moment.__dataclass_fields__
    moments = tuple(Moment(**{name: row[name] for name in names}) for row in rows)
    return Arm(decay, moments, tuple(fourier_shares(_numbers(model)).tolist()))


def _numbers(model: Decoder) -> npt.NDArray[np.float64]:
    """The embedding's rows of 0 … p − 1."""
    rows: npt.NDArray[np.float64] = model.embed_tokens.weight.detach().double().numpy()[:-1]
    return rows


def _task(recipe: GrokkingRecipe, pairs: _Pairs) -> Task[Decoder, TokenBatch]:
    def batches(step: int) -> Sequence[TokenBatch]:
        draw = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step + 1)
        drawn = torch.randint(len(pairs.train), (recipe.batch_pairs,), generator=draw)
        ids_BT = pairs.ids_NT[pairs.train[drawn]]
        labels_BT = torch.full_like(ids_BT, IGNORED)
        labels_BT[:, -1] = pairs.sum_N[pairs.train[drawn]]
        return [TokenBatch(ids_BT, labels_BT, torch.zeros_like(ids_BT), recipe.batch_pairs)]

    def judge(model: Decoder) -> Mapping[str, float]:
        logits_NV: Tensor = model.lm_head(model.hidden(pairs.ids_NT)[:, -1])
        right_N = (logits_NV.argmax(-1) == pairs.sum_N).double()
        loss_N = F.cross_entropy(logits_NV, pairs.sum_N, reduction="none").double()
        squares = sum(float((weights.double() ** 2).sum()) for weights in model.parameters())
        top = np.sort(fourier_shares(_numbers(model)))[-TOP_FREQUENCIES:]
        return {
            "train_loss": loss_N[pairs.train].mean().item(),
            "loss": loss_N[pairs.held_out].mean().item(),
            "train_accuracy": right_N[pairs.train].mean().item(),
            "accuracy": right_N[pairs.held_out].mean().item(),
            "weight_norm": math.sqrt(squares),
            "fourier_top": float(top.sum()),
        }

    return Task(batches=batches, loss=next_token_loss, evaluate=judge, samples=lambda model: ())
