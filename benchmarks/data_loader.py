"""Random windows of a memory-mapped shard beside torch's DataLoader, in tokens per CPU-second.

    python benchmarks/data_loader.py [--megatokens 100] [--seq-len 1024] [--rows 32]

A file of random tokens in documents of about 1,000 is written and mapped. `isoflop` gives ids,
labels (hidden where a document ends) and document numbers; the DataLoader, over a dataset that
cuts the same windows, gives ids and labels alone. Contestants take turns; each figure is the best
of the rounds. CPU-seconds are of this process and its workers. The first pass over a fresh mapping
also checks every block against its checksum and is shown by itself.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from isoflop.core.process import keep_freed_buffers
from isoflop.data.checksums import BlockGuard, block_checksums
from isoflop.data.loader import Loader
from isoflop.data.mixture import MixtureLoader, Source
from isoflop.data.packing import PackedLoader, documents_cut_by_stream
from isoflop.data.shards import Split

VOCAB, EOS = 32_000, 0


class WindowDataset(Dataset[Any]):
    """The usual map-style dataset: a window and the same one token later, as int64."""

    def __init__(self, tokens: Any, seq_len: int) -> None:
        self.tokens, self.seq_len = tokens, seq_len

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.seq_len

    def __getitem__(self, index: int) -> Any:
        start = index * self.seq_len
        window = self.tokens[start : start + self.seq_len + 1].astype(np.int64)
        return torch.from_numpy(window[:-1]), torch.from_numpy(window[1:])


def make_split(folder: Path, n_tokens: int) -> Split:
    draw = np.random.default_rng(0)
    tokens = draw.integers(1, VOCAB, n_tokens).astype("<u2")
    ends = np.unique(np.append(draw.integers(0, n_tokens, n_tokens // 1000), n_tokens - 1))
    tokens[ends] = EOS
    tokens.tofile(folder / "train.bin")
    starts = np.concatenate([[0], ends + 1])
    return Split(
        name="train",
        tokens=np.memmap(folder / "train.bin", dtype="<u2", mode="r"),
        document_starts=starts,
        document_kinds=np.zeros(len(starts) - 1, dtype=np.uint8),
        kinds=("en",),
        n_bytes=0,
        eos_id=EOS,
        byte_lengths=np.zeros(VOCAB, dtype=np.int32),
    )


def guarded(split: Split, folder: Path) -> Split:
    path = folder / "train.bin"
    guard = BlockGuard(path, split.tokens.view(np.uint8), block_checksums(path))
    return Split(**{**vars(split), "guard": guard})


def cpu_now() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def torch_batches(dataset: WindowDataset, rows: int, workers: int, n_batches: int) -> Iterator[Any]:
    loader = DataLoader(dataset, rows, shuffle=True, num_workers=workers, drop_last=True)
    for number, batch in enumerate(loader):
        if number == n_batches:
            return
        yield batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megatokens", type=float, default=100.0)
    parser.add_argument("--seq-len", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--batches", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_buffers()
    rows, n_batches = arguments.rows, arguments.batches
    per_run = n_batches * rows * arguments.seq_len
    speeds: dict[str, float] = {}

    def race(label: str, work: Callable[[], object]) -> None:
        start = cpu_now()
        work()
        speed = per_run / (cpu_now() - start) / 1e6
        speeds[label] = max(speed, speeds.get(label, 0.0))

    with TemporaryDirectory() as name:
        folder = Path(name)
        split = guarded(make_split(folder, int(arguments.megatokens * 1e6)), folder)
        loader = Loader(split, arguments.seq_len, seed=0)
        start = cpu_now()
        for first in range(0, loader.n_windows, rows):
            loader.batch(first, min(rows, loader.n_windows - first))
        first_pass = loader.n_windows * arguments.seq_len / (cpu_now() - start) / 1e6
        packed = PackedLoader(split, arguments.seq_len, seed=0)
        sources = [
            Source(str(i), Loader(split, arguments.seq_len, i), ((0.0, 1.0),)) for i in range(3)
        ]
        mixed = MixtureLoader(sources, n_batches * rows)
        dataset = WindowDataset(split.tokens, arguments.seq_len)
        orders = {"isoflop": loader, "isoflop, 3 sources mixed": mixed, "isoflop, packed": packed}
        for _ in range(arguments.rounds):
            for label, order in orders.items():
                race(
                    label,
                    lambda order=order: [order.batch(i * rows, rows) for i in range(n_batches)],
                )
            for workers in (0, arguments.workers):
                where = f"{workers} workers" if workers else "in process"
                race(
                    f"torch DataLoader, {where}",
                    lambda workers=workers: [
                        None for _ in torch_batches(dataset, rows, workers, n_batches)
                    ],
                )
        print(f"first pass, checksums and all: {first_pass:8.1f} M tokens per CPU-second")
        for label, speed in sorted(speeds.items()):
            print(f"{label:>30}: {speed:8.1f} M tokens per CPU-second")
        for far in (0, 10**12):
            times = []
            for _ in range(20):
                start = time.process_time()
                Loader(split, arguments.seq_len, seed=1).batch(far, rows)
                times.append(time.process_time() - start)
            print(f"first batch after {far:,} windows: {min(times) * 1e3:.2f} ms of CPU")
        cut = documents_cut_by_stream(split, arguments.seq_len)
        print(
            f"packing: {packed.packing.padding:.2%} padding and "
            f"{packed.packing.documents_cut:.1%} of documents cut; the stream cuts {cut:.1%}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"megatokens_per_cpu_second": speeds}))


if __name__ == "__main__":
    main()
