"""How fast the serving engine writes on this CPU, in 32, 8 and 4 bits, beside transformers.

All write greedily after the same prompts, in turns in one process, from random weights of Llama's
shape. What counts is the least time from one token to the next over all rounds: what else the
machine does makes steps longer and none shorter. The bound is the time in which a step's weights,
keys and values are read once, at the bandwidth measured in the same run. With `--lookup`, what
guessing ahead by prompt lookup gains on a text that repeats itself. Not for quality, nor for the
network.
"""

from __future__ import annotations

import json
import mmap
import statistics
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from isoflop.compression.quantize import plan_bits, quantize_decoder
from isoflop.models.build import build_model
from isoflop.models.config import DECODER_FORMS, DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.decoder_weights import DecoderWeights, weights_of
from isoflop.models.hugging_face_config import hugging_face_config
from isoflop.models.hugging_face_tensors import links
from isoflop.models.initialise import initialise
from isoflop.models.native.build import library
from isoflop.serving.engine import Engine
from isoflop.serving.request import Request
from isoflop.serving.sampler import Sampling
from isoflop.serving.settings import EngineConfig

SIZES = {
    "10M": {"d_model": 320, "n_layers": 6, "n_heads": 10, "n_kv_heads": 5, "head_dim": 32,
            "d_ff": 864, "vocab_size": 8192},
    "100M": {"d_model": 768, "n_layers": 12, "n_heads": 12, "n_kv_heads": 4, "head_dim": 64,
             "d_ff": 2048, "vocab_size": 16384},
}  # fmt: skip
PROMPT = 32
GREEDY = Sampling(temperature=0)
PEER = "transformers"


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    sizes: tuple[str, ...] = ("10M", "100M")
    """Of 10M and 100M."""
    batches: tuple[int, ...] = (1, 8)
    rounds: int = 6
    tokens: int = 48
    """Written in each round."""
    threads: int = 2
    lookup: bool = False
    """Measure prompt lookup instead."""
    llama: Path | None = None
    """Directory of the npm package node-llama-cpp: llama.cpp writes too, batch 1."""
    tokenizer: Path | None = None
    """A tokenizer for its files, which have none otherwise; of at most 8,192 ids."""
    json: bool = False


@dataclass(frozen=True)
class Row:
    """One writer at one batch size."""

    size: str
    writer: str
    batch: int
    tokens_per_second: float
    cpu_milliseconds_per_token: float
    """Of all threads together, waiting ones included; 0 where it is not known."""
    ratio: float
    """Tokens/s over those of transformers."""
    share_of_bound: float
    """Of the tokens/s at which a step's bytes would be read at the bandwidth measured just before
    and after, the larger; the median of all rounds; 0 as above."""


class Clock:
    """Seconds between tokens."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.cpu: list[float] = []
        self._last = (0.0, 0.0)
        self._round = 0

    def start(self) -> None:
        """What comes now is not counted up to the next `tick`."""
        self._last, self._round = (0.0, 0.0), len(self.steps)

    def fastest(self) -> float:
        """The least since the start."""
        return min(self.steps[self._round :])

    def tick(self) -> None:
        """A token is there."""
        now = (time.perf_counter(), time.process_time())
        if self._last[0]:
            self.steps.append(now[0] - self._last[0])
            self.cpu.append(now[1] - self._last[1])
        self._last = now


def read_bandwidth() -> float:
    """Bytes/s at which memory too large for caches, in large pages, is read by all threads."""
    memory = mmap.mmap(-1, 2**28, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    numbers = torch.frombuffer(memory, dtype=torch.float32).fill_(1.0)
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        numbers.sum()
        best = min(best, time.perf_counter() - began)
    return numbers.numel() * 4 / best


def peer_of(decoder: Decoder) -> Any:
    """transformers' model with the same weights."""
    import transformers

    config = transformers.LlamaConfig(**hugging_face_config(decoder.config))
    theirs = transformers.LlamaForCausalLM(config).eval()
    own = dict(decoder.named_parameters())
    stored = {
        key: tensor.detach()
        for link in links(decoder.config, "LlamaForCausalLM")
        for key, tensor in zip(link.theirs, link.store([own[n] for n in link.ours]), strict=True)
    }
    theirs.load_state_dict(stored, strict=False)
    theirs.tie_weights()
    return theirs


