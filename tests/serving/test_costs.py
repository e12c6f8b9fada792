"""What answers cost is foretold for every load, measured beside it, and settled in the ledger."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from isoflop.core.ledger import Ledger
from isoflop.models.decoder import Decoder
from isoflop.serving.costs import FEWEST, Cost, Promises, lines, measure_costs
from isoflop.serving.engine import Engine
from isoflop.serving.settings import EngineConfig
from isoflop.serving.worker import Worker

COSTS = (Cost(1, 0.5, 0.125, 8.0), Cost(8, 1.0, 0.25, 32.0))
Serving = Callable[..., AbstractContextManager[Any]]


@pytest.mark.parametrize(("most", "loads"), [(32, [1, 8, 32]), (4, [1, 4]), (1, [1])])
def test_every_load_the_engine_takes_is_measured_and_nothing_is_left_behind(
    decoder_of: Callable[..., Decoder], most: int, loads: list[int]
) -> None:
    engine = Engine(decoder_of(), [b"a"] * 97, EngineConfig(most_running=most))
    worker = Worker(engine, 256)
    costs = measure_costs(worker)
    worker.close()
    assert [cost.load for cost in costs] == loads
    for cost in costs:
        assert cost.tokens_per_second == pytest.approx(cost.load / cost.between_seconds)
    load = engine.load()
    assert (load.running, load.waiting, load.blocks_held) == (0, 0, 0)
    assert not engine.busy
    assert len(list(lines(costs))) == 1 + len(loads)


def test_a_model_too_short_to_measure_is_promised_nothing(
    decoder_of: Callable[..., Decoder],
) -> None:
    worker = Worker(Engine(decoder_of(max_seq_len=16), [b"a"] * 97), 256)
    assert measure_costs(worker) == ()
    worker.close()
    Promises(()).note(1, 1, 0.1, None)
    assert list(lines(())) == []


def test_means_are_kept_by_the_nearest_load(tmp_path: Path) -> None:
    promises = Promises(COSTS, tmp_path / "ledger.jsonl")
    promises.write()
    made = Ledger(tmp_path / "ledger.jsonl").read()
    assert [p.quantity for p in made][:3] == [
        "time_to_first_token at load 1", "inter_token_latency at load 1", "throughput at load 1",
    ]  # fmt: skip
    assert all(p.low <= p.value <= p.high for p in made)
    for _ in range(FEWEST):
        promises.note(1, 1, 0.75, None)
        promises.note(1, 2, 9.0, 0.5)  # two tokens in one piece
    for _ in range(FEWEST - 1):
        promises.note(5, 1, 3.0, 0.5)  # nearer to 8 than to 1, and not seen often enough
    found = {(name, cost.load): value for name, cost, value in promises.measured()}
    assert found == {
        ("time_to_first_token", 1): 0.75, ("inter_token_latency", 1): 0.25, ("throughput", 1): 4.0,
    }  # fmt: skip
    promises.settle()
    settled = Ledger(tmp_path / "ledger.jsonl").read()
    assert [p.settled for p in settled] == [True] * 3 + [False] * 3
    assert [p.outcome for p in settled[:3]] == [0.75, 0.25, 4.0]
    assert [p.held for p in settled[:3]] == [True, True, True]


def test_a_server_shows_both_and_settles_at_its_end(serving: Serving, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with serving(ledger=path) as served:
        assert len(Ledger(path).read()) == 9
        for _ in range(2):
            served.client().completions.create(
                model="tiny", prompt="loss", max_tokens=30, stream=False,
                extra_body={"ignore_eos": True},
            )  # fmt: skip
        _, text, _ = served.ask("/metrics")
        for load in (1, 8, 32):
            for name in ("time_to_first_token_seconds", "inter_token_latency_seconds",
                         "throughput_tokens_per_second"):  # fmt: skip
                assert f'isoflop:predicted_{name}{{load="{load}",model_name="tiny"}}' in text
        assert 'isoflop:measured_inter_token_latency_seconds{load="1",model_name="tiny"}' in text
    settled = {p.quantity: p.settled for p in Ledger(path).read()}
    assert settled["inter_token_latency at load 1"]
    assert not settled["inter_token_latency at load 32"]
