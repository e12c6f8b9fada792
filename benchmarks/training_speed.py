"""How fast Isoflop trains on this CPU: as a share of the measured peak, and beside its peers.

All do the same work, a whole optimizer step on the same tokens with as many parameters: Isoflop's
own step with and without its native library, a GPT-2-shaped model in plain torch, `transformers`'
Llama, and LitGPT's where it is installed. Each has a process of its own, set up as its users' is,
and they take turns step by step, so that whatever else the machine does falls on all of them. Not
for learning quality, nor for GPUs.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from peers.gpt import GPT
from torch import Tensor, nn

from isoflop.core.hardware import machine, measure_peak, usable_cores, versions
from isoflop.core.process import begin_worker, keep_freed_buffers
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.models.native import calls as native
from isoflop.models.recipe import ModelConfig
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.step import Task, apply_gradient, compute_gradient

SEQ_LEN = 256
WARMUP_ROUNDS, FEWEST_ROUNDS = 2, 5
MATCHED = 0.04
"""Peers may differ from Isoflop by this share in parameters and in FLOPs per token; parameters
without the GPT's learned positions, which multiply nothing."""
OPTIMIZER = OptimizerConfig(learning_rate=1e-3)


@dataclass(frozen=True)
class Case:
    """One comparison: a size of model and of batch."""

    size: str
    d_model: int
    n_layers: int
    head_dim: int
    vocab_size: int
    batch_tokens: int


CASES = (
    Case("0.2M", 64, 4, 32, 4096, 4096),
    Case("1M", 128, 5, 32, 4096, 4096),
    Case("1M", 128, 4, 32, 1024, 1024),
    Case("10M", 320, 8, 64, 4096, 4096),
    Case("30M", 512, 10, 64, 32_768, 2048),
)
"""Sizes are weights of the layers; the embedding, which is the output layer too, comes on top."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    sizes: tuple[Literal["0.2M", "1M", "10M", "30M"], ...] = ("0.2M", "1M", "10M", "30M")
    """Which sizes."""
    vocabularies: tuple[int, ...] = ()
    """Only cases of these vocabularies; all when not given."""
    batches: tuple[int, ...] = ()
    """Only cases of these tokens per step; all when not given."""
    seconds: float = 30.0
    """Seconds per case, and at least five rounds."""
    threads: int | None = None
    """CPU threads; all usable cores when not given."""
    compiled: bool = False
    """Also race the GPT under torch.compile (needs a C++ compiler; compiles for a minute)."""
    shared_setting: bool = False
    """Let the peers, too, keep freed memory mapped, as Isoflop's processes do."""
    json: Path | None = None
    """Also write everything to this file."""


@dataclass(frozen=True)
class Contestant:
    """A model with its whole training step."""

    parameters: int
    flops_per_token: float
    step: Callable[[Tensor, Tensor], float]
    """(ids_BT, labels_BT) → mean loss in nats, after one optimizer step."""


def chosen(options: Options) -> list[Case]:
    """The cases asked for."""
    return [
        case
        for case in CASES
        if case.size in options.sizes
        and case.vocab_size in (options.vocabularies or (case.vocab_size,))
        and case.batch_tokens in (options.batches or (case.batch_tokens,))
    ]


# --- the contestants -----------------------------------------------------------------------


