"""How fast the serving engine writes on this CPU: tokens/s at batch 1 and 8, beside transformers.

Both decode the same random Llama-shaped model greedily, in turns in one process; the least time
of several rounds counts, in CPU-seconds of the process, so that what else the machine does falls
away. The bound is the time in which the weights can be read once a step, at the
bandwidth measured in the same run. Not for quality, nor for the network.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import tyro

from isoflop.models.build import build_model
from isoflop.models.config import DECODER_FORMS, DecoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.hugging_face_config import hugging_face_config
from isoflop.models.hugging_face_tensors import links
from isoflop.models.initialise import initialise
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
PROMPT, NEW = 32, 48


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    size: str = "10M"
    """10M or 100M."""
    rounds: int = 4
    threads: int = 1
    json: bool = False


@dataclass(frozen=True)
class Row:
    """One batch size."""

    batch: int
    tokens_per_second: float
    peer_tokens_per_second: float
    ratio: float
    """Ours over transformers'."""
    share_of_bound: float
    """Of the tokens/s at which the weights would be read at full bandwidth, once a step."""


def decoding_seconds(write: Callable[[int], object]) -> float:
    """Seconds of `NEW` tokens after the first: the prompt's time is taken off."""
    times = []
    for n_new in (1, NEW + 1):
        began = time.process_time()
        write(n_new)
        times.append(time.process_time() - began)
    return times[1] - times[0]


def read_bandwidth() -> float:
    """Bytes/s at which a matrix too large for caches is read by a product, as in decoding."""
    weight = torch.randn(16_384, 4096)
    x = torch.randn(4, 4096)
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        torch.nn.functional.linear(x, weight)
        best = min(best, time.process_time() - began)
    return weight.numel() * 4 / best


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


def measure(arguments: Arguments) -> dict[str, Any]:
    """All rows."""
    torch.set_num_threads(arguments.threads)
    config = DecoderConfig(
        **{**SIZES[arguments.size], **DECODER_FORMS["llama"], "max_seq_len": 256}
    )
    decoder = build_model(config)
    initialise(decoder, 0)
    assert isinstance(decoder, Decoder)
    theirs = peer_of(decoder)
    n_bytes = 4 * sum(parameter.numel() for parameter in decoder.parameters())
    engine = Engine(decoder, [b"x"] * config.vocab_size, EngineConfig(draft_tokens=0))
    draw = torch.Generator().manual_seed(1)
    rows = []
    for batch in (1, 8):
        ids = torch.randint(config.vocab_size, (batch, PROMPT), generator=draw)

        def ours(n_new: int, ids: torch.Tensor = ids) -> list[list[int]]:
            greedy = Sampling(temperature=0)
            asked = [Request(tuple(row), n_new, greedy) for row in ids.tolist()]
            return [list(answers[0].ids) for answers in engine.answer(asked)]

        def peers(n_new: int, ids: torch.Tensor = ids) -> list[list[int]]:
            said = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_new,
                min_new_tokens=n_new, do_sample=False, pad_token_id=0, eos_token_id=None,
            )  # fmt: skip
            out: list[list[int]] = said[:, PROMPT:].tolist()
            return out

        assert ours(8) == peers(8), "the two do not write the same"
        mine, other = float("inf"), float("inf")
        for _ in range(arguments.rounds):
            mine = min(mine, decoding_seconds(ours))
            other = min(other, decoding_seconds(peers))
        bound = read_bandwidth() / n_bytes * batch
        speed = batch * NEW / mine
        rows.append(Row(batch, speed, batch * NEW / other, other / mine, speed / bound))
    parameters = n_bytes // 4
    return {"parameters": parameters, "threads": arguments.threads,
            "read_gigabytes_per_second": read_bandwidth() / 1e9,
            "rows": [asdict(row) for row in rows]}  # fmt: skip


def main() -> None:
    """Measure and print."""
    warnings.simplefilter("ignore")
    arguments = tyro.cli(Arguments)
    found = measure(arguments)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['parameters']:,} parameters, {found['threads']} thread(s), "
          f"{found['read_gigabytes_per_second']:.1f} GB/s")  # fmt: skip
    print("| batch | tokens/s | transformers | ratio | share of the bandwidth bound |")
    print("|---|---|---|---|---|")
    for row in found["rows"]:
        print(
            f"| {row['batch']} | {row['tokens_per_second']:.0f} | "
            f"{row['peer_tokens_per_second']:.0f} | {row['ratio']:.2f} | "
            f"{row['share_of_bound']:.0%} |"
        )


if __name__ == "__main__":
    main()
