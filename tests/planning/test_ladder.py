"""Jobs of a ladder, its table, and what it says of work in progress."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.artifact import read_manifest
from isoflop.core.errors import RunError
from isoflop.data.shards import Shards
from isoflop.laws import read_table
from isoflop.planning import ladder as module
from isoflop.planning import launchers
from isoflop.planning.ladder import (
    COLUMNS,
    computed_flops,
    jobs_of,
    lanes_of,
    last_metrics,
    run_ladder,
)
from isoflop.planning.recipe import LadderRecipe, RungConfig
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.recipe import DataConfig, TrainConfig

BATCH = 256
TRAIN = TrainConfig(
    seq_len=32, global_batch_tokens=BATCH, micro_batch_tokens=BATCH, eval_tokens=1024,
    evaluations=1, checkpoint_every=100, tensorboard=False, threads=1,
)  # fmt: skip


@pytest.fixture
def recipe(tiny_shards: Shards) -> LadderRecipe:
    return LadderRecipe(
        data=DataConfig(tiny_shards.directory),
        rungs=(RungConfig(32, 1, (20 * BATCH, 10 * BATCH + 17)), RungConfig(64, 1, (10 * BATCH,))),
        optimizer=OptimizerConfig(warmup_tokens=4 * BATCH),
        train=TRAIN,
        processes=2,
    )


# --- jobs ----------------------------------------------------------------------------------


def test_the_longest_run_of_a_size_is_the_trunk_of_the_others(recipe: LadderRecipe) -> None:
    short, trunk, single = jobs_of(recipe)
    assert (short.run_id, short.tokens, short.trunk) == ("d32-l1-2560", 2560, "d32-l1-5120")
    assert (trunk.run_id, trunk.tokens, trunk.trunk) == ("d32-l1-5120", 5120, None)
    assert trunk.branch_points == (8 * BATCH,), "at the short one's last fifth"
    assert (single.run_id, single.trunk, single.branch_points) == ("d64-l1-2560", None, ())


def test_each_seed_of_a_size_has_a_trunk_of_its_own(recipe: LadderRecipe) -> None:
    twice = replace(recipe, rungs=(RungConfig(32, 1, (10 * BATCH, 20 * BATCH), seeds=2),))
    first, second = jobs_of(twice)[:2], jobs_of(twice)[2:]
    assert [job.run_id for job in second] == [f"{job.run_id}-t1" for job in first]
    assert [job.trunk for job in second] == ["d32-l1-5120-t1", None]
    seeds = [module._recipe(twice, job).train.seed for job in jobs_of(twice)]
    assert seeds == [0, 0, 1000, 1000]
    assert computed_flops(twice, dict.fromkeys((j.run_id for j in jobs_of(twice)), 1.0)) == 2.4


def test_a_trunk_keeps_a_checkpoint_for_each_branch(recipe: LadderRecipe) -> None:
    rungs = (RungConfig(32, 1, tuple(n * BATCH for n in (10, 20, 30, 40))),)
    *branches, trunk = jobs_of(replace(recipe, rungs=rungs))
    assert trunk.branch_points == tuple(n * BATCH for n in (8, 16, 24))
    assert {branch.trunk for branch in branches} == {trunk.run_id}


def test_horizons_that_round_to_the_same_batches_are_one_run(recipe: LadderRecipe) -> None:
    rungs = (RungConfig(32, 1, (10 * BATCH, 10 * BATCH + 1)),)
    assert len(jobs_of(replace(recipe, rungs=rungs))) == 1


def test_a_run_that_decays_from_its_first_step_starts_from_scratch(recipe: LadderRecipe) -> None:
    all_decay = replace(recipe, optimizer=OptimizerConfig(decay_fraction=1.0))
    assert [(job.trunk, job.branch_points) for job in jobs_of(all_decay)] == [(None, ())] * 3


def test_the_shared_part_of_a_trunk_is_computed_once(recipe: LadderRecipe) -> None:
    """10 and 20 batches of one size: 20 for the trunk and the last 2 of the short run."""
    flops = {"d32-l1-2560": 10.0, "d32-l1-5120": 20.0, "d64-l1-2560": 40.0}
    assert computed_flops(recipe, flops) == pytest.approx(20 + 2 + 40)


def test_lanes_share_the_cores(recipe: LadderRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launchers, "usable_cores", lambda: 6)
    assert lanes_of(replace(recipe, processes=None)) == (6, 1)
    assert lanes_of(recipe) == (2, 3)
    assert lanes_of(replace(recipe, processes=9)) == (9, 1)


# --- running it, in this process -----------------------------------------------------------


class Here:
    """A pool that does its work at once, where it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def submit(self, work: Any, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.asked.append(args[1].name)
        try:
            future.set_result(work(*args))
        except RunError as error:
            future.set_exception(error)
        return future


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch, calibrated: None) -> Here:
    here = Here()

    @contextmanager
    def fake(count: int, where: Path) -> Iterator[Here]:
        yield here

    monkeypatch.setattr(launchers, "workers", fake)
    return here


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "runs.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_run_is_a_row_that_a_law_can_read(
    recipe: LadderRecipe, pool: Here, tmp_path: Path
) -> None:
    ladder = run_ladder(recipe, tmp_path / "ladder")
    rows = table(tmp_path / "ladder")
    assert tuple(rows[0]) == COLUMNS
    assert {"params", "tokens", "loss"} <= set(COLUMNS), "the run table's required columns"
    assert [row["run_id"] for row in rows] == ["d32-l1-2560", "d32-l1-5120", "d64-l1-2560"]
    assert [(row["tokens"], row["steps"]) for row in rows] == [
        ("2560", "10"), ("5120", "20"), ("2560", "10")]  # fmt: skip
    for row, result in zip(rows, ladder.runs, strict=True):
        assert float(row["loss"]) == result.loss, "to the last bit"
        assert float(row["flops"]) == pytest.approx(result.flops, rel=1e-5)
        assert (int(row["params"]), int(row["params_total"])) == (
            result.params, result.params_total)  # fmt: skip
    assert float(rows[2]["learning_rate"]) == pytest.approx(4e-3)
    assert float(rows[0]["learning_rate"]) == pytest.approx(4e-3 * math.sqrt(2), rel=1e-5)
    assert len(read_table([tmp_path / "ladder"])) == 3
    read_manifest(tmp_path / "ladder", "ladder", verify=True)