def make_decoder(size: str) -> Decoder:
    """A random decoder of Llama's shape."""
    shape = {**SIZES[size], **DECODER_FORMS["llama"], "max_seq_len": 256}
    decoder = build_model(DecoderConfig(**shape))
    initialise(decoder, 0)
    assert isinstance(decoder, Decoder)
    return decoder


Writer = Callable[[torch.Tensor, Clock], list[list[int]]]


def writer_of(weights: DecoderWeights, n_new: int) -> Writer:
    """Our engine."""
    engine = Engine(weights, [b"x"] * weights.config.vocab_size, EngineConfig(draft_tokens=0))

    def write(ids: torch.Tensor, clock: Clock) -> list[list[int]]:
        for row in ids.tolist():
            engine.add(Request(tuple(row), n_new, GREEDY), lambda _: None)
        running = list(engine.scheduler.waiting)
        clock.start()
        while engine.busy:
            engine.step()
            if all(sequence.n_new for sequence in running):
                clock.tick()
        return [sequence.tokens[PROMPT:] for sequence in running]

    return write


def peer_writer(theirs: Any, n_new: int) -> Writer:
    """transformers' `generate`."""
    import transformers

    class Ticking(transformers.StoppingCriteria):  # type: ignore[misc]
        clock = Clock()

        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            self.clock.tick()
            return torch.zeros(len(input_ids), dtype=torch.bool)

    ticking = Ticking()

    def write(ids: torch.Tensor, clock: Clock) -> list[list[int]]:
        ticking.clock = clock
        clock.start()
        said = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_new, min_new_tokens=n_new,
            do_sample=False, pad_token_id=0, eos_token_id=None,
            stopping_criteria=transformers.StoppingCriteriaList([ticking]),
        )  # fmt: skip
        out: list[list[int]] = said[:, PROMPT:].tolist()
        return out

    return write


def measure(size: str, arguments: Arguments) -> tuple[list[Row], float]:
    """All rows of one size, and the bandwidth in bytes/s."""
    decoder = make_decoder(size)
    stored = {"32 bits": weights_of(decoder)}
    for bits in (8, 4):
        packed = quantize_decoder(decoder, plan_bits(decoder, bits, 32))
        tensors = {**stored["32 bits"].tensors, **packed}
        stored[f"{bits} bits"] = DecoderWeights(decoder.config, tensors)
    writers = {PEER: peer_writer(peer_of(decoder), arguments.tokens)}
    writers |= {name: writer_of(one, arguments.tokens) for name, one in stored.items()}
    config, draw = decoder.config, torch.Generator().manual_seed(1)
    cache_bytes = 8 * config.n_layers * config.n_kv_heads * config.head_dim * PROMPT
    bandwidth, rows = 0.0, []
    for batch in arguments.batches:
        ids = torch.randint(config.vocab_size, (batch, PROMPT), generator=draw)
        clocks = {name: Clock() for name in writers}
        read: dict[str, list[float]] = {name: [] for name in writers}
        for turn in range(arguments.rounds):
            said, before = {}, read_bandwidth()
            for name, write in writers.items():
                said[name], fastest = write(ids, clocks[name]), clocks[name].fastest()
                after = read_bandwidth()
                # What else uses the memory comes and goes: a step is held against its own time.
                read[name].append(1 / fastest / max(before, after))
                bandwidth, before = max(bandwidth, after), after
            if turn == 0:
                assert said["32 bits"] == said[PEER], "the two do not write the same"
        seconds = {name: min(clock.steps) for name, clock in clocks.items()}
        for name in writers:
            n_bytes = stored.get(name, stored["32 bits"]).n_bytes + batch * cache_bytes
            rows.append(
                Row(
                    size, name, batch, batch / seconds[name],
                    1e3 * min(clocks[name].cpu) / batch,
                    seconds[PEER] / seconds[name], n_bytes * statistics.median(read[name]),
                )
            )  # fmt: skip
        if batch == 1 and arguments.llama is not None:
            for name, milliseconds in llama_milliseconds(decoder, arguments).items():
                ratio = 1e3 * seconds[PEER] / milliseconds
                rows.append(Row(size, name, 1, 1e3 / milliseconds, 0.0, ratio, 0.0))
    return rows, bandwidth


