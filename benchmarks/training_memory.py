"""Memory at the peak of a training step against what is foretold, by form of model and by mode.

`python benchmarks/training_memory.py`: whole steps on the CPU, of one micro-batch and of two (so
that gradients are held while the second pass goes through), each in a process of its own. Measured
twice: the bytes of all tensors that live at one time, and the process's anonymous memory, in which
the allocator's gaps and the buffers inside of single operations are as well. Ratios are foretold
over measured.
"""

from __future__ import annotations

import argparse
import weakref
from collections.abc import Callable
from multiprocessing import Pipe, get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from isoflop.core.process import keep_freed_buffers
from isoflop.data.loader import IGNORED
from isoflop.models.build import build_model
from isoflop.models.config import (
    DECODER_FORMS,
    AnyConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ExpertsConfig,
    Recompute,
)
from isoflop.models.decoder import Block, Decoder
from isoflop.models.initialise import initialise
from isoflop.models.memory import memory_bytes
from isoflop.models.native import calls as native
from isoflop.training.masked import MaskedBatch, masked_loss
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.seq2seq import SourceTargetBatch, target_loss
from isoflop.training.step import Task, apply_gradient, compute_gradient

SEQ_LEN, ROWS, VOCAB = 256, 4, 4096
GPT2 = DECODER_FORMS["gpt2"]
LLAMA = DECODER_FORMS["llama"]
SHAPES: dict[str, AnyConfig] = {
    "Qwen3, 4 layers of 128": DecoderConfig(VOCAB, 128, 4, 2, 2, 64, 352, SEQ_LEN),
    "Qwen3, 8 layers of 256": DecoderConfig(VOCAB, 256, 8, 4, 2, 64, 704, SEQ_LEN),
    "Llama, 8 layers of 256": DecoderConfig(VOCAB, 256, 8, 4, 2, 64, 704, SEQ_LEN, **LLAMA),
    "Llama, window of 64": DecoderConfig(VOCAB, 256, 6, 4, 4, 64, 704, SEQ_LEN, window=64, **LLAMA),
    "GPT-2, 6 layers of 192": DecoderConfig(VOCAB, 192, 6, 3, 3, 64, 768, SEQ_LEN, **GPT2),
    "GPT-2, sinusoids": DecoderConfig(
        VOCAB, 192, 6, 3, 3, 64, 768, SEQ_LEN, **{**GPT2, "positions": "sinusoidal"}
    ),
    "GPT-2, ALiBi": DecoderConfig(
        VOCAB, 192, 6, 3, 3, 64, 768, SEQ_LEN, **{**GPT2, "positions": "alibi"}
    ),
    "experts, 4 layers of 128": DecoderConfig(
        VOCAB, 128, 4, 2, 2, 64, 352, SEQ_LEN, experts=ExpertsConfig(8, 2, 128)
    ),
    "BERT, 6 layers of 192": EncoderConfig(VOCAB, 192, 6, 3, 768, SEQ_LEN),
    "T5, 4 and 4 layers of 192": EncoderDecoderConfig(VOCAB, 192, 4, 4, 3, 64, 768),
}  # fmt: skip
MODES: tuple[Recompute, ...] = ("none", "attention", "block")


class LiveBytes(TorchDispatchMode):
    """Bytes of all storages that operations made and that still live, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def watch(self, tensor: Tensor) -> None:
        """Count a tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.watch(leaf)
        return out


def task_of(config: AnyConfig, micro_batches: int) -> Task[Any, Any]:
    """Random tokens in several documents a row, with the loss of the model's own objective."""
    ids = torch.randint(config.vocab_size, (ROWS, SEQ_LEN))
    document = (torch.arange(SEQ_LEN) // 100).expand(ROWS, -1).contiguous()
    loss: Any
    batch: Any
    if isinstance(config, EncoderConfig):
        labels = torch.where(torch.rand(ids.shape) < 0.15, ids, IGNORED)
        n_masked = int((labels != IGNORED).sum())
        batch, loss = MaskedBatch(ids, labels, document, None, None, 1.0, n_masked), masked_loss
    elif isinstance(config, EncoderDecoderConfig):
        batch = SourceTargetBatch(ids, ids, ids, document, document, ids.numel())
        loss = target_loss
    else:
        batch, loss = TokenBatch(ids, ids, document, ids.numel()), next_token_loss
    return Task(lambda _: [batch] * micro_batches, loss, lambda _: {}, lambda _: ())


def prepared(config: AnyConfig, mode: Recompute, micro_batches: int) -> Any:
    """A function that takes a whole step, and the tensors that live between steps."""
    model = build_model(config)
    initialise(model, 0)
    if isinstance(model, Decoder):
        for block in model.layers:
            if isinstance(block, Block):
                block.recompute = mode
    optimizer = build_optimizer(model, OptimizerConfig())
    task = task_of(config, micro_batches)

    def step() -> None:
        compute_gradient(model, task, 0, 1.0)
        apply_gradient(optimizer, 1e-3)

    step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    return step, [*model.parameters(), *states]


def live_bytes(config: AnyConfig, mode: Recompute, micro_batches: int) -> int:
    """Peak bytes of tensors in the second of two steps, batch and buffers left out."""
    step, lasting = prepared(config, mode, micro_batches)
    live = LiveBytes()
    for tensor in lasting:
        live.watch(tensor)
    with live:
        step()
    return live.peak


def process_bytes(config: AnyConfig, mode: Recompute, micro_batches: int) -> int:
    """By how much three steps let the anonymous memory of this process grow: with freed buffers
    kept, as in a run, that is its peak; mapped files (libraries) are not part of it."""
    keep_freed_buffers()
    before = anonymous_bytes()
    step, _ = prepared(config, mode, micro_batches)
    for _ in range(2):
        step()
    return anonymous_bytes() - before


def anonymous_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def forked(measure: Callable[..., int], *arguments: Any) -> int:
    """What `measure` finds in a process of its own."""
    end, ours = Pipe(duplex=False)

    def tell() -> None:
        ours.send(measure(*arguments))

    process = get_context("fork").Process(target=tell)
    process.start()
    found: int = end.recv()
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="models whose name holds this")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warm = DecoderConfig(64, 32, 1, 1, 1, 32, 64, SEQ_LEN)
    prepared(warm, "none", 1)[0]()  # so that the libraries' own memory is there before any fork
    print(
        "| model | micro-batches | computed again | tensors, foretold MB | measured | ratio "
        "| process, foretold MB | measured | ratio |"
    )
    print("|---" * 9 + "|")
    for name, config in SHAPES.items():
        if arguments.only not in name:
            continue
        decoder = isinstance(config, DecoderConfig)
        cases = [(1, "none"), *((2, mode) for mode in (MODES if decoder else MODES[:1]))]
        for micro_batches, mode in cases:
            foretold = memory_bytes(
                config,
                micro_batch_tokens=ROWS * SEQ_LEN,
                seq_len=SEQ_LEN,
                recompute=[mode] * config.n_layers if decoder else (),
                native=native.in_use(),
                accumulates=micro_batches > 1,
            )
            seen = [
                forked(measure, config, mode, micro_batches)
                for measure in (live_bytes, process_bytes)
            ]
            cells = [
                f"{told / 1e6:.1f} | {each / 1e6:.1f} | {told / each:.2f}"
                for told, each in zip((foretold.total, foretold.process), seen, strict=True)
            ]
            row = f"| {name} | {micro_batches} | {mode} | "
            print(row + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