def test_a_branch_waits_for_its_trunk_and_is_what_a_run_from_scratch_is(
    recipe: LadderRecipe, pool: Here, tmp_path: Path
) -> None:
    run_ladder(recipe, tmp_path / "all")
    assert pool.asked.index("d32-l1-5120") < pool.asked.index("d32-l1-2560")
    alone = replace(recipe, rungs=(RungConfig(32, 1, (10 * BATCH,)),))
    run_ladder(alone, tmp_path / "alone")
    one, other = (
        (tmp_path / name / "runs" / "d32-l1-2560" / "model" / "model.safetensors").read_bytes()
        for name in ("all", "alone")
    )
    assert one == other


def test_a_finished_ladder_is_read_and_not_run_again(
    recipe: LadderRecipe, pool: Here, tmp_path: Path
) -> None:
    first = run_ladder(recipe, tmp_path / "ladder")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "ladder" / "runs").rglob("*.*")}
    content = (tmp_path / "ladder" / "runs.csv").read_bytes()
    again = run_ladder(recipe, tmp_path / "ladder")
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "ladder" / "runs").rglob("*.*")}
    assert {p for p in after if p.name != ".lock"} == {p for p in before if p.name != ".lock"}
    assert all(after[p] == before[p] for p in before if p.name != ".lock")
    assert (again.runs, (tmp_path / "ladder" / "runs.csv").read_bytes()) == (first.runs, content)


def test_another_recipe_is_refused_by_name_and_other_processes_are_not(
    recipe: LadderRecipe, pool: Here, tmp_path: Path
) -> None:
    run_ladder(recipe, tmp_path / "ladder")
    run_ladder(replace(recipe, processes=1), tmp_path / "ladder")
    other = replace(recipe, train=replace(recipe.train, seed=1))
    with pytest.raises(RunError, match=r"this ladder was started .*train\.seed was 0, now 1"):
        run_ladder(other, tmp_path / "ladder")


def test_a_directory_with_something_else_is_refused(
    recipe: LadderRecipe, pool: Here, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"not a ladder: .* holds notes.txt"):
        run_ladder(recipe, tmp_path)
    assert pool.asked == []


def test_a_run_that_fails_ends_the_ladder_with_its_own_message(
    recipe: LadderRecipe, pool: Here, tmp_path: Path
) -> None:
    wild = replace(recipe, optimizer=OptimizerConfig(learning_rate=1e9, warmup_tokens=0))
    with pytest.raises(RunError, match=r"step \d+: .*the loss"):
        run_ladder(wild, tmp_path / "ladder")
    assert not (tmp_path / "ladder" / "manifest.json").exists()


# --- watching it ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, (0, math.nan)),
        ("", (0, math.nan)),
        ('{"tokens": 10, "loss": 3.0}\n{"tokens": 20, "loss": 2.5}\n', (20, 2.5)),
        ('{"tokens": 10, "loss": 3.0}\n{"tokens": 20, "lo', (10, 3.0)),
        ('{"tokens": 1', (0, math.nan)),
        ("x" * 5000 + '"loss": 9}\n', (0, math.nan)),
        ('{"tokens": 10, "loss": 3.0}\n' * 500 + '{"tokens": 20, "loss": 2.5}\n', (20, 2.5)),
    ],
)
def test_the_last_whole_line_says_where_a_run_stands(
    tmp_path: Path, content: str | None, expected: tuple[int, float]
) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    assert last_metrics(tmp_path) == pytest.approx(expected, nan_ok=True)
