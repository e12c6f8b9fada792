"""`isoflop compress`, in Python: promise, compress, measure, and a model directory with all three.

Not for the methods themselves (`quantize.py`, `gptq.py`, `prune.py`), nor for any that trains.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from isoflop.compression.gptq import gptq_decoder
from isoflop.compression.measure import Measured, generation_speeds, measure
from isoflop.compression.prune import Pattern, Score, prune_decoder
from isoflop.compression.quantize import plan_bits, quantize_decoder, stored_bytes
from isoflop.compression.sensitivity import LEVEL, Sensitivity, foretell
from isoflop.compression.texts import Texts, open_texts
from isoflop.core.artifact import build_directory, write_atomic, write_json, write_manifest
from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import RecipeError
from isoflop.core.hardware import machine
from isoflop.core.ledger import LEDGER, Ledger, Promise
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.loading import load
from isoflop.models.card import CARD, model_card
from isoflop.models.convert import write_variant
from isoflop.models.decoder import Decoder
from isoflop.models.packed_weights import Packed
from isoflop.models.stored_weights import WEIGHTS

Method = Literal["int8", "int4", "gptq", "magnitude", "wanda"]
METHODS: tuple[str, ...] = get_args(Method)
HEADER_BYTES = 512
"""Of a file's header, most that one parameter takes: names, formats and shapes of three tensors."""
BURSTS = 7
"""Bursts of decoding whose spread foretells the speed."""


@dataclass(frozen=True)
class CompressConfig:
    """How a model is compressed."""

    method: Method
    bits: int = 4
    """Of `gptq`: 4 or 8."""
    group: int = 32
    """Columns that share a scale, at 4 bits."""
    sparsity: float = 0.5
    """Share of weights that pruning removes."""
    pattern: Pattern = "unstructured"
    """Which weights pruning may remove: any of a row, or two of four neighbours (`2:4`)."""
    tokens: int = 16_384
    """Tokens to calibrate on, to probe and to judge, each."""

    def __post_init__(self) -> None:
        problems = []
        if self.method not in METHODS:
            problems.append(f"method = {self.method} is none of {', '.join(METHODS)}")
        if self.bits not in (4, 8):
            problems.append(f"bits = {self.bits} must be 4 or 8")
        if self.group < 2 or self.group % 2:
            problems.append(f"group = {self.group} must be even and at least 2")
        if not 0 < self.sparsity < 1:
            problems.append(f"sparsity = {self.sparsity} must lie between 0 and 1")
        if self.pattern == "2:4" and self.sparsity != 0.5:
            problems.append("2:4 removes half of the weights: sparsity = 0.5")
        if self.tokens < 1:
            problems.append(f"tokens = {self.tokens} must be at least 1")
        if problems:
            raise RecipeError("; ".join(problems), where="compress")

    @property
    def packs(self) -> bool:
        """Whether weights are stored in fewer bits."""
        return self.method in ("int8", "int4", "gptq")


@dataclass(frozen=True)
class Compressed:
    """What came of it."""

    path: Path
    measured: Measured
    sensitivity: Sensitivity
    promises: tuple[Promise, ...]
    bytes_full: int
    """Of the model's weights as float32."""
    bytes: int
    """Of the weights file written."""
    tokens_per_second_full: float
    tokens_per_second: float

    def document(self) -> dict[str, Any]:
        """`result.json`."""
        return {**asdict(self), "path": self.path.name}


@dataclass(frozen=True)
class _Work:
    """A method applied: parameters in few bits, or new values."""

    packed: Mapping[str, Packed]
    values: Mapping[str, Tensor]


def compress(
    model: Path, data: Path, out: Path, config: CompressConfig, progress: Progress = SILENT
) -> Compressed:
    """Compress a model directory into another, with its promises, ledger and result.

    The promises are written to `ledger.jsonl` before the model is compressed as a whole, and
    settled after; `result.json` holds all figures.

    Args:
        data: Shards of the model's tokenizer, or a text file.

    Raises:
        ArtifactError: The model or the shards cannot be read, or `out` holds something else.
        DataError: There is too little text.
    """
    decoder = load(model).decoder
    tokenizer = load_tokenizer(model)
    texts = open_texts(data, tokenizer, decoder.config.max_seq_len, config.tokens)
    with build_directory(out) as aside:
        ledger = Ledger(aside / LEDGER)
        progress.note("foretelling from each part alone")
        sensitivity = _foretell(decoder, texts, config)
        speeds = generation_speeds(decoder, texts.held_out, BURSTS)
        full_size = sum(4 * p.numel() for p in decoder.parameters())
        size = full_size
        if config.packs:
            size = stored_bytes(decoder, plan_bits(decoder, _bits(config), config.group))
        header = HEADER_BYTES * len(list(decoder.parameters()))
        ids = _promise(ledger, config, sensitivity, (size, header), speeds)
        progress.note(f"promised: {said(sensitivity)}; compressing")
        done = _apply(decoder, texts, config, sequential=True)
        small = _with(decoder, done.values)
        measured = measure(decoder, small, texts.held_out)
        speed = statistics.median(generation_speeds(small, texts.held_out, BURSTS))
        written = write_variant(small, model, aside, out, done.packed)
        file_size = (aside / WEIGHTS).stat().st_size
        outcomes = {"added": measured.added, "bytes": file_size, "speed": speed}
        settled = tuple(ledger.settle(ids[key], value) for key, value in outcomes.items())
        result = Compressed(
            path=out,
            measured=measured,
            sensitivity=sensitivity,
            promises=settled,
            bytes_full=full_size,
            bytes=file_size,
            tokens_per_second_full=statistics.median(speeds),
            tokens_per_second=speed,
        )
        inputs = (model, data)
        card = model_card(
            f"{model.resolve().name}, {config.method}", decoder.config, inputs, _facts(result)
        )
        write_atomic(aside / CARD, card)
        write_json(aside / "result.json", {"config": asdict(config), **result.document()})
        write_manifest(aside, kind="model", config=written, machine=machine(), inputs=inputs)
    return result


