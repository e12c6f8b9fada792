"""How a decoder's layers are run: what they compute again, by which kernels, compiled or not.

Neither changes what is computed. Not for devices and number formats (`precision.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import torch

from isoflop.core.artifact import read_json, write_json
from isoflop.core.errors import IsoflopError
from isoflop.core.hardware import cache_path, machine
from isoflop.models.config import Recompute
from isoflop.models.decoder import Block, Decoder
from isoflop.models.memory import memory_bytes
from isoflop.models.native import calls as native
from isoflop.models.recompute import plan_recompute
from isoflop.training.precision import Precision
from isoflop.training.recipe import TrainConfig

WORTHWHILE = 1.05
"""Compiled passes must be this much faster than plain ones to be used under `auto`."""
REPEATS = 5


def arrange(
    model: Decoder, train: TrainConfig, precision: Precision, once: Callable[[], None]
) -> Mapping[str, Any]:
    """Set the model up as the recipe says, and return what is to be known of it.

    Args:
        once: A forward and backward pass as they will be.
    """
    plan = layers_recomputed(model, train)
    for block, what in zip(model.layers, plan, strict=True):
        if isinstance(block, Block):
            block.recompute = what
    facts: dict[str, Any] = {}
    if any(what != "none" for what in plan):
        facts["recomputed"] = {what: plan.count(what) for what in sorted(set(plan))}
    if train.compile:
        facts["compiled"], facts["compiled_why"] = _compile(model, train, precision, once)
    return facts


def choose_kernels(train: TrainConfig, precision: Precision) -> Mapping[str, Any]:
    """Take the native library from now on, or plain torch, and return what is to be known of it."""
    if precision.device.type != "cpu":
        return {}
    found = native.use(train.native_kernels)
    if found.functions is not None:
        return {"native_kernels": True}
    return {"native_kernels": False, "native_kernels_why": found.why}


def layers_recomputed(model: Decoder, train: TrainConfig) -> tuple[Recompute, ...]:
    """What each layer computes again."""

    def activations(first: int) -> int:
        layers = range(model.config.n_layers)
        plan: list[Recompute] = [("block" if layer < first else "none") for layer in layers]
        return memory_bytes(
            model.config,
            micro_batch_tokens=train.micro_batch_tokens,
            seq_len=train.seq_len,
            recompute=plan,
            native=native.in_use(),
        ).activations

    return tuple(
        plan_recompute(train.recompute, model.config.n_layers, train.activation_bytes, activations)
    )


def _compile(
    model: Decoder, train: TrainConfig, precision: Precision, once: Callable[[], None]
) -> tuple[bool, str]:
    """Whether the layers are compiled now, and why."""
    shape = {
        "model": asdict(model.config),
        "micro_batch_tokens": train.micro_batch_tokens,
        "seq_len": train.seq_len,
        "recompute": train.recompute,
        "dtype": precision.dtype_name,
        "device": str(precision.device),
        "threads": torch.get_num_threads(),
        "machine": machine(),
    }
    path = cache_path(shape).with_name(cache_path(shape).name.replace("calibration", "compile"))
    if train.compile == "auto":
        with suppress(IsoflopError, KeyError, TypeError):
            known = read_json(path)
            if not known["faster"]:
                return False, f"{known['why']} (measured before)"
    plain = _seconds(once, precision) if train.compile == "auto" else 0.0
    try:
        model.compiled = tuple(torch.compile(block) for block in model.layers)
        once()
    # What dynamo, inductor and a missing C++ compiler raise are all of these.
    except (RuntimeError, OSError, ImportError) as error:
        model.compiled = ()
        model.zero_grad()
        return False, f"could not be compiled: {str(error).strip().splitlines()[0]}"
    if train.compile != "auto":
        return True, "asked for"
    ratio = plain / _seconds(once, precision)
    faster = ratio >= WORTHWHILE
    why = f"compiled passes run at {ratio:.2f} times the speed (the line is {WORTHWHILE})"
    if not faster:
        model.compiled = ()
    with suppress(OSError):
        write_json(path, {"faster": faster, "why": why})
    return faster, why


def _seconds(once: Callable[[], None], precision: Precision) -> float:
    """The fastest of some passes."""
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        once()
        if precision.device.type == "cuda":
            torch.cuda.synchronize(precision.device)
        found.append(time.perf_counter() - began)
    return min(found)