def isoflop(case: Case, *, kernels: bool = True, document_tokens: int | None = None) -> Contestant:
    """Isoflop's training step; with `document_tokens`, attention stays within such documents."""
    keep_freed_buffers()
    native.use(kernels)
    shape = ModelConfig(d_model=case.d_model, n_layers=case.n_layers, head_dim=case.head_dim)
    model = Decoder(shape.decoder_config(case.vocab_size, SEQ_LEN))
    initialise(model, seed=0)
    optimizer = build_optimizer(model, OPTIMIZER)
    rows = case.batch_tokens // SEQ_LEN
    place_T = torch.arange(SEQ_LEN, dtype=torch.int32)
    document_BT = (place_T // (document_tokens or SEQ_LEN)).repeat(rows, 1)

    def step(ids_BT: Tensor, labels_BT: Tensor) -> float:
        batch = TokenBatch(ids_BT, labels_BT, document_BT, labels_BT.numel())
        task = Task(lambda _: [batch], next_token_loss, lambda _: {}, lambda _: ())
        gradient = compute_gradient(model, task, 0, OPTIMIZER.clip_norm)
        apply_gradient(optimizer, OPTIMIZER.learning_rate)
        return gradient.loss_sum / gradient.count

    return _contestant(model, case, step)


def gpt(case: Case, *, compiled: bool = False) -> Contestant:
    """The GPT-2-shaped model in plain torch."""
    torch.manual_seed(0)
    model = GPT(
        case.vocab_size, SEQ_LEN, case.d_model, case.n_layers, case.d_model // case.head_dim
    )
    loss = torch.compile(model) if compiled else model
    return _contestant(model, case, _step(model, loss))


def llama(case: Case) -> Contestant:
    """`transformers`' Llama, of Isoflop's shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = ModelConfig(d_model=case.d_model, n_layers=case.n_layers, head_dim=case.head_dim)
    own = shape.decoder_config(case.vocab_size, SEQ_LEN)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=own.vocab_size,
            hidden_size=own.d_model,
            intermediate_size=own.d_ff,
            num_hidden_layers=own.n_layers,
            num_attention_heads=own.n_heads,
            num_key_value_heads=own.n_kv_heads,
            head_dim=own.head_dim,
            max_position_embeddings=SEQ_LEN,
            tie_word_embeddings=True,
            use_cache=False,
            attn_implementation="sdpa",
        )
    )

    def loss(ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
        # Labels already one to the right, as for the others; otherwise transformers shifts.
        out: Tensor = model(input_ids=ids_BT, labels=labels_BT, shift_labels=labels_BT).loss
        return out

    model.train()
    return _contestant(model, case, _step(model, loss))


def litgpt(case: Case) -> Contestant:
    """LitGPT's Llama form, of Isoflop's shape."""
    import litgpt

    shape = ModelConfig(d_model=case.d_model, n_layers=case.n_layers, head_dim=case.head_dim)
    own = shape.decoder_config(case.vocab_size, SEQ_LEN)
    torch.manual_seed(0)
    model = litgpt.GPT(
        litgpt.Config(
            block_size=SEQ_LEN,
            vocab_size=own.vocab_size,
            padded_vocab_size=own.vocab_size,
            n_layer=own.n_layers,
            n_head=own.n_heads,
            n_embd=own.d_model,
            intermediate_size=own.d_ff,
            rotary_percentage=1.0,
            parallel_residual=False,
            bias=False,
            norm_class_name="RMSNorm",
            mlp_class_name="LLaMAMLP",
        )
    )
    model.lm_head.weight = model.transformer.wte.weight

    def loss(ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(ids_BT).flatten(0, 1), labels_BT.flatten())

    return _contestant(model, case, _step(model, loss))


def _step(
    model: nn.Module, loss_of: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor, Tensor], float]:
    """The usual training step of a plain torch program."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": OPTIMIZER.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=OPTIMIZER.learning_rate,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.eps,
        fused=True,
    )

    def step(ids_BT: Tensor, labels_BT: Tensor) -> float:
        loss = loss_of(ids_BT, labels_BT)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def _contestant(
    model: nn.Module, case: Case, step: Callable[[Tensor, Tensor], float]
) -> Contestant:
    """One formula for all: 6 FLOPs per weight of a product and token, plus causal attention.

    All tie the output layer to the embedding, so every matrix but the positions multiplies.
    """
    matrices = sum(
        p.numel() for n, p in model.named_parameters() if p.ndim == 2 and "positions" not in n
    )
    attention = 6 * case.n_layers * SEQ_LEN * case.d_model
    parameters = sum(p.numel() for n, p in model.named_parameters() if "positions" not in n)
    return Contestant(parameters, 6 * matrices + attention, step)


# --- the race ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Times:
    """Seconds of every round, per contestant."""

    wall: list[list[float]]
    cpu: list[list[float]]
    loss: list[float]


