"""`isoflop compress`, in Python: promise, compress, measure, and a model directory with all three.

Not for the methods themselves (`quantize.py`, `gptq.py`, `prune.py`), nor for any that trains.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from isoflop.compression.average import averaged
from isoflop.compression.gptq import gptq_decoder
from isoflop.compression.measure import generation_speeds, measure
from isoflop.compression.prune import prune_decoder
from isoflop.compression.quantize import plan_bits, quantize_decoder, stored_bytes
from isoflop.compression.recipe import CompressConfig, Score
from isoflop.compression.result import BURSTS, RESULT, Compressed, facts, promise, said, settle
from isoflop.compression.sensitivity import Sensitivity, foretell
from isoflop.compression.student_run import compress_by_training
from isoflop.compression.texts import Texts, open_texts
from isoflop.core.artifact import build_directory, write_atomic, write_json, write_manifest
from isoflop.core.console import SILENT, Progress
from isoflop.core.hardware import machine
from isoflop.core.ledger import LEDGER, Ledger
from isoflop.core.recipe import to_dict
from isoflop.data.tokenizer import load as load_tokenizer
from isoflop.loading import load
from isoflop.models.card import CARD, model_card
from isoflop.models.convert import write_variant
from isoflop.models.decoder import Decoder
from isoflop.models.packed_weights import Packed
from isoflop.models.stored_weights import WEIGHTS


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
    settled after; `result.json` holds all figures. A method that trains makes a run's directory,
    with the model in `model/`, and goes on where an earlier call stopped.

    Args:
        data: Shards of the model's tokenizer, or a text file.

    Raises:
        ArtifactError: The model or the shards cannot be read, or `out` holds something else.
        DataError: There is too little text.
        RecipeError: The shape asked for cannot be.
        RunError: Training diverged, or was interrupted.
    """
    decoder = load(model).decoder
    tokenizer = load_tokenizer(model)
    texts = open_texts(data, tokenizer, decoder.config.max_seq_len, config.tokens)
    if config.trains:
        return compress_by_training(model, data, decoder, texts, out, config, progress)
    with build_directory(out) as aside:
        ledger = Ledger(aside / LEDGER)
        progress.note("foretelling from each part alone")
        sensitivity = _foretell(decoder, texts, config)
        speeds = generation_speeds(decoder, texts.held_out, BURSTS)
        full_size = sum(4 * p.numel() for p in decoder.parameters())
        size = full_size
        if config.packs:
            size = stored_bytes(decoder, plan_bits(decoder, _bits(config), config.group))
        basis = f"sensitivity of {len(sensitivity.parts)} parts to {config.method}"
        # Weights are float32 again once they are loaded: the speed is the full model's.
        n_parameters = len(list(decoder.parameters()))
        ids = promise(ledger, sensitivity, basis, size, n_parameters, speeds)
        progress.note(f"promised: {said(sensitivity)}; compressing")
        done = _apply(decoder, texts, config, sequential=True)
        small = _with(decoder, done.values)
        measured = measure(decoder, small, texts.held_out)
        speed = statistics.median(generation_speeds(small, texts.held_out, BURSTS))
        written = write_variant(small, model, aside, out, done.packed)
        file_size = (aside / WEIGHTS).stat().st_size
        outcomes = {"added": measured.added, "bytes": file_size, "speed": speed}
        result = Compressed(
            path=out,
            measured=measured,
            foretold=sensitivity,
            promises=settle(ledger, ids, outcomes),
            bytes_full=full_size,
            bytes=file_size,
            tokens_per_second_full=statistics.median(speeds),
            tokens_per_second=speed,
        )
        inputs = (model, data, *config.others)
        title = f"{model.resolve().name}, {config.method}"
        write_atomic(aside / CARD, model_card(title, decoder.config, inputs, facts(result)))
        write_json(aside / RESULT, {"config": to_dict(config), **result.document()})
        write_manifest(aside, kind="model", config=written, machine=machine(), inputs=inputs)
    return result


def _bits(config: CompressConfig) -> int:
    return {"int8": 8, "int4": 4}.get(config.method, config.bits)


def _apply(decoder: Decoder, texts: Texts, config: CompressConfig, *, sequential: bool) -> _Work:
    if config.method == "average":
        return _Work({}, averaged(decoder, config.others))
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
