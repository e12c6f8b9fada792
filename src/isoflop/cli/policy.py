"""What `isoflop grpo` and `isoflop ppo` print; not a command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def policy_lines(result: Mapping[str, Any]) -> str:
    """The result for people.

    Args:
        result: The fields of `alignment.policy_run.PolicyResult`.
    """
    lines = [
        f"{result['run']}: {result['answers']:,} answers to {result['prompts']:,} prompts in "
        f"{result['rounds']:,} rounds, {result['seconds']:.0f} s"
    ]
    if result["exact_match"] is not None:
        lines.append(
            f"held-out prompts answered right: {result['exact_match_start']:.1%} before, "
            f"{result['exact_match']:.1%} after"
        )
    if result["reward"] is not None:
        lines.append(f"held-out reward: {result['reward_start']:.4f} → {result['reward']:.4f}")
    if result["kl"] is not None:
        lines.append(f"divergence from the reference: {result['kl']:.3f} nats per answer")
    if result["bits_per_byte_before"] is not None:
        lines.append(
            f"text it knew: {result['bits_per_byte_before']:.4f} bits per byte before, "
            f"{result['bits_per_byte']:.4f} after"
        )
    if result["reward_hacked"]:
        lines.append("REWARD HACKED: it earns more while fewer of its answers are right")
    lines.append(f"model: {result['run']}/model")
    return "\n".join(lines)
