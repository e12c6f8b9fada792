"""Plans from every kind of budget."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import IsoflopError, RecipeError
from isoflop.core.hardware import Calibration
from isoflop.laws import RunTable, fit
from isoflop.laws.frontier import fit_frontier
from isoflop.laws.tasks import fit_task
from isoflop.models.accounting import count_parameters
from isoflop.planning import Plan, plan
from isoflop.planning.timing import sustained_share


@pytest.fixture(scope="module")
def day() -> Plan:
    """Eight H100 for a day."""
    return plan(gpus=8, gpu="h100-80gb", hours=24)


def test_chinchillas_budget_with_hoffmanns_law_gives_60_to_75_billion_parameters() -> None:
    made = plan(flops=5.76e23, law="hoffmann", gpus=1024)
    assert 60e9 <= made.params <= 75e9
    assert made.flops == pytest.approx(5.76e23, rel=0.01)


def test_chinchillas_budget_with_besiroglus_law_gives_its_optimum() -> None:
    made = plan(flops=5.76e23, law="besiroglu", gpus=1024)
    assert made.params == pytest.approx(7.2e10, rel=0.03)
    assert made.tokens == pytest.approx(1.33e12, rel=0.04)


def test_eight_h100_for_a_day_is_a_plan_to_sign(day: Plan) -> None:
    # nanochat's d24 (0.78 B weights that multiply) took 8.76 B tokens in 3.04 hours of such a node.
    assert 1.2e9 < day.params < 1.9e9
    assert 15 < day.tokens / day.params < 30
    assert 0.42 < day.mfu < 0.55
    assert day.seconds.value == pytest.approx(86_400, rel=0.005)
    assert day.seconds.low < 86_400 < day.seconds.high
    assert 2.5e5 <= day.global_batch_tokens <= 2e6
    assert 3e-4 < day.learning_rate < 1.5e-3
    assert (day.layout.tp, day.layout.pp, day.layout.recompute) == (1, 1, "none")
    assert day.memory_bytes.total < 0.93 * day.devices.gpu.memory_bytes
    assert day.cost.device_hours == pytest.approx(192, rel=0.005)


def test_the_numbers_of_a_plan_agree_with_each_other(day: Plan) -> None:
    assert day.flops == pytest.approx(6 * day.params * day.tokens)
    assert day.tokens == day.steps * day.global_batch_tokens
    assert day.params == count_parameters(day.model).params_total
    share = sustained_share(8, day.devices.gpu)
    stepping = day.steps * day.candidates[0].time.total / share
    assert day.seconds.value == pytest.approx(stepping + 120, rel=1e-6)
    assert day.checkpoints.keep_at_tokens[-1] <= day.tokens
    decay = day.schedule.decay_fraction
    assert day.checkpoints.keep_at_tokens[-2] == pytest.approx((1 - decay) * day.tokens, rel=0.01)
    assert day.checkpoints.bytes_each == 12 * count_parameters(day.model).params_total


def test_the_document_is_the_contract_and_json(day: Plan) -> None:
    document = json.loads(json.dumps(day.to_dict()))
    assert {
        "params", "tokens", "flops", "model", "global_batch_tokens", "learning_rate", "schedule",
        "loss", "layout", "memory_bytes", "seconds", "mfu", "cost", "assumptions",
    } <= set(document)  # fmt: skip
    assert {"value", "low", "high"} <= set(document["loss"])
    assert set(document["seconds"]) == {"value", "low", "high"}
    assert {"dp", "fsdp", "tp", "pp", "ep", "cp", "micro_batch"} <= set(document["layout"])
    parts = document["memory_bytes"]
    assert {"parameters", "gradients", "optimizer", "activations", "total"} <= set(parts)
    assert document["candidates"][0]["layout"] == document["layout"]


def test_llama_2_7b_is_foretold_its_gpu_hours() -> None:
    made = plan(
        params=6.738e9, tokens=2e12, gpus=512, gpu="a100-80gb", vocab_size=32000, seq_len=4096,
        batch_tokens=4 * 2**20,
    )  # fmt: skip
    assert made.cost.device_hours == pytest.approx(184_320, rel=0.15)
    assert made.seconds.high > 184_320 * 3600 / 512
    assert made.tokens == pytest.approx(2e12, rel=1e-4)


def test_money_is_hours_at_a_price() -> None:
    made = plan(money=1000, gpu="h100-80gb", gpus=8, price=2.5)
    assert made.cost.usd == pytest.approx(1000, rel=0.01)
    assert made.cost.device_hours == pytest.approx(400, rel=0.01)


def test_a_fixed_size_gets_the_tokens_that_fill_the_time() -> None:
    small = plan(gpus=8, gpu="h100-80gb", hours=24, params=5e8)
    assert small.params == pytest.approx(5e8, rel=0.05)
    assert small.seconds.value == pytest.approx(86_400, rel=0.01)
    assert small.tokens / small.params > 100


def test_fixed_tokens_get_the_size_that_fills_the_budget() -> None:
    made = plan(flops=1e21, tokens=1e11, gpus=8)
    assert made.params == pytest.approx(1e21 / 6e11, rel=0.05)
    made = plan(hours=24, tokens=1e11, gpus=8)
    assert made.tokens == pytest.approx(1e11, rel=0.01)
    assert made.seconds.value == pytest.approx(86_400, rel=0.1)


def test_without_gpus_as_many_are_taken_as_finish_in_a_month() -> None:
    made = plan(flops=1e22, gpu="a100-80gb")
    assert 15 * 86_400 / 1.1 < made.seconds.value <= 30 * 86_400
    assert made.devices.devices == 32


def test_a_faster_budget_buys_a_larger_model_and_a_lower_loss(day: Plan) -> None:
    week = plan(gpus=8, gpu="h100-80gb", hours=168)
    assert week.params > day.params
    assert week.loss is not None
    assert day.loss is not None
    assert week.loss.value < day.loss.value


def test_minutes_are_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    calibration = Calibration(
        {"float32": {2: 180.0}}, 30.0, "float32", 2, "", 1.0, "", {"cpu": "CPU", "cores": 2}
    )
    monkeypatch.setattr("isoflop.planning.site.calibrate", lambda: calibration)
    made = plan(minutes=10)
    assert made.seconds.value == pytest.approx(600, rel=0.01)
    assert made.devices.local
    assert made.cost.usd is None
    # 0.4 of the peak for ten minutes, by law's and by real FLOPs within a factor of two.
    assert made.flops == pytest.approx(0.4 * 180e9 * 600, rel=1.0)
    # A law of 70M to 16B parameters says nothing of this size, and the plan does not pretend.
    assert not made.supported
    assert "does not reach down" in made.verdict


def test_anothers_law_comes_with_a_ladder_to_run_first(day: Plan) -> None:
    assert day.ladder is not None
    assert day.ladder.share < 0.05
    assert any("run the ladder first" in said for said in day.assumptions)


def own_law(path: Path) -> Path:
    rng = np.random.default_rng(0)
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 3e8, 4), np.geomspace(1e9, 3e10, 4)))
    loss = (1.7 + 400 * n**-0.34 + 900 * d**-0.3) * np.exp(0.001 * rng.standard_normal(n.size))
    fit(RunTable.from_arrays(n, d, loss), bootstrap=100).save(path)
    return path


def test_a_law_of_ones_own_needs_no_ladder_and_its_n_leaves_out_the_input_embedding(
    tmp_path: Path,
) -> None:
    made = plan(flops=1e21, gpus=8, law=own_law(tmp_path / "law.json"))
    assert made.ladder is None
    assert made.supported
    assert made.params == count_parameters(made.model).params


def test_the_verdict_of_the_law_is_carried(tmp_path: Path) -> None:
    path = own_law(tmp_path / "law.json")
    document = json.loads(path.read_text())
    del document["sha256"]  # of the law as it was saved
    path.write_text(json.dumps({**document, "verdict": "unsupported: two sizes"}))
    made = plan(flops=1e21, gpus=8, law=path)
    assert made.verdict == "unsupported: two sizes"
    assert not made.supported


def test_task_scores_follow_from_a_law_of_the_task(tmp_path: Path, day: Plan) -> None:
    rng = np.random.default_rng(0)
    loss = np.linspace(2.2, 3.6, 24)
    score = 0.25 + 0.6 / (1 + np.exp(4 * (loss - 2.8))) + 0.003 * rng.standard_normal(24)
    law = fit_task(loss, score, draws=100)
    law.save(tmp_path / "quiz.json")
    made = plan(gpus=8, gpu="h100-80gb", hours=24, tasks=[tmp_path / "quiz.json"])
    assert made.loss is not None
    truth = 0.25 + 0.6 / (1 + math.exp(4 * (made.loss.value - 2.8)))
    assert made.tasks["quiz"].value == pytest.approx(truth, abs=0.05)
    assert made.tasks["quiz"].low < truth < made.tasks["quiz"].high
    assert day.tasks == {}


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({}, "there is no budget"),
        ({"flops": 1e20, "hours": 3, "gpus": 8}, "--flops and --hours are budgets at once"),
        ({"params": 1e9, "tokens": 1e10, "flops": 1e20}, "beside --params and --tokens"),
        ({"hours": 24}, "of how many GPUs"),
        ({"minutes": 10, "gpus": 8}, "--minutes are of this machine"),
        ({"flops": -1}, "flops = -1: must be positive"),
        ({"flops": math.nan}, "must be positive"),
        ({"money": 100, "gpu": "rtx-4090"}, "no list price"),
        ({"gpus": 8, "hours": 0.03}, "the budget is too small"),
        ({"flops": 1e9}, "no decoder has"),
        ({"params": 1e9, "tokens": 1e6, "gpus": 8, "batch_tokens": 262144}, "is all warm-up"),
        ({"params": 7e10, "tokens": 1e12, "gpus": 8, "gpu": "l40s"}, "do not fit on 8 × l40s"),
        ({"flops": 1e20, "gpus": 8, "gpu": "h1000"}, "no data sheet"),
        ({"flops": 1e20, "gpus": 8, "law": "chinchila"}, "chinchilla"),
        ({"flops": 1e20, "gpus": 8, "law": "kaplan-n"}, "says nothing of allocation"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_way_out(
    budget: dict[str, object], said: str
) -> None:
    with pytest.raises(IsoflopError) as refused:
        plan(**budget)  # type: ignore[arg-type]
    assert said in str(refused.value)
    assert refused.value.fix is not None or isinstance(refused.value, RecipeError) or said


def test_a_frontier_of_ones_own_plans_its_best_size_and_no_loss_for_another(tmp_path: Path) -> None:
    grid = np.meshgrid(np.geomspace(0.25, 4.0, 9), np.geomspace(1e18, 1e20, 6))
    share, flops = (axis.ravel() for axis in grid)
    n = share * np.sqrt(flops / 60)  # ten tokens per parameter are best
    noise = np.exp(2e-4 * np.random.default_rng(0).standard_normal(n.size))
    loss = 1.7 + 400 * n**-0.3 + 400 * (flops / 60 / n) ** -0.3
    law = fit_frontier(RunTable.from_arrays(n, flops / 6 / n, loss * noise))
    law.save(tmp_path / "frontier.json")
    made = plan(flops=1e21, gpus=8, law=tmp_path / "frontier.json")
    assert made.params == pytest.approx(law.optimal(1e21).params, rel=0.05)
    assert made.loss is not None
    assert made.loss.value == pytest.approx(law.predict(made.flops).loss, rel=1e-9)
    assert made.ladder is None
    far = plan(flops=1e21, gpus=8, law=tmp_path / "frontier.json", params=made.params / 4)
    assert far.loss is None
    assert any("no loss is promised" in said for said in far.assumptions)


def test_a_law_that_only_divides_says_whose_loss_it_takes() -> None:
    made = plan(flops=1e21, gpus=8, law="deepseek")
    assert made.loss is not None
    assert any("the loss is that of besiroglu" in said for said in made.assumptions)


@pytest.mark.parametrize("what", ["tasks", "hyperparameters"])
def test_a_law_of_another_form_is_refused_where_scores_or_rates_are_asked(
    what: str, tmp_path: Path
) -> None:
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 4)))
    path = tmp_path / "law.json"
    noise = np.exp(1e-3 * np.random.default_rng(0).standard_normal(n.size))
    table = RunTable.from_arrays(n, d, (1.7 + 400 * n**-0.34 + 410 * d**-0.28) * noise)
    fit(table, bootstrap=100).save(path)
    with pytest.raises(RecipeError, match="a law of the form chinchilla"):
        plan(flops=1e21, gpus=8, **{what: [path] if what == "tasks" else path})
