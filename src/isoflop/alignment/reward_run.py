"""`isoflop reward` from recipe to result: training, the scale of scores, the report.

Not for the loss (`reward.py`) nor the task (`reward_training.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from isoflop.alignment.chat import Chat, open_chat
from isoflop.alignment.dpo import steps_for
from isoflop.alignment.dpo_recipe import RewardRecipe
from isoflop.alignment.pairs import Pairs, open_pairs
from isoflop.alignment.reward_model import RewardModel, save_reward_model
from isoflop.alignment.reward_training import (
    RewardBatch,
    RewardReport,
    heads_of,
    judged,
    report,
    reward_batch,
    reward_task,
)
from isoflop.alignment.rollout import Sampling, sample
from isoflop.alignment.rounds import round_seed
from isoflop.alignment.run import in_directory, loop_config, rate_over, write_left_out
from isoflop.core.artifact import write_json
from isoflop.core.console import SILENT, Progress
from isoflop.core.ledger import LEDGER, Ledger
from isoflop.core.process import peak_memory_bytes
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.accounting import count_parameters
from isoflop.models.convert import load_decoder
from isoflop.training.loop import run
from isoflop.training.optimizers import build_optimizer
from isoflop.training.parallel.ranks import Ranks

REFERENCE_ANSWERS = 256
"""Answers of the model it starts from, by which scores get their zero and their unit."""
_NORMAL_90 = 1.645


@dataclass(frozen=True)
class RewardResult:
    """What a finished training of a reward model came to."""

    run: Path
    params_total: int
    heads: tuple[str, ...]
    pairs: int
    left_out: int
    """Pairs that were too long or the same."""
    steps: int
    accuracy: float | None
    """Share of held-out pairs whose chosen answer scores higher; None if nothing is held out."""
    loss: float | None
    calibration_error: float | None
    length_correlation: float | None
    length_accuracy: float | None
    seconds: float
    peak_memory_bytes: int


def reward(recipe: RewardRecipe, out: Path, progress: Progress = SILENT) -> RewardResult:
    """Run or continue the training of a reward model in the directory `out`.

    Raises:
        RunError: The directory belongs to another recipe or version, or training diverged.
        ArtifactError: The model, the set or a checkpoint cannot be used.
        DataError: The set has no pairs that can be used.
    """
    inputs = [(recipe.data.set, "instruct"), (recipe.model.path, "model")]
    train = recipe.train
    return in_directory(
        out, recipe, inputs, train.seed, train.threads,
        lambda fields: RewardResult(**{**fields, "heads": tuple(fields["heads"])}),
        lambda: _train(recipe, out, progress),
    )  # fmt: skip


def _train(recipe: RewardRecipe, out: Path, progress: Progress) -> RewardResult:
    train = recipe.train
    decoder = load_decoder(recipe.model.path)
    chat = open_chat(load_tokenizer(recipe.model.path), recipe.model.chat_template)
    pairs = open_pairs(recipe.data.set, chat, train.max_tokens or decoder.config.max_seq_len)
    write_left_out(out, pairs.left_out, pairs.counted(), Ranks())
    heads = heads_of(pairs.train)
    model = RewardModel(decoder, heads)
    model.draw_heads(train.seed)
    data = reward_batch(pairs.train, heads, recipe.reward.use_margins)
    known = [pair for pair in pairs.held_out if (pair.head or "reward") in heads]
    held_out = reward_batch(known[: train.eval_pairs], heads, False) if known else None
    steps = steps_for(train.epochs, data.n_valid, train.batch_pairs)
    positions = data.rows.ids_BT.shape[1]
    step_tokens = 2 * train.batch_pairs * positions
    progress.start(out.name, steps * step_tokens, "tokens")
    task, third = reward_task(recipe, data, held_out), steps // 3

    def batches(step: int) -> Sequence[RewardBatch]:
        if step == third and held_out is not None and not (out / LEDGER).exists():
            accuracy = task.evaluate(model)["accuracy"]
            promise_accuracy(out, accuracy, held_out.n_valid, recipe.reward.label_noise)
        return task.batches(step)

    state = run(
        model.train(),
        build_optimizer(model, recipe.optimizer),
        rate_over(recipe.optimizer, steps, step_tokens),
        replace(task, batches=batches),
        loop_config(
            train, recipe.optimizer, recipe.guard, decoder.config, steps, step_tokens, positions
        ),
        out,
        progress,
    )
    model.eval()
    found: RewardReport | None = None
    if held_out is not None:
        found = report(judged(model, held_out, train.micro_batch_pairs))
        write_json(out / "report.json", asdict(found))
        ledger = Ledger(out / LEDGER)
        for promise in ledger.read():
            if not promise.settled:
                ledger.settle(promise.id, found.accuracy)
    _set_scale(model, recipe, chat, pairs)
    save_reward_model(model, out / "model", recipe.model.path, chat, recipe.data.set)
    progress.finish("" if found is None else f"held-out accuracy {found.accuracy:.1%}")
    return RewardResult(
        run=out,
        params_total=count_parameters(decoder.config).params_total,
        heads=heads,
        pairs=len(pairs.train),
        left_out=len(pairs.left_out),
        steps=state.step,
        accuracy=None if found is None else found.accuracy,
        loss=None if found is None else found.loss,
        calibration_error=None if found is None else found.calibration_error,
        length_correlation=None if found is None else found.length_correlation,
        length_accuracy=None if found is None else found.length_accuracy,
        seconds=state.seconds,
        peak_memory_bytes=peak_memory_bytes(),
    )


def promise_accuracy(out: Path, accuracy: float, pairs: int, label_noise: float) -> None:
    """Promise that the accuracy on held-out pairs ends between what it is now and what wrong labels
    leave: 1 − ε, where a share ε of them is wrong.

    Args:
        accuracy: Of so many held-out pairs, after a third of the run.
    """

    def error(share: float) -> float:
        return _NORMAL_90 * float((share * (1 - share) / pairs) ** 0.5)

    ceiling = 1 - label_noise
    low = accuracy - error(accuracy)
    high = max(min(ceiling + error(ceiling), 1.0), low)
    basis = f"accuracy after a third of the run and a ceiling of {ceiling:g}, on {pairs} pairs"
    Ledger(out / LEDGER).promise(
        "accuracy on held-out pairs", "share", (low + high) / 2, low, high, 0.9, basis
    )


def _set_scale(model: RewardModel, recipe: RewardRecipe, chat: Chat, pairs: Pairs) -> None:
    """Let answers of the model it starts from have mean 0 and variance 1 (Ziegler et al. 2019)."""
    reference = load_decoder(recipe.model.path)
    longest = max(len(a.ids) for pair in pairs.train for a in (pair.chosen, pair.rejected))
    chosen = np.random.default_rng(recipe.train.seed).choice(len(pairs.train), REFERENCE_ANSWERS)
    drawn = sample(
        reference,
        [pairs.train[number].chosen.prompt for number in chosen],
        Sampling(longest),
        (chat.stop_id, chat.tokenizer.eos_id),
        seed=round_seed(recipe.train.seed, 0, "scale"),
    )
    model.standardise(model.judge(drawn.answers))
