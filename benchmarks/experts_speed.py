"""What experts cost: torch's grouped product against a loop, and a mixture against its dense twin.

`python benchmarks/experts_speed.py` prints CPU milliseconds of forward and backward passes on one
thread, the least of several, all in one process.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from isoflop.core.process import keep_freed_buffers
from isoflop.models import moe
from isoflop.models.config import DecoderConfig, ExpertsConfig
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise
from isoflop.training.objectives import TokenBatch, next_token_loss

ROUNDS = 9


def least(work: Callable[[], object]) -> float:
    """CPU milliseconds of the fastest of several rounds."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return 1e3 * min(times)


def grouped(experts: int, rows: int, width: int, inner: int) -> tuple[float, float]:
    """The kernel and the loop."""
    x = torch.randn(rows, width, requires_grad=True)
    weight = torch.randn(experts, inner, width, requires_grad=True)
    counts = torch.bincount(torch.randint(experts, (rows,)), minlength=experts)
    towards = torch.randn(rows, inner)

    def once() -> None:
        moe.grouped_product(x, weight, counts).backward(towards)

    kernel, aligned = least(once), moe.ALIGNED_BYTES
    moe.ALIGNED_BYTES = 1 << 60
    loop = least(once)
    moe.ALIGNED_BYTES = aligned
    return kernel, loop


def step(width: int, experts: ExpertsConfig | None) -> float:
    """A step of 1,024 tokens at vocabulary 2,048, without the optimizer."""
    heads = width // 32
    config = DecoderConfig(
        2048, width, 4, heads, heads, 32, 3 * width, max_seq_len=256, experts=experts
    )
    model = Decoder(config)
    initialise(model, 0)
    ids = torch.randint(2048, (4, 256))
    batch = TokenBatch(ids, ids, torch.zeros_like(ids), ids.numel())
    return least(lambda: next_token_loss(model, batch).backward())


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    keep_freed_buffers()
    print("experts  rows  width  inner  grouped  loop  (ms)")
    for shape in ((8, 4096, 128, 192), (64, 8192, 128, 64), (8, 4096, 512, 768)):
        kernel, loop = grouped(*shape)
        print(*shape, f"{kernel:.1f} {loop:.1f}")
    print("width  dense  8 experts, 2 a token  64 experts, 8 a token  (ms)")
    for width in (128, 256):
        few, many = ExpertsConfig(8, 2, 3 * width // 2), ExpertsConfig(64, 8, 3 * width // 8)
        print(width, *(f"{step(width, experts):.1f}" for experts in (None, few, many)))


if __name__ == "__main__":
    main()
