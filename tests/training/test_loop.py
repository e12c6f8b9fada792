"""One step is what the equations say, however the batch is cut; the loop stops when asked."""

from __future__ import annotations

import copy
import errno
import itertools
import json
import math
import os
import pickle
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from isoflop.core.console import SILENT
from isoflop.models.decoder import Decoder
from isoflop.training import checkpoint
from isoflop.training.checkpoint import latest_checkpoint
from isoflop.training.guard_recipe import GuardConfig
from isoflop.training.loop import LoopConfig, run
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.precision import Precision
from isoflop.training.step import Gradient, Task, apply_gradient, compute_gradient
from isoflop.training.stops import Diverged, Interrupted, NotFinite

DecoderOf = Callable[..., Decoder]
BatchOf = Callable[..., TokenBatch]
ENDS = (0, 0, 0, 1, 7, 4, 3, 2)
"""Document ends in each row of a global batch: quarters of it hold unequal numbers of labels."""


def task_of(batches: Callable[[int], Sequence[TokenBatch]]) -> Task[Decoder, TokenBatch]:
    return Task(
        batches, next_token_loss, evaluate=lambda model: {"loss": 1.0}, samples=lambda model: []
    )


def parts(batch: TokenBatch, count: int) -> list[TokenBatch]:
    """The batch cut into `count` micro-batches."""
    rows = len(batch.ids_BT) // count
    return [
        TokenBatch(*cut, n_valid=int((cut[1] >= 0).sum()))
        for cut in zip(*(x.split(rows) for x in (batch.ids_BT, batch.labels_BT,
                                                 batch.document_BT)), strict=True)
    ]  # fmt: skip


def train_step(
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    lr: float,
    task: Task[Decoder, TokenBatch],
    clip_norm: float,
) -> Gradient:
    gradient = compute_gradient(model, task, 0, clip_norm)
    apply_gradient(optimizer, lr)
    return gradient


