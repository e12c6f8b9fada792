"""Rounds of drawing answers, keeping the best and learning from them: rejection-sampling
fine-tuning, on-policy DPO, best-of-n.

Not for drawing and keeping (`best_of.py`) nor for how a round is learnt (`sft.py`, `dpo_run.py`).
Each round is two artifacts, `round_N/set` and `round_N/run`; a killed run goes on with the first
that is not finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isoflop.alignment.best_of import judge_round, write_drawn
from isoflop.alignment.chat import open_chat
from isoflop.alignment.dpo_recipe import DpoRecipe, PairTrain, PreferenceData
from isoflop.alignment.dpo_run import dpo
from isoflop.alignment.iterate_recipe import IterateRecipe
from isoflop.alignment.policy_run import open_setting
from isoflop.alignment.policy_task import greedy_scores
from isoflop.alignment.reward_model import KIND as REWARD_MODEL
from isoflop.alignment.run import in_directory
from isoflop.alignment.sft import sft
from isoflop.alignment.sft_recipe import InstructData, SftRecipe, SftTrainConfig, StartConfig
from isoflop.core.artifact import MANIFEST, read_json, write_json
from isoflop.core.console import SILENT, Progress
from isoflop.data.instruct import SUMMARY
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.convert import load_decoder

SCORES = "scores.json"


@dataclass(frozen=True)
class RoundResult:
    """What a round came to."""

    rows: int
    """Answers, or pairs, that were kept."""
    dropped: Mapping[str, int]
    """Reason → prompts of which nothing was."""
    best_of: Mapping[str, Any]
    """`best_of.BestOf` of the answers, drawn before learning from them."""
    exact_match: float | None
    """Share of held-out prompts answered right, greedily, after it; None if none is held out, or
    nothing was learnt."""
    reward: float | None
    """Mean reward of the same answers."""


@dataclass(frozen=True)
class IterateResult:
    """What all rounds came to."""

    run: Path
    learnt: bool
    """Whether rounds were learnt from; else there are their answers alone."""
    rounds: tuple[RoundResult, ...]
    exact_match_start: float | None
    """Share of held-out prompts answered right before; None if nothing is held out."""
    reward_start: float | None

    @property
    def made(self) -> Path:
        """The model that the last round made, or the set that it drew."""
        last = self.run / f"round_{len(self.rounds)}"
        return last / "run" / "model" if self.learnt else last / "set"


def iterate(recipe: IterateRecipe, out: Path, progress: Progress = SILENT) -> IterateResult:
    """Run or continue the rounds of a recipe in the directory `out`.

    Raises:
        RunError: The directory belongs to another recipe or version, or training diverged.
        ArtifactError: The model, the set, a reward model or a checkpoint cannot be used.
        DataError: The set has no verifiable rows, no answer of a round can be kept, or a server
            does not answer.
    """
    inputs = [(recipe.data.set, "instruct"), (recipe.model.path, "model")]
    inputs += [(term.path, REWARD_MODEL) for term in recipe.rewards if term.path is not None]
    return in_directory(
        out, recipe, inputs, recipe.train.seed, recipe.train.threads,
        _from_fields, lambda: _rounds(recipe, out, progress),
    )  # fmt: skip


def _from_fields(fields: Mapping[str, Any]) -> IterateResult:
    rounds = tuple(RoundResult(**each) for each in fields["rounds"])
    return IterateResult(**{**fields, "rounds": rounds})


def _rounds(recipe: IterateRecipe, out: Path, progress: Progress) -> IterateResult:
    model, rounds = recipe.model.path, []
    first = _scores(recipe, model, out / "start.json")
    for number in range(recipe.train.rounds):
        folder = out / f"round_{number + 1}"
        if not (folder / "set" / MANIFEST).exists():
            _draw(recipe, model, number, folder)
        drawn = read_json(folder / "set" / SUMMARY)
        after: Mapping[str, float] = {}
        if recipe.learn != "nothing":
            _learn(recipe, model, folder, progress)
            model = folder / "run" / "model"
            after = _scores(recipe, model, folder / SCORES)
        kept = drawn["sources"]["drawn"]
        rounds.append(
            RoundResult(
                kept["kept"], kept["dropped"], drawn["best_of"],
                after.get("exact_match"), after.get("held_out_reward"),
            )
        )  # fmt: skip
    return IterateResult(
        out, recipe.learn != "nothing", tuple(rounds), first.get("exact_match"),
        first.get("held_out_reward"),
    )  # fmt: skip


def _draw(recipe: IterateRecipe, model: Path, number: int, folder: Path) -> None:
    decoder = load_decoder(model)
    chat = open_chat(load_tokenizer(model), recipe.model.chat_template)
    most = recipe.draw.max_new_tokens
    setting = open_setting(recipe.data.set, recipe.rewards, most, 0, chat, decoder)
    folder.mkdir(exist_ok=True)
    judged = judge_round(decoder, chat, setting, recipe, number, folder / "replies.jsonl")
    write_drawn(folder / "set", judged, recipe, model)


def _learn(recipe: IterateRecipe, model: Path, folder: Path, progress: Progress) -> None:
    train = recipe.train
    begin = StartConfig(model, recipe.model.chat_template)
    if recipe.learn == "dpo":
        reference = recipe.model.path if recipe.reference == "first" else None
        pairs = PairTrain(
            epochs=train.epochs, batch_pairs=train.batch_rows,
            micro_batch_pairs=train.micro_batch_rows, seed=train.seed, threads=train.threads,
            log_every=train.log_every, evaluations=1, checkpoint_every=train.checkpoint_every,
            tensorboard=train.tensorboard,
        )  # fmt: skip
        dpo(
            DpoRecipe(
                begin, PreferenceData(folder / "set"), recipe.optimizer, pairs,
                dpo=replace(recipe.dpo, reference=reference),
            ),
            folder / "run",
            progress,
        )  # fmt: skip
        return
    width = load_decoder(model).config.max_seq_len
    windows = SftTrainConfig(
        epochs=train.epochs, global_batch_tokens=train.batch_rows * width,
        micro_batch_tokens=train.micro_batch_rows * width, eval_answers=0, seed=train.seed,
        threads=train.threads, log_every=train.log_every, evaluations=1,
        checkpoint_every=train.checkpoint_every, tensorboard=train.tensorboard,
    )  # fmt: skip
    data = InstructData(folder / "set")
    sft(SftRecipe(begin, data, recipe.optimizer, windows), folder / "run", progress)


def _scores(recipe: IterateRecipe, model: Path, kept: Path) -> Mapping[str, float]:
    """Greedy answers to held-out prompts, judged once."""
    if not kept.exists():
        decoder = load_decoder(model)
        chat = open_chat(load_tokenizer(model), recipe.model.chat_template)
        most = recipe.draw.max_new_tokens
        held_out = recipe.train.eval_answers
        setting = open_setting(recipe.data.set, recipe.rewards, most, held_out, chat, decoder)
        write_json(kept, greedy_scores(decoder, setting, most))
    found: Mapping[str, float] = read_json(kept)
    return found
