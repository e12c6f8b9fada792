"""Proves on this machine that SFT, reward, DPO, PPO and GRPO train right: `isoflop verify`.

Each oracle has a closed form; what trains is the same tasks, samplers, losses and loop as in the
commands. Not for the worlds (`verify_worlds.py`) nor the single checks (`verify_*.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from isoflop.alignment.verify_policy import Check, gae_check, policy_checks, sampler_checks
from isoflop.alignment.verify_preference import dpo_checks, reward_checks, sft_check
from isoflop.core.console import SILENT, Progress


@dataclass(frozen=True)
class Verdict:
    """What the oracles said."""

    checks: tuple[Check, ...]
    seed: int
    cpu_seconds: float

    @property
    def passed(self) -> bool:
        """Whether all did."""
        return all(check.passed for check in self.checks)


def verify(seed: int = 0, progress: Progress = SILENT) -> Verdict:
    """Run every oracle, on one thread.

    Args:
        seed: Fixes worlds and draws.
    """
    began, threads = time.process_time(), torch.get_num_threads()
    torch.set_num_threads(1)  # products this small are slower on several
    parts: tuple[Callable[[int], Iterator[Check]], ...] = (
        _quick, sampler_checks, dpo_checks, reward_checks, policy_checks,
    )  # fmt: skip
    checks: list[Check] = []
    progress.start("verify", 20, "oracles")
    try:
        for part in parts:
            for check in part(seed):
                checks.append(check)
                progress.advance(len(checks), check.oracle)
    finally:
        torch.set_num_threads(threads)
    progress.finish()
    return Verdict(tuple(checks), seed, time.process_time() - began)


def _quick(seed: int) -> Iterator[Check]:
    yield gae_check(seed)
    yield sft_check(seed)