ENTRIES: Mapping[str, Callable[[Case], Contestant]] = {
    "isoflop": isoflop,
    "isoflop, plain torch": lambda case: isoflop(case, kernels=False),
    "GPT": gpt,
    "transformers Llama": llama,
    "LitGPT": litgpt,
    "GPT, compiled": lambda case: gpt(case, compiled=True),
    "isoflop, packed documents": lambda case: isoflop(case, document_tokens=SEQ_LEN // 2),
}


@dataclass(frozen=True)
class Entered:
    """A contestant that waits in its own process."""

    name: str
    parameters: int
    flops_per_token: float
    line: Connection


def _compete(name: str, case: Case, threads: int, shared: bool, line: Connection) -> None:
    """In a process of its own: build the contestant and take a step whenever told to."""
    begin_worker()
    torch.set_num_threads(threads)
    if shared:
        keep_freed_buffers()
    try:
        one = ENTRIES[name](case)
    except ImportError as error:
        line.send(error)
        return
    line.send((one.parameters, one.flops_per_token))
    while (seed := line.recv()) is not None:
        ids_BT, labels_BT = _tokens(case, torch.Generator().manual_seed(seed))
        wall, cpu = time.perf_counter(), time.process_time()
        loss = one.step(ids_BT, labels_BT)
        line.send((time.perf_counter() - wall, time.process_time() - cpu, loss))


def enter(name: str, case: Case, threads: int, shared: bool) -> Entered | None:
    """Start a contestant's process; None where what it needs is not installed."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=_compete, args=(name, case, threads, shared, there), daemon=True).start()
    there.close()
    answer = here.recv()
    if isinstance(answer, ImportError):
        print(f"{name} is left out: {answer}")
        return None
    return Entered(name, *answer, here)


def race(contestants: Sequence[Entered], seconds: float) -> Times:
    """Let the contestants take turns until the time is up; each round starts with another one."""
    times = Times([[] for _ in contestants], [[] for _ in contestants], [0.0 for _ in contestants])
    began, done = time.perf_counter(), 0
    while done < WARMUP_ROUNDS + FEWEST_ROUNDS or time.perf_counter() - began < seconds:
        for place in range(len(contestants)):
            i = (done + place) % len(contestants)
            contestants[i].line.send(done)
            wall, cpu, times.loss[i] = contestants[i].line.recv()
            if done >= WARMUP_ROUNDS:
                times.wall[i].append(wall)
                times.cpu[i].append(cpu)
        done += 1
    for one in contestants:
        one.line.send(None)
    return times


def _tokens(case: Case, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random ids, the low ones frequent as in text, so that there is something to learn."""
    uniform = torch.rand(case.batch_tokens // SEQ_LEN, SEQ_LEN + 1, generator=generator)
    ids = (case.vocab_size * uniform**3).long().clamp_max(case.vocab_size - 1)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def _check_matched(contestants: Sequence[Entered]) -> None:
    own = contestants[0]
    for other in contestants[1:]:
        for mine, theirs in (
            (own.parameters, other.parameters),
            (own.flops_per_token, other.flops_per_token),
        ):
            assert abs(theirs / mine - 1) <= MATCHED, (own.name, other.name, mine, theirs)


def measure(case: Case, options: Options, threads: int) -> tuple[list[Entered], Times]:
    """Race all contestants at one size."""
    names = ["isoflop", "isoflop, plain torch", "GPT", "transformers Llama", "LitGPT"]
    names += ["GPT, compiled"] if options.compiled else []
    names += ["isoflop, packed documents"] if case.size == "1M" else []
    entered = [enter(name, case, threads, options.shared_setting) for name in names]
    contestants = [entry for entry in entered if entry is not None]
    _check_matched(contestants)
    return contestants, race(contestants, options.seconds)


@dataclass(frozen=True)
class Measured:
    """What one contestant did; seconds are medians over the rounds."""

    name: str
    parameters: int
    flops_per_token: float
    rounds: int
    step_seconds: float
    step_cpu_seconds: float
    tokens_per_second: float
    gflops: float
    peak_share: float
    """GFLOP/s as a share of the best large matrix product of this run."""
    isoflop_speed: float
    """Median over the rounds of this one's seconds / Isoflop's; above 1, Isoflop is faster."""
    isoflop_cpu_speed: float
    """The same of CPU seconds, which other programs disturb less."""
    loss: float
    """Mean of the last round: all of them learn."""


def evaluate(
    contestants: Sequence[Entered], times: Times, case: Case, peak: float
) -> list[Measured]:
    """Medians and ratios; the ratios are of rounds, in which all met the same conditions."""
    rows = []
    for i, one in enumerate(contestants):
        step = statistics.median(times.wall[i])
        tokens_per_second = case.batch_tokens / step
        gflops = tokens_per_second * one.flops_per_token / 1e9
        rows.append(
            Measured(
                name=one.name,
                parameters=one.parameters,
                flops_per_token=one.flops_per_token,
                rounds=len(times.wall[i]),
                step_seconds=step,
                step_cpu_seconds=statistics.median(times.cpu[i]),
                tokens_per_second=tokens_per_second,
                gflops=gflops,
                peak_share=gflops / peak,
                isoflop_speed=_median_ratio(times.wall[i], times.wall[0]),
                isoflop_cpu_speed=_median_ratio(times.cpu[i], times.cpu[0]),
                loss=times.loss[i],
            )
        )
    return rows


def _median_ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    return statistics.median(t / o for t, o in zip(theirs, ours, strict=True))


# --- the report ----------------------------------------------------------------------------


def table(case: Case, rows: Sequence[Measured]) -> str:
    """The rows of one case, to read."""
    lines = [
        f"{case.size}: width {case.d_model}, {case.n_layers} layers, vocabulary "
        f"{case.vocab_size}, {case.batch_tokens} tokens a step, {rows[0].rounds} rounds",
        f"  {'':26}{'params':>9}{'ms/step':>9}{'tokens/s':>10}{'GFLOP/s':>9}{'of peak':>9}"
        f"{'isoflop is':>12}{'by CPU time':>13}",
    ]
    for row in rows:
        lines.append(
            f"  {row.name:26}{row.parameters / 1e6:>8.2f}M{1e3 * row.step_seconds:>9.1f}"
            f"{row.tokens_per_second:>10.0f}{row.gflops:>9.1f}{row.peak_share:>9.1%}"
            f"{row.isoflop_speed:>11.2f}×{row.isoflop_cpu_speed:>12.2f}×"
        )
    return "\n".join(lines)


def main(options: Options) -> None:
    """Measure, print, and write the JSON file if one is asked for."""
    threads = options.threads or usable_cores()
    torch.set_num_threads(threads)
    load_before = os.getloadavg()[0]
    peaks = [measure_peak("float32", threads, seconds=1.0)]
    raced = []
    for case in chosen(options):
        raced.append((case, *measure(case, options, threads)))
        peaks.append(measure_peak("float32", threads, seconds=1.0))
    peak = max(peaks)  # of large products, the best of those measured between the cases
    results = [(case, evaluate(who, times, case, peak)) for case, who, times in raced]
    print(
        f"float32, sequences of {SEQ_LEN}, {threads} threads, measured peak {peak:.0f} GFLOP/s, "
        f"load {load_before:.1f} before and {os.getloadavg()[0]:.1f} after"
    )
    print("'isoflop is' n× the speed of that row: above 1, Isoflop is faster\n")
    print("\n\n".join(table(case, rows) for case, rows in results))
    if options.json is not None:
        document: dict[str, Any] = {
            "machine": machine(),
            "versions": versions(("torch", "transformers")),
            "threads": threads,
            "seq_len": SEQ_LEN,
            "peak_gflops": peak,
            "peaks_gflops": peaks,
            "load": {"before": load_before, "after": os.getloadavg()[0]},
            "cases": [
                {**asdict(case), "contestants": [asdict(row) for row in rows]}
                for case, rows in results
            ],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