def said(sensitivity: Sensitivity) -> str:
    """The promise in words."""
    percent = 100 / sensitivity.bits_per_byte
    return (
        f"{sensitivity.added:+.4f} bits per byte ({sensitivity.added * percent:+.2f} %), "
        f"{LEVEL:.0%} interval {sensitivity.low * percent:+.2f} to "
        f"{sensitivity.high * percent:+.2f} %"
    )


def _facts(found: Compressed) -> dict[str, str]:
    """What the model card says was measured."""
    promise, measured = found.promises[0], found.measured
    return {
        "bits per byte of the full model": f"{measured.bits_per_byte_full:.4f}",
        "bits per byte": f"{measured.bits_per_byte:.4f} ({measured.relative_loss:+.2%})",
        "promised to be added": f"{promise.low:+.4f} to {promise.high:+.4f} at {LEVEL:.0%}, "
        + ("held" if promise.held else "broken"),
        "KL divergence to the full model": f"{measured.kl:.3g} nats per token",
        "tokens whose likeliest successor changed": f"{measured.flipped:.2%}",
        "held-out tokens": f"{measured.tokens:,}",
        "bytes of the weights": f"{found.bytes:,} of {found.bytes_full:,}",
    }


def _bits(config: CompressConfig) -> int:
    return {"int8": 8, "int4": 4}.get(config.method, config.bits)


def _apply(decoder: Decoder, texts: Texts, config: CompressConfig, *, sequential: bool) -> _Work:
    if not config.packs:
        score: Score = "wanda" if config.method == "wanda" else "magnitude"
        values = prune_decoder(decoder, score, config.sparsity, config.pattern, texts.calibration)
        return _Work({}, values)
    plan = plan_bits(decoder, _bits(config), config.group)
    if config.method == "gptq":
        packed = gptq_decoder(decoder, plan, texts.calibration, sequential=sequential)
    else:
        packed = quantize_decoder(decoder, plan)
    return _Work(packed, {name: each.unpack() for name, each in packed.items()})


def _foretell(decoder: Decoder, texts: Texts, config: CompressConfig) -> Sensitivity:
    """Each part alone, its inputs those of the full model."""
    values = _apply(decoder, texts, config, sequential=False).values
    return foretell(decoder, values, texts.probe, len(texts.held_out.ids_BT))


@torch.no_grad()
def _with(decoder: Decoder, values: Mapping[str, Tensor]) -> Decoder:
    changed = copy.deepcopy(decoder)
    own = dict(changed.named_parameters())
    for name, value in values.items():
        own[name].copy_(value)
    return changed


def _promise(
    ledger: Ledger,
    config: CompressConfig,
    sensitivity: Sensitivity,
    sizes: tuple[int, int],
    speeds: list[float],
) -> dict[str, str]:
    """Write what is promised; what → the promise's id.

    Args:
        sizes: Bytes of the stored tensors, and of the file's header at most.
        speeds: Tokens per second of bursts of the full model.
    """
    size, header = sizes
    basis = f"sensitivity of {len(sensitivity.parts)} parts to {config.method}"
    # Weights are float32 again once they are loaded, so that the speed is the full model's; a
    # single burst may still fall outside the range of a few.
    typical, spread = statistics.median(speeds), max(speeds) - min(speeds)
    return {
        "added": ledger.promise(
            "bits_per_byte_added", "bits per byte", sensitivity.added, sensitivity.low,
            sensitivity.high, LEVEL, basis,
        ),
        "bytes": ledger.promise(
            "weights_bytes", "bytes", size, size, size + header, LEVEL,
            "the shapes of the stored tensors; at the upper end the file's header",
        ),
        "speed": ledger.promise(
            "tokens_per_second", "tokens/s", typical, max(0.0, typical - spread),
            typical + spread, LEVEL, f"{BURSTS} bursts of the full model and their range",
        ),
    }  # fmt: skip
