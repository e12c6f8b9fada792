"""`isoflop grpo` and `isoflop ppo` from recipe to result; not what they learn by (`grpo.py`,
`ppo.py`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from isoflop.alignment.chat import Chat, open_chat
from isoflop.alignment.policy_forecast import foretell, settle
from isoflop.alignment.policy_recipe import GrpoRecipe, PpoRecipe, RewardTerm
from isoflop.alignment.policy_task import (
    greedy_scores,
    policy_optimizer,
    policy_task,
    steps_of,
)
from isoflop.alignment.replay import text_cost
from isoflop.alignment.reward_model import KIND, RewardModel, load_reward_model
from isoflop.alignment.rewards import reward_of
from isoflop.alignment.rounds import Policy, Question, Setting
from isoflop.alignment.run import in_directory, loop_config, rate_over
from isoflop.alignment.save import save_chat_model
from isoflop.core.console import SILENT, Progress, warn
from isoflop.core.errors import DataError, RecipeError
from isoflop.core.process import peak_memory_bytes
from isoflop.data.instruct import InstructSet, SplitName, open_set
from isoflop.data.instruct_rows import prompt_messages
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.models.accounting import count_parameters
from isoflop.models.convert import load_decoder
from isoflop.models.decoder import Decoder
from isoflop.training.loop import run


@dataclass(frozen=True)
class PolicyResult:
    """What a finished run of GRPO or PPO came to."""

    run: Path
    params_total: int
    prompts: int
    rounds: int
    steps: int
    answers: int
    """Answers drawn, at most: rounds of early stops are not counted."""
    exact_match_start: float | None
    """Share of held-out prompts answered right, greedily, before; None if nothing is held out."""
    exact_match: float | None
    """And after."""
    reward_start: float | None
    """Mean reward of held-out greedy answers before."""
    reward: float | None
    """And after."""
    kl: float | None
    """Divergence from the reference in the last round, nats per answer; None without a pull."""
    reward_hacked: bool
    """Whether held-out answers earn more while fewer of them are right than before."""
    bits_per_byte_before: float | None
    """Of held-out text of `data.text` by the model it started from; None without it."""
    bits_per_byte: float | None
    """Of the same text by what it became."""
    seconds: float
    peak_memory_bytes: int


def grpo(recipe: GrpoRecipe, out: Path, progress: Progress = SILENT) -> PolicyResult:
    """Run or continue group-relative policy optimisation in the directory `out`.

    Raises:
        RunError: The directory belongs to another recipe or version, or training diverged.
        ArtifactError: The model, the set, a reward model or a checkpoint cannot be used.
        DataError: The set has no verifiable rows, or prompts longer than the model's context.
    """
    return _run(recipe, out, progress)


def ppo(recipe: PpoRecipe, out: Path, progress: Progress = SILENT) -> PolicyResult:
    """Run or continue proximal policy optimisation in the directory `out`.

    Raises:
        RunError, ArtifactError, DataError: As `grpo`.
    """
    return _run(recipe, out, progress)


def _run(recipe: GrpoRecipe | PpoRecipe, out: Path, progress: Progress) -> PolicyResult:
    inputs = [(recipe.data.set, "instruct"), (recipe.model.path, "model")]
    inputs += [(term.path, KIND) for term in recipe.rewards if term.path is not None]
    if recipe.data.text is not None:
        inputs.append((recipe.data.text, "shards"))
    if isinstance(recipe, PpoRecipe) and recipe.ppo.critic is not None:
        inputs.append((recipe.ppo.critic, KIND))
    train = recipe.train
    return in_directory(
        out, recipe, inputs, train.seed, train.threads,
        lambda fields: PolicyResult(**fields), lambda: _train(recipe, out, progress),
    )  # fmt: skip


def _train(recipe: GrpoRecipe | PpoRecipe, out: Path, progress: Progress) -> PolicyResult:
    rollouts, train = recipe.rollouts, recipe.train
    model = load_decoder(recipe.model.path)
    chat = open_chat(load_tokenizer(recipe.model.path), recipe.model.chat_template)
    reference = deepcopy(model).requires_grad_(False)
    setting = open_setting(
        recipe.data.set,
        recipe.rewards,
        rollouts.max_new_tokens,
        train.eval_answers,
        chat,
        reference,
    )
    critic = _critic(recipe, model) if isinstance(recipe, PpoRecipe) else None
    policy = Policy(model, critic, recipe.kl.coef).train()
    steps = steps_of(recipe)
    positions = max(len(q.ids) for q in setting.questions) + rollouts.max_new_tokens
    answers = rollouts.prompts * rollouts.answers
    step_tokens = positions * answers // rollouts.minibatches
    rate = recipe.ppo.critic_rate if isinstance(recipe, PpoRecipe) else 1.0
    foretell(recipe, setting, out)
    before = greedy_scores(setting.reference, setting, rollouts.max_new_tokens)
    progress.start(out.name, steps * step_tokens, "tokens")
    state = run(
        policy,
        policy_optimizer(policy, recipe.optimizer, rate),
        rate_over(recipe.optimizer, steps, step_tokens),
        policy_task(recipe, setting, policy, out, before),
        loop_config(
            train, recipe.optimizer, recipe.guard, model.config, steps, step_tokens, positions
        ),
        out,
        progress,
    )
    last = json.loads((out / "evals.jsonl").read_text().splitlines()[-1])
    save_chat_model(model, out / "model", recipe.model.path, chat, recipe.data.set)
    settle(out)
    scored, hacked = bool(before), bool(last.get("reward_hacked", False))
    if hacked:
        warn(
            "the reward rose while fewer held-out answers are right: the policy has found what the "
            f"reward likes in place of what it stands for ({out / 'evals.jsonl'})"
        )
    if "exact_match" in before:
        progress.finish(f"right {before['exact_match']:.1%} → {last['exact_match']:.1%}")
    else:
        progress.finish()

    def cost(asked: Decoder) -> float | None:
        text = recipe.data.text
        return None if text is None else text_cost(asked, text, recipe.model.path)

    return PolicyResult(
        run=out,
        params_total=count_parameters(model.config).params_total,
        prompts=len(setting.questions),
        rounds=policy.rounds,
        steps=state.step,
        answers=policy.rounds * answers,
        exact_match_start=before.get("exact_match"),
        exact_match=last.get("exact_match") if scored else None,
        reward_start=before.get("held_out_reward"),
        reward=last.get("held_out_reward") if scored else None,
        kl=last.get("kl") if recipe.kl.coef else None,
        reward_hacked=hacked,
        bits_per_byte_before=cost(reference),
        bits_per_byte=cost(model),
        seconds=state.seconds,
        peak_memory_bytes=peak_memory_bytes(),
    )


def open_setting(
    directory: Path,
    rewards: Sequence[RewardTerm],
    max_new_tokens: int,
    eval_answers: int,
    chat: Chat,
    reference: Decoder,
) -> Setting:
    """What a policy learns in.

    Args:
        directory: The instruction set.
        eval_answers: Most held-out prompts.

    Raises:
        ArtifactError: The set or a reward model cannot be used.
        DataError: There are no verifiable rows, or prompts leave no room for an answer.
        RecipeError: A reward model has another vocabulary.
    """
    rows = open_set(directory)
    limit = reference.config.max_seq_len - max_new_tokens + 1
    if limit < 1:
        raise RecipeError(
            f"max_new_tokens = {max_new_tokens} exceeds the model's context of "
            f"{reference.config.max_seq_len}",
            where="recipe",
        )
    train = _questions(rows, "train", chat, limit, None)
    if not train:
        raise DataError(
            "the set has no verifiable rows to answer",
            where=str(directory),
            fix="Give rows with `prompt` and `answer`, `verifier` or `tests`",
        )
    return Setting(
        questions=train,
        reward=reward_of(rewards, reference.config.vocab_size),
        decode=chat.decode,
        stop_ids=(chat.stop_id, chat.tokenizer.eos_id),
        reference=reference,
        held_out=_questions(rows, "held_out", chat, limit, eval_answers),
        watched=any(term.kind != "exact" for term in rewards),
    )


def _questions(
    rows: InstructSet, split: SplitName, chat: Chat, limit: int, most: int | None
) -> tuple[Question, ...]:
    found = []
    for line, row in enumerate(rows.rows("verifiable", split)[:most], 1):
        ids = tuple(chat.prompt_ids(prompt_messages(row)))
        if len(ids) > limit:
            raise DataError(
                f"the prompt has {len(ids)} tokens, and with max_new_tokens only {limit} "
                "fit the model's context",
                where=f"{rows.directory}, verifiable row {line} of {split}",
                fix="Leave it out, or shorten max_new_tokens",
            )
        found.append(Question(ids, row))
    return tuple(found)


def _critic(recipe: PpoRecipe, model: Decoder) -> RewardModel:
    if recipe.ppo.critic is None:
        return RewardModel(deepcopy(model))
    critic = load_reward_model(recipe.ppo.critic)
    if critic.decoder.config.vocab_size != model.config.vocab_size:
        raise RecipeError(
            "the critic has another vocabulary than the model",
            where=str(recipe.ppo.critic),
            fix="Train it from the same tokenizer",
        )
    return critic