def llama_milliseconds(decoder: Decoder, arguments: Arguments) -> dict[str, float]:
    """Least milliseconds between two tokens in llama.cpp, by format."""
    from isoflop.compression.gguf import export_gguf
    from isoflop.models.convert import save_model

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        save_model(decoder, Path(folder) / "model", arguments.tokenizer)
        for name in ("f32", "q8_0", "q4_0"):
            path = Path(folder) / f"{name}.gguf"
            export_gguf(Path(folder) / "model", path, name)
            numbers = (arguments.threads, PROMPT, arguments.tokens, arguments.rounds)
            script = Path(__file__).with_name("llama_speed.mjs")
            command = ["node", str(script), str(arguments.llama), str(path), *map(str, numbers)]
            said = subprocess.run(command, check=True, capture_output=True, text=True)
            found[f"llama.cpp {name}"] = float(json.loads(said.stdout)["milliseconds"])
    return found


def lookup_gain(size: str, arguments: Arguments) -> dict[str, Any]:
    """What prompt lookup gains where the text repeats itself: a random model soon writes a loop.
    In CPU-seconds, so with one thread, for waiting threads count."""
    decoder = make_decoder(size)
    prompt = tuple((list(range(40, 48)) * 8)[:PROMPT])
    engines = {
        drafts: Engine(
            decoder, [b"x"] * decoder.config.vocab_size, EngineConfig(draft_tokens=drafts)
        )
        for drafts in (0, 3, 7)
    }
    seconds = dict.fromkeys(engines, float("inf"))
    said: dict[int, tuple[int, ...]] = {}
    for _ in range(arguments.rounds):
        for drafts, engine in engines.items():
            began = time.process_time()
            said[drafts] = engine.answer([Request(prompt, 160, GREEDY)])[0][0].ids
            seconds[drafts] = min(seconds[drafts], time.process_time() - began)
    assert len(set(said.values())) == 1, "drafts changed the answer"
    loads = {drafts: engine.load() for drafts, engine in engines.items()}
    return {
        "size": size,
        "tokens_per_cpu_second": {drafts: 160 / value for drafts, value in seconds.items()},
        "accepted": {
            drafts: load.accepted / load.drafted for drafts, load in loads.items() if load.drafted
        },
    }


def main() -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    arguments = tyro.cli(Arguments)
    torch.set_num_threads(arguments.threads)
    if arguments.lookup:
        for size in arguments.sizes:
            print(json.dumps(lookup_gain(size, arguments)))
        return
    rows: list[Row] = []
    bandwidths = {}
    for size in arguments.sizes:
        found, bandwidths[size] = measure(size, arguments)
        rows += found
    if arguments.json:
        document = {
            "threads": arguments.threads, "native": library().why, "bytes_per_second": bandwidths,
            "rows": [asdict(row) for row in rows],
        }  # fmt: skip
        print(json.dumps(document, indent=2))
        return
    said = ", ".join(f"{size}: {value / 1e9:.1f} GB/s" for size, value in bandwidths.items())
    print(f"{arguments.threads} thread(s); {said}; native library: {library().why}\n")
    print("| model | batch | | tokens/s | CPU ms per token | × transformers | share of the bound |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.size} | {row.batch} | {row.writer} | {row.tokens_per_second:.0f} | "
            f"{row.cpu_milliseconds_per_token:.2f} | {row.ratio:.2f} | {row.share_of_bound:.0%} |"
        )


if __name__ == "__main__":
    main()
