"""Where a training step of a small decoder goes, part by part, with and without the native library.

    python benchmarks/training_profile.py --size 1M --threads 1

Milliseconds of the autograd nodes that a step consists of, and the rate at which each does its
useful FLOPs (those of its matrix products, with causal attention's half; what a backward pass
computes again does not count). The machine's peak is that of a large product of torch in this run.
"""

from __future__ import annotations

import argparse

import torch
from torch.profiler import ProfilerActivity, profile
from training_speed import CASES, SEQ_LEN, Case, isoflop

from isoflop.core.hardware import measure_peak
from isoflop.models.recipe import ModelConfig

STEPS = 8
PARTS = {
    "output layer and loss, both passes": ("_LinearCrossEntropy",),
    "feed-forward, forward": ("_FeedForward", "_NativeFeedForward"),
    "feed-forward, backward": ("_FeedForwardBackward", "_NativeFeedForwardBackward"),
    "attention, forward": ("_Attention", "_NativeAttention"),
    "attention, backward": ("_AttentionBackward", "_NativeAttentionBackward"),
}
"""Part → the nodes that are it, in either form."""


def gflop(case: Case) -> dict[str, float]:
    """Part → GFLOP of a step."""
    shape = ModelConfig(d_model=case.d_model, n_layers=case.n_layers, head_dim=case.head_dim)
    own = shape.decoder_config(case.vocab_size, SEQ_LEN)
    rows, layers = case.batch_tokens / 1e9, own.n_layers
    query, key = own.n_heads * own.head_dim, own.n_kv_heads * own.head_dim
    inner = 6 * rows * layers * own.d_model * own.d_ff
    attention = 2 * rows * layers * (own.d_model * (2 * query + 2 * key) + SEQ_LEN * query)
    output = 6 * rows * own.d_model * own.vocab_size
    return dict(zip(PARTS, (output, inner, 2 * inner, attention, 2 * attention), strict=True))


def milliseconds(case: Case, *, kernels: bool) -> dict[str, float]:
    """Part → time of a step; "all" is the whole step."""
    one = isoflop(case, kernels=kernels)
    generator = torch.Generator().manual_seed(0)
    shape = case.batch_tokens // SEQ_LEN, SEQ_LEN
    ids_BT, labels_BT = (
        torch.randint(case.vocab_size, shape, generator=generator) for _ in range(2)
    )
    for _ in range(3):
        one.step(ids_BT, labels_BT)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(STEPS):
            with torch.profiler.record_function("all"):
                one.step(ids_BT, labels_BT)
    totals = {event.key: event.cpu_time_total for event in found.key_averages()}
    parts = {
        part: sum(totals.get(name, 0.0) for name in names) / STEPS / 1e3
        for part, names in PARTS.items()
    }
    return {**parts, "all": totals["all"] / STEPS / 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="1M", choices=["0.2M", "1M"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    case = next(c for c in CASES if c.size == options.size and c.vocab_size == 4096)
    work = gflop(case)
    peak = measure_peak("float32", options.threads, 1.0)
    print(f"{options.size}, {options.threads} threads, peak {peak:.0f} GFLOP/s\n")
    print("| part | GFLOP | plain torch, ms | GFLOP/s | native, ms | GFLOP/s |")
    print("|---|---|---|---|---|---|")
    forms = [milliseconds(case, kernels=kernels) for kernels in (False, True)]
    for part, n in work.items():
        cells = [f"{form[part]:.1f} | {n / form[part] * 1e3:.0f}" for form in forms]
        print(f"| {part} | {n:.2f} | {' | '.join(cells)} |")
    rest = [form["all"] - sum(form[part] for part in work) for form in forms]
    print(f"| the rest (norms, embedding, clipping, AdamW) | | {rest[0]:.1f} | | {rest[1]:.1f} | |")
    total = sum(work.values())
    cells = [f"{form['all']:.1f} | {total / form['all'] * 1e3:.0f}" for form in forms]
    print(f"| all | {total:.2f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
