"""`isoflop demo`: parses, calls `demo.demo`, prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.cli.arguments import Arguments, OutPath, parse_arguments
from isoflop.core.console import make_progress, print_result


@dataclass(frozen=True, kw_only=True)
class DemoArguments(Arguments):
    """The whole flow on this machine: a ladder of small models foretells the loss of a bigger
    one, which is then trained and compared; taught to answer, rewarded, judged, compressed and
    served. The same command continues an interrupted demo.

    Exits with 1 if the promise was missed."""

    out: OutPath = Path("demo")
    """The directory to write."""
    minutes: float = 20.0
    """Wall-clock minutes it may take here; up to 10, the demo is its pre-training alone."""
    seed: int = 0
    """Of initial weights and data order."""


def run(args: list[str]) -> int:
    """Run `isoflop demo`."""
    arguments = parse_arguments(DemoArguments, args, "demo")
    from isoflop.demo import demo

    result = demo(arguments.out, arguments.minutes, arguments.seed, make_progress(arguments.json))
    summary, promise = result.summary, result.summary["promise"]
    verdict = "held" if summary["held"] else "MISSED"
    lines = [
        f"promised {promise['value']:.4f} nats per token, {promise['low']:.4f} to "
        f"{promise['high']:.4f} at {promise['level']:.0%}; the run came to "
        f"{summary['outcome']:.4f}: {verdict}, {summary['error_percent']:+.2f} % off",
        *_story(summary),
        f"{summary['seconds'] / 60:.1f} minutes, {summary['promised_seconds'] / 60:.1f} promised",
        f"report: {result.report}",
        f"model:  isoflop chat {result.chat_model}",
    ]
    print_result(dict(summary), "\n".join(lines), arguments.json)
    return 0 if summary["held"] else 1


def _story(summary: Mapping[str, Any]) -> Iterator[str]:
    """What came after pre-training, a line a stage, and what was said to the served model."""
    if "chat" not in summary:
        return
    taught, practised = summary["chat"]["sft"], summary["chat"]["grpo"]
    lost = 100 * (taught["bits_per_byte"] / taught["bits_per_byte_before"] - 1)
    yield (
        f"taught: {taught['exact_match']:.0%} of held-out questions right; text it knew: "
        f"{lost:+.1f} % bits per byte"
    )
    before, after = practised["exact_match_start"], practised["exact_match"]
    told = "" if after > before else ", no gain"
    yield f"practised for a reward: word problems right {before:.1%} to {after:.1%}{told}"
    yield "emergence: " + "; ".join(f"{k}: {v}" for k, v in summary["emergence"].items())
    small = summary["int8"]
    added = 100 * (small["bits_per_byte"] / small["bits_per_byte_full"] - 1)
    yield f"int8: {small['bytes'] / small['bytes_full']:.0%} of the bytes, {added:+.2f} % loss"
    yield "served:"
    for each in summary["served"]:
        called = "".join(f"[{name} {said}] " for name, said in each["calls"])
        refused = f"({each['status']}) " if each["status"] != 200 else ""
        yield f"  {each['question']}\n    {refused}{called}{each['answer']}"
