"""The promise of a run is made once, before it, and scored by its last rounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from isoflop.alignment.policy_forecast import FORECAST, LEDGER, foretell, settle
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
from isoflop.core.ledger import Ledger

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
    rows = [{"reward": 0.1 * i, "kl": 2.0, "kl_coef": BETA} for i in range(20)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settle(tmp_path)
    scored = Ledger(tmp_path / LEDGER).read()[0]
    assert scored.outcome == pytest.approx((1.8 + 1.9) / 2 - 1.0)
    settle(tmp_path)
