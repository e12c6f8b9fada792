"""The promise of a run is made once, before it, and scored by its last rounds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from isoflop.alignment.policy_forecast import (
    END,
    FORECAST,
    MOST_CHECKED,
    foretell,
    foretell_end,
    settle,
)
from isoflop.alignment.policy_recipe import (
    GrpoRecipe,
    KlConfig,
    PolicyTrain,
    PromptData,
    RolloutConfig,
)
from isoflop.alignment.rounds import Question, Setting
from isoflop.alignment.sft_recipe import StartConfig
from isoflop.alignment.verify_worlds import one_token_table
from isoflop.core.ledger import LEDGER, Ledger

BETA = 0.5


def test_the_ceiling_is_that_of_the_closed_form_and_is_written_before_the_run(
    tmp_path: Path,
) -> None:
    world = one_token_table(0, 12)
    recipe = GrpoRecipe(
        StartConfig(tmp_path),
        PromptData(tmp_path),
        rollouts=RolloutConfig(max_new_tokens=1),
        kl=KlConfig(BETA),
        train=PolicyTrain(forecast_answers=400),
    )
    setting = Setting(
        questions=(Question(world.prompt, {}),) * 5,
        reward=lambda attempts: world.worth(list(attempts)),
        decode=lambda ids: "",
        stop_ids=(),
        reference=world.model,
    )
    foretell(recipe, setting, tmp_path)
    promise = Ledger(tmp_path / LEDGER).read()[0]
    told = json.loads((tmp_path / FORECAST).read_text())
    point = next(point for point in told["frontier"] if point["beta"] == BETA)
    reference = world.model(torch.tensor([[1]]))[0, -1].log_softmax(-1)
    best = BETA * (reference + world.reward_N / BETA).logsumexp(-1).item()
    assert point["value"] == pytest.approx(best, abs=0.1)
    assert promise.low < point["value"] <= promise.high
    foretell(recipe, setting, tmp_path)
    assert len(Ledger(tmp_path / LEDGER).read()) == 1
    rows = [{"round": i, "reward": 0.1 * i, "kl": 2.0, "kl_coef": BETA} for i in range(20)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settle(tmp_path)
    scored = Ledger(tmp_path / LEDGER).read()[0]
    assert scored.outcome == pytest.approx((1.8 + 1.9) / 2 - 1.0)
    settle(tmp_path)


def test_after_a_third_the_end_and_the_most_that_a_checker_finds_are_promised_once(
    tmp_path: Path,
) -> None:
    recipe = GrpoRecipe(StartConfig(tmp_path), PromptData(tmp_path), train=PolicyTrain(rounds=60))
    forecast = {"reward": 0.2, "best_of_group": 0.9, "checked": 0.4}
    (tmp_path / FORECAST).write_text(json.dumps(forecast))

    def row(number: int) -> dict[str, float]:
        kl = 0.1 * number
        d = kl**0.5
        checked = 0.4 + d * (0.3 - 0.35 * math.log(d))
        reward = 0.2 + 0.7 / (1 + math.exp(-1.5 * (math.log(number) - math.log(10))))
        told = {"round": number, "reward": reward, "reward_std": 0.4, "kl": kl, "kl_coef": 0.1}
        return {**told, "checked": checked}

    rows = [row(number) for number in range(1, 61)]
    lines = [json.dumps(each) + "\n" for each in rows]
    # A round of several steps has several lines.
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:20] + lines[19:20]))
    foretell_end(recipe, tmp_path)
    foretell_end(recipe, tmp_path)
    end, most = Ledger(tmp_path / LEDGER).read()
    assert (end.quantity, most.quantity) == (END, MOST_CHECKED)
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    settle(tmp_path)
    end, most = Ledger(tmp_path / LEDGER).read()
    assert end.outcome == pytest.approx(sum(each["reward"] for each in rows[54:]) / 6)
    assert end.held
    assert most.value == pytest.approx(max(each["checked"] for each in rows), abs=1e-3)