class Catcher(torch.optim.SGD):
    """Keeps the gradients instead of using them."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.caught = [p.grad.clone() for g in self.param_groups for p in g["params"]]


def reference_gradient(model: Decoder, batch: TokenBatch) -> tuple[float, list[torch.Tensor]]:
    """(mean loss, gradient) in float64, from whole logits of the uncut batch."""
    exact = copy.deepcopy(model).double()
    logits = exact(batch.ids_BT, batch.document_BT).flatten(0, 1)
    loss = F.cross_entropy(logits, batch.labels_BT.flatten())
    loss.backward()
    return loss.item(), [p.grad for p in exact.parameters()]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_gradient_of_a_cut_batch_is_that_of_the_whole_in_float64(
    decoder_of: DecoderOf, batch_of: BatchOf, count: int
) -> None:
    model, batch = decoder_of(), batch_of(8, ends=ENDS)
    cut = parts(batch, count)
    assert len({b.n_valid for b in cut}) == count, "the cuts must hold unequal label counts"
    catcher = Catcher(model.parameters(), lr=0.0)
    found = train_step(model, catcher, 0.1, task_of(lambda step: cut), clip_norm=1e9)
    loss, expected = reference_gradient(model, batch)
    assert found.count == 8 * 16 - sum(ENDS)
    assert found.loss_sum / found.count == pytest.approx(loss, rel=1e-6)
    length = math.sqrt(sum((g**2).sum().item() for g in expected))
    assert found.norm == pytest.approx(length, rel=1e-5)
    for ours, theirs in zip(catcher.caught, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6)
    assert catcher.param_groups[0]["lr"] == 0.1
    assert all(p.grad is None for p in model.parameters())


def test_two_steps_are_adamw_with_clipping_written_out_in_float64(
    decoder_of: DecoderOf, batch_of: BatchOf
) -> None:
    config = OptimizerConfig(weight_decay=0.3, beta1=0.8, beta2=0.9, eps=1e-4, clip_norm=0.05)
    model, batches = decoder_of(), [batch_of(8, seed=s, ends=ENDS) for s in (1, 2)]
    optimizer = build_optimizer(model, config)
    matrices = [n.endswith("proj.weight") for n, _ in model.named_parameters()]
    weights = [p.detach().double().numpy().copy() for p in model.parameters()]
    m, v = ([np.zeros_like(w) for w in weights] for _ in range(2))
    for step, (batch, lr) in enumerate(zip(batches, (0.02, 0.05), strict=True)):
        exact = copy.deepcopy(model).double()
        with torch.no_grad():
            for parameter, weight in zip(exact.parameters(), weights, strict=True):
                parameter.copy_(torch.from_numpy(weight))
        gradient = [g.numpy() for g in reference_gradient(exact, batch)[1]]
        norm = math.sqrt(sum((g**2).sum() for g in gradient))
        assert norm > 10 * config.clip_norm, "clipping must matter"
        for i, g in enumerate(gradient):
            g = g * config.clip_norm / norm
            m[i] = config.beta1 * m[i] + (1 - config.beta1) * g
            v[i] = config.beta2 * v[i] + (1 - config.beta2) * g**2
            m_hat = m[i] / (1 - config.beta1 ** (step + 1))
            v_hat = v[i] / (1 - config.beta2 ** (step + 1))
            decay = config.weight_decay if matrices[i] else 0.0
            weights[i] = weights[i] * (1 - lr * decay) - lr * m_hat / (np.sqrt(v_hat) + config.eps)
        task = task_of(lambda _, b=batch: parts(b, 4))
        train_step(model, optimizer, lr, task, config.clip_norm)
    for parameter, expected in zip(model.parameters(), weights, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-4, atol=2e-5)


def test_a_gradient_below_the_limit_is_not_scaled(decoder_of: DecoderOf, batch_of: BatchOf) -> None:
    model, batch = decoder_of(), batch_of(8, ends=ENDS)
    caught = []
    for clip in (1e9, 1e3):
        catcher = Catcher(model.parameters(), lr=0.0)
        train_step(model, catcher, 0.1, task_of(lambda step: [batch]), clip)
        caught.append(catcher.caught)
    assert all(torch.equal(a, b) for a, b in zip(*caught, strict=True))


# --- the loop ------------------------------------------------------------------------------


def config_of(**changes: object) -> LoopConfig:
    settings: dict[str, object] = {
        "steps": 12, "batch_tokens": lambda step: 128, "flops_per_token": 1000.0, "peak_flops": 1e9,
        "clip_norm": 1.0, "log_every": 5, "evaluate_at": frozenset({6, 12}),
        "checkpoint_every": 4, "keep_checkpoints_at": frozenset({4}), "tensorboard": False,
    }  # fmt: skip
    return LoopConfig(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture
def run_loop(decoder_of: DecoderOf, batch_of: BatchOf) -> Callable[..., tuple[Decoder, Path]]:
    """`run_loop(directory, on_step=..., **config changes)`."""

    def go(
        directory: Path,
        on_step: Callable[[int], None] = lambda step: None,
        loss: Callable[[Decoder, TokenBatch], torch.Tensor] = next_token_loss,
        rate: Callable[[int], float] = lambda tokens: 1e-3 + tokens * 1e-7,
        **changes: object,
    ) -> Decoder:
        directory.mkdir(exist_ok=True)

        def batches(step: int) -> list[TokenBatch]:
            on_step(step)
            return [batch_of(8, seed=step, ends=ENDS)]

        model = decoder_of()
        run(
            model,
            build_optimizer(model, OptimizerConfig()),
            rate,
            replace(task_of(batches), loss=loss, describe=lambda step: {"documents": [step]}),
            config_of(**changes),
            directory,
            SILENT,
        )
        return model

    return go


def rows(directory: Path, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / name).read_text().splitlines()]


def test_each_metrics_line_averages_the_steps_since_the_last(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    run_loop(tmp_path / "each", log_every=1)
    run_loop(tmp_path / "five", log_every=5)
    each, five = (rows(tmp_path / n, "metrics.jsonl") for n in ("each", "five"))
    assert [row["step"] for row in five] == [5, 10, 12]
    count = 128 - sum(ENDS)
    for row, span in zip(five, [each[:5], each[5:10], each[10:]], strict=True):
        mean = sum(r["loss"] * count for r in span) / (count * len(span))
        assert row["loss"] == pytest.approx(mean, rel=1e-12)
        assert row["lr"] == span[-1]["lr"] == 1e-3 + (row["tokens"] - 128) * 1e-7
        assert row["grad_norm"] == span[-1]["grad_norm"]
        assert (row["tokens"], row["flops"]) == (row["step"] * 128, row["step"] * 128 * 1000.0)
        assert row["mfu"] == pytest.approx(row["tokens_per_second"] * 1000.0 / 1e9)


def test_evaluations_and_checkpoints_come_where_they_are_due(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    run_loop(tmp_path)
    assert [row["step"] for row in rows(tmp_path, "evals.jsonl")] == [6, 12]
    kept = {p.name for p in (tmp_path / "checkpoints").iterdir()}
    assert kept == {"step_00000004", "step_00000012"}, "the kept one and the last"


def test_without_a_measured_peak_no_utilisation_is_claimed(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    run_loop(tmp_path, peak_flops=None)
    assert all("mfu" not in row for row in rows(tmp_path, "metrics.jsonl"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_honoured_after_the_step_with_a_checkpoint(
    run_loop: Callable[..., Decoder], tmp_path: Path, number: signal.Signals
) -> None:
    whole = run_loop(tmp_path / "whole")
    handler = signal.getsignal(number)

    def strike(step: int) -> None:
        if step == 6:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match=number.name):
        run_loop(tmp_path / "struck", strike)
    assert signal.getsignal(number) is handler
    assert (tmp_path / "struck" / "checkpoints" / "step_00000007").is_dir()
    resumed = run_loop(tmp_path / "struck")
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    events = [(e["event"], e["step"]) for e in rows(tmp_path / "struck", "events.jsonl")]
    assert events == [("started", 0), ("interrupted", 7), ("resumed", 7)]


def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_leaves_the_one_before(
    run_loop: Callable[..., Decoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoint.save
    calls, steps = itertools.count(1), list[int]()

    def full(*args: Any, **options: Any) -> None:
        if next(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args, **options)

    monkeypatch.setattr(checkpoint, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run_loop(tmp_path / "run", steps.append, checkpoint_every=4, steps=100)
    store = tmp_path / "run" / "checkpoints"
    assert [path.name for path in store.iterdir()] == ["step_00000004"]
    assert steps[-1] < 99, "it is found out while the run goes on"
    resumed, whole = (run_loop(tmp_path / name, steps=100) for name in ("run", "whole"))
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_an_interruption_crosses_processes_whole() -> None:
    copied = pickle.loads(pickle.dumps(Interrupted(signal.SIGTERM)))
    assert type(copied) is Interrupted
    assert (copied.signal_number, str(copied)) == (15, "stopped by SIGTERM; checkpoint written")


# --- bad steps -----------------------------------------------------------------------------


class Faulty:
    """The loss of the task, but for chosen calls, which see another one."""

    def __init__(self, faults: dict[int, float]) -> None:
        self.faults, self.calls = faults, 0

    def __call__(self, model: Decoder, batch: TokenBatch) -> torch.Tensor:
        self.calls += 1
        return next_token_loss(model, batch) * self.faults.get(self.calls, 1.0)


def events(directory: Path) -> list[tuple[object, object]]:
    return [(e["event"], e["step"]) for e in rows(directory, "events.jsonl")]


def test_a_step_that_is_not_finite_is_left_out_and_its_documents_named(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    run_loop(tmp_path, loss=Faulty({6: math.nan}))
    assert events(tmp_path) == [("started", 0), ("not finite", 6)]
    event = rows(tmp_path, "events.jsonl")[1]
    assert event["documents"] == [5]
    assert "the loss (nan)" in str(event["what"])
    assert [row["step"] for row in rows(tmp_path, "metrics.jsonl")] == [5, 10, 12]


def test_a_step_left_out_does_not_touch_the_weights(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    """The run is one in which that step's learning rate was 0 and its gradient unseen."""
    left_out = run_loop(tmp_path / "a", steps=1, loss=Faulty({1: math.inf}))
    untouched = run_loop(tmp_path / "b", steps=0)
    for ours, theirs in zip(left_out.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_recipe_may_stop_at_the_first_step_that_is_not_finite(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    stop = GuardConfig(non_finite="stop")
    with pytest.raises(NotFinite, match=r"step 8: the loss \(nan\)") as caught:
        run_loop(tmp_path, loss=Faulty({8: math.nan}), guard=stop)
    assert "Lower optimizer.learning_rate" in str(caught.value)


def test_a_spike_is_left_out_after_half_a_window(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    guard = GuardConfig(spike_z=12, window=10)
    run_loop(tmp_path, loss=Faulty({4: 3.0, 9: 3.0}), guard=guard)
    assert events(tmp_path) == [("started", 0), ("spike", 9)], "the fourth comes too early"


def test_steps_left_out_in_a_row_send_the_run_back_past_their_batches(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    seen: list[int] = []
    guard = GuardConfig(max_skips=1)
    run_loop(tmp_path, seen.append, loss=Faulty({6: math.nan, 7: math.nan}), guard=guard)
    assert seen == [0, 1, 2, 3, 4, 5, 6, *range(7, 15)]
    assert events(tmp_path) == [
        ("started", 0), ("not finite", 6), ("not finite", 7), ("went back", 4),
    ]  # fmt: skip
    steps = [row["step"] for row in rows(tmp_path, "metrics.jsonl")]
    assert steps == [5, 10, 12], "what was logged after the checkpoint is cut"


def test_a_killed_run_with_faults_resumes_to_the_same_bits(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    guard = GuardConfig(max_skips=1, window=8)

    def poisoned(model: Decoder, batch: TokenBatch) -> torch.Tensor:
        # A fault of the data: it depends on the batch alone.
        bad = batch.ids_BT[0, 0].item() in (bad_ids[5], bad_ids[6])
        return next_token_loss(model, batch) * (math.nan if bad else 1.0)

    ids: list[int] = []
    run_loop(tmp_path / "clean", loss=lambda m, b: (ids.append(b.ids_BT[0, 0].item()),
                                                    next_token_loss(m, b))[1])  # fmt: skip
    bad_ids = ids
    assert len({*ids[:5], *ids[7:]} & {ids[5], ids[6]}) == 0
    whole = run_loop(tmp_path / "whole", loss=poisoned, guard=guard)

    def strike(step: int) -> None:
        if step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_loop(tmp_path / "cut", strike, loss=poisoned, guard=guard)
    again = run_loop(tmp_path / "cut", loss=poisoned, guard=guard)
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_run_that_cannot_be_helped_stops_with_a_diagnosis(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    faults = dict.fromkeys(range(6, 100), math.nan)
    guard = GuardConfig(max_skips=1, max_rollbacks=2)
    with pytest.raises(Diverged, match=r"2 steps in a row .* 2 returns to a checkpoint did not"):
        run_loop(tmp_path / "a", loss=Faulty(faults), guard=guard)
    with pytest.raises(Diverged, match="no checkpoint to go back to"):
        run_loop(tmp_path / "b", loss=Faulty(faults), guard=guard, checkpoint_every=100,
                 keep_checkpoints_at=frozenset())  # fmt: skip


def test_the_mean_of_the_weights_is_what_is_evaluated_exported_and_resumed(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    whole = run_loop(tmp_path / "whole", average_decay=0.5)
    plain = run_loop(tmp_path / "plain")
    assert not torch.equal(whole.norm.weight, plain.norm.weight)
    paths = [run_loop(tmp_path / f"{n}", steps=n).norm.weight.detach() for n in range(13)]
    mean = paths[0].double()
    for step in range(1, 13):
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * paths[step].double()
    torch.testing.assert_close(whole.norm.weight.double(), mean, rtol=1e-6, atol=1e-7)

    def strike(step: int) -> None:
        if step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_loop(tmp_path / "cut", strike, average_decay=0.5)
    again = run_loop(tmp_path / "cut", average_decay=0.5)
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


# --- float16 -------------------------------------------------------------------------------

HALF = Precision(dtype=torch.float16)


def _burst(model: Decoder, batch: TokenBatch, factor: float) -> torch.Tensor:
    """The loss with a gradient `factor` times as large."""
    loss = next_token_loss(model, batch)
    return loss + (factor - 1) * (loss - loss.detach())


def test_an_overflow_is_left_out_and_halves_the_scale_without_troubling_the_guard(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    calls = itertools.count(1)

    def loss(model: Decoder, batch: TokenBatch) -> torch.Tensor:
        return _burst(model, batch, 1e37 if next(calls) in (3, 4) else 1.0)

    run_loop(tmp_path / "run", loss=loss, precision=HALF, log_every=1)
    events = [e for e in rows(tmp_path / "run", "events.jsonl") if e["event"] != "started"]
    assert [(e["event"], e["step"], e["loss_scale"]) for e in events] == [
        ("overflow", 2, 2.0**15),
        ("overflow", 3, 2.0**14),
    ]
    metrics = rows(tmp_path / "run", "metrics.jsonl")
    assert [row["step"] for row in metrics] == [1, 2, 5, 6, 7, 8, 9, 10, 11, 12]
    assert metrics[-1]["overflows"] == 2
    assert metrics[-1]["loss_scale"] == 2.0**14
    latest = latest_checkpoint(tmp_path / "run" / "checkpoints")
    assert latest is not None
    saved = json.loads((latest / "loop.json").read_text())["loop"]
    assert saved["loss_scale"] == {"value": 2.0**14, "calm": 8, "overflows": 2}
    assert saved["guard"]["skips"] == 0


def test_at_the_floor_of_the_scale_an_overflow_is_the_guards(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    with pytest.raises(NotFinite, match="not finite"):
        run_loop(
            tmp_path / "run",
            loss=lambda model, batch: _burst(model, batch, 1e38),
            precision=HALF,
            steps=40,
            guard=GuardConfig(non_finite="stop"),
        )
    events = rows(tmp_path / "run", "events.jsonl")
    assert [e["event"] for e in events[1:]] == ["overflow"] * 16 + ["not finite"]


def test_a_loss_that_is_not_finite_is_no_overflow(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    with pytest.raises(NotFinite):
        run_loop(
            tmp_path / "run",
            loss=lambda model, batch: next_token_loss(model, batch) * math.nan,
            precision=HALF,
            guard=GuardConfig(non_finite="stop"),
        )


def test_a_resumed_float16_run_goes_on_with_its_scale(
    run_loop: Callable[..., Decoder], tmp_path: Path
) -> None:
    class Burst:
        """An overflow at the third call."""

        calls = 0

        def __call__(self, model: Decoder, batch: TokenBatch) -> torch.Tensor:
            self.calls += 1
            return _burst(model, batch, 1e37 if self.calls == 3 else 1.0)

    whole = run_loop(tmp_path / "whole", loss=Burst(), precision=HALF)
    burst = Burst()
    run_loop(tmp_path / "parts", loss=burst, precision=HALF, steps=8)
    parts = run_loop(tmp_path / "parts", loss=burst, precision=HALF)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_scale_leaves_the_gradient_as_it_is(decoder_of: DecoderOf, batch_of: BatchOf) -> None:
    """Powers of two: in float32 to the bit."""
    found = []
    for scale in (1.0, 2.0**12):
        model, batches = decoder_of(), [batch_of(4, seed=s) for s in range(2)]
        task = task_of(lambda step, batches=batches: batches)
        found.append((compute_gradient(model, task, 0, 1e9, None, scale), model))
    assert found[0][0] == found[1][0]
    for a, b in zip(found[0][1].parameters(), found[1][1].parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)
