"""Rounds: what the loop is handed, when a new one begins, and what is kept on disk."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from isoflop.alignment.grpo import divergence_loss, grpo_advantages
from isoflop.alignment.policy_recipe import (
    GrpoConfig,
    GrpoRecipe,
    KlConfig,
    PolicyTrain,
    PromptData,
    RolloutConfig,
)
from isoflop.alignment.rounds import FOLDER, Experience, Policy, Question, Rounds, Setting
from isoflop.alignment.sft_recipe import StartConfig
from isoflop.alignment.verify_worlds import letters
from isoflop.core.errors import RunError

WORLD = letters(0)
RECIPE = GrpoRecipe(
    StartConfig(Path()),
    PromptData(Path()),
    rollouts=RolloutConfig(prompts=3, answers=4, max_new_tokens=3, epochs=2, minibatches=3),
    kl=KlConfig(0.5, target=0.1, horizon=20),
    train=PolicyTrain(micro_batch_answers=3),
)
SETTING = Setting(
    (Question(WORLD.prompt, {}),),
    lambda attempts: WORLD.worth(list(attempts)),
    lambda ids: "",
    WORLD.stop_ids,
    WORLD.model,
)


def rounds(policy: Policy, store: Path | None = None, stop: float | None = None) -> Rounds:
    return Rounds(policy, SETTING, RECIPE, grpo_advantages(RECIPE), store, stop)


def fresh() -> Policy:
    return Policy(deepcopy(WORLD.model), None, 0.5)


def content(batches: list[Experience]) -> list[float]:
    return [value for part in batches for value in part.advantages_BA.flatten().tolist()]


def test_each_epoch_goes_through_all_answers_once() -> None:
    policy = fresh()
    source = rounds(policy)
    for epoch in range(2):
        parts = [part for step in range(3) for part in source.batches(3 * epoch + step)]
        assert sum(len(part.rows) for part in parts) == 12
        assert all(len(part.rows) <= 3 for part in parts)
        assert policy.rounds == 1
    source.batches(6)
    assert (policy.rounds, policy.began) == (2, 6)


def test_beta_adapts_for_the_next_round() -> None:
    policy = fresh()
    first = rounds(policy).batches(0)[0]
    assert first.kl_coef == 0.5
    assert policy.kl_coef == pytest.approx(0.5 * (1 - 0.2 * 12 / 20)), "no divergence yet"


def test_a_round_ends_early_once_the_policy_has_drifted() -> None:
    policy = fresh()
    source = rounds(policy, stop=0.01)
    source.batches(0)
    source.note(10, 0.005)
    source.batches(1)
    assert policy.rounds == 1
    source.note(10, 0.02)
    source.note(30, 0.02)
    source.batches(2)
    assert (policy.rounds, policy.began, policy.drift) == (2, 2, 0.0)


def test_a_round_is_taken_up_again_from_disk(tmp_path: Path) -> None:
    policy = fresh()
    source = rounds(policy, tmp_path)
    expected = [content(list(source.batches(step))) for step in range(3)]
    state = {name: value.clone() for name, value in policy.state_dict().items()}
    facts = source.facts()
    again = fresh()
    again.load_state_dict(state)
    other = rounds(again, tmp_path)
    with torch.no_grad():
        again.decoder.lm_head.weight.mul_(3.0)  # the answers do not depend on it any more
    assert content(list(other.batches(2))) == expected[2]
    assert other.facts() == facts
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["step_00000000.safetensors"]
    for path in (tmp_path / FOLDER).iterdir():
        path.unlink()
    with pytest.raises(RunError, match="are gone"):
        rounds(again, tmp_path).batches(2)


def test_old_rounds_are_removed_but_for_those_a_checkpoint_lies_within(tmp_path: Path) -> None:
    source = rounds(fresh(), tmp_path)
    for step in range(14):
        source.batches(step)
        if step == 2:
            (tmp_path / "checkpoints" / "step_00000002").mkdir(parents=True)
        if step == 11:  # which is still being written
            (tmp_path / "checkpoints" / ".step_00000011.77.partial").mkdir()
    kept = sorted(path.stem for path in (tmp_path / FOLDER).iterdir())
    assert kept == ["step_00000000", "step_00000006", "step_00000012"]


def test_divergences_of_whole_answers_have_the_gradient_of_their_name() -> None:
    """On all answers, weighted by the policy: reverse-k2 and reverse-k3 that of KL(π‖π_ref)."""
    from isoflop.alignment.answers import answer_logprobs, answer_rows
    from isoflop.alignment.verify_worlds import small_decoder

    rows = answer_rows(WORLD.all_answers())
    model = small_decoder(7, 4)
    weight = model.lm_head.weight

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, weight)[0]

    reference_BA = answer_logprobs(WORLD.model, rows).detach()
    found_BA = answer_logprobs(model, rows)
    share_B = found_BA.sum(-1).exp()
    assert share_B.sum().item() == pytest.approx(1.0)
    right = gradient((share_B * (found_BA - reference_BA).sum(-1)).sum())
    for form in ("reverse-k2", "reverse-k3"):
        total = torch.zeros_like(weight)
        for number in range(len(rows)):
            one = rows.take(torch.tensor([number]))
            now_BA = answer_logprobs(model, one)
            width = now_BA.shape[1]
            batch = Experience(
                one, now_BA.detach(), now_BA.detach(), 1.0, now_BA.detach(),
                reference_BA[number : number + 1, :width],
            )  # fmt: skip
            loss = divergence_loss(form, now_BA, batch)  # type: ignore[arg-type]
            total += share_B[number].detach() * gradient(loss)
        torch.testing.assert_close(total, right, rtol=1e-8, atol=1e-10)


def test_dividing_by_the_spread_is_off_unless_asked_for() -> None:
    policy = fresh()
    whole = Rounds(policy, SETTING, RECIPE, grpo_advantages(RECIPE)).batches(0)
    scaled = replace(RECIPE, grpo=GrpoConfig(divide_by_std=True))
    other = Rounds(fresh(), SETTING, scaled, grpo_advantages(scaled)).batches(0)
    assert content(list(whole)) != content(list(other))
