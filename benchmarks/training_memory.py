"""Bytes of tensors at the peak of a training step against those foretold, by model and by mode.

`python benchmarks/training_memory.py`: a step of two micro-batches on the CPU (so that gradients
are held while the second pass goes through), every tensor's storage counted while it lives. Not
the process: interpreter, libraries and what the allocator keeps come on top.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from isoflop.models.config import DECODER_FORMS, DecoderConfig, ExpertsConfig, Recompute
from isoflop.models.decoder import Block, Decoder
from isoflop.models.initialise import initialise
from isoflop.models.memory import memory_bytes
from isoflop.training.objectives import TokenBatch, next_token_loss
from isoflop.training.optimizer_recipe import OptimizerConfig
from isoflop.training.optimizers import build_optimizer
from isoflop.training.step import Task, apply_gradient, compute_gradient

SEQ_LEN, ROWS, VOCAB = 256, 4, 4096
SHAPES = {
    "Qwen3 form, 4 layers of 128": DecoderConfig(VOCAB, 128, 4, 2, 2, 64, 352, SEQ_LEN),
    "Qwen3 form, 8 layers of 256": DecoderConfig(VOCAB, 256, 8, 4, 2, 64, 704, SEQ_LEN),
    "GPT-2 form, 6 layers of 192": DecoderConfig(
        VOCAB, 192, 6, 3, 3, 64, 768, SEQ_LEN, **DECODER_FORMS["gpt2"]
    ),
    "experts, 4 layers of 128": DecoderConfig(
        VOCAB, 128, 4, 2, 2, 64, 352, SEQ_LEN, experts=ExpertsConfig(8, 2, 128)
    ),
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


def measured(config: DecoderConfig, mode: Recompute) -> int:
    """Peak bytes of the second of two steps, batch and buffers of the model left out."""
    model = Decoder(config)
    initialise(model, 0)
    for block in model.layers:
        if isinstance(block, Block):
            block.recompute = mode
    optimizer = build_optimizer(model, OptimizerConfig())
    ids = torch.randint(config.vocab_size, (ROWS, SEQ_LEN))
    document = (torch.arange(SEQ_LEN) // 100).expand(ROWS, -1).contiguous()
    batch = TokenBatch(ids, ids, document, ids.numel())
    task = Task(lambda _: [batch, batch], next_token_loss, lambda _: {}, lambda _: ())
    compute_gradient(model, task, 0, 1.0)
    apply_gradient(optimizer, 1e-3)
    live = LiveBytes()
    for tensor in model.parameters():
        live.watch(tensor)
    for state in optimizer.state.values():
        for value in state.values():
            live.watch(value)
    with live:
        compute_gradient(model, task, 1, 1.0)
        apply_gradient(optimizer, 1e-3)
    return live.peak


def main() -> None:
    torch.manual_seed(0)
    print("| model | recomputed | measured MB | foretold MB | error |\n|---|---|---|---|---|")
    for name, config in SHAPES.items():
        for mode in MODES:
            foretold = memory_bytes(
                config,
                micro_batch_tokens=ROWS * SEQ_LEN,
                seq_len=SEQ_LEN,
                recompute=[mode] * config.n_layers,
            ).total
            seen = measured(config, mode)
            print(
                f"| {name} | {mode} | {seen / 1e6:.1f} | {foretold / 1e6:.1f} | "
                f"{foretold / seen - 1:+.1%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
