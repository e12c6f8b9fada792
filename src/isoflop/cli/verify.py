"""`isoflop verify`: parses, calls `alignment.verify.verify`, prints; exits with 1 if one fails."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from isoflop.cli.arguments import Arguments, parse_arguments
from isoflop.core.console import make_progress, print_result


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(Arguments):
    """Prove on this machine that SFT, reward models, DPO, PPO and GRPO train right."""

    seed: int = 0
    """Fixes the small worlds and the draws."""


def run(args: list[str]) -> int:
    """Run `isoflop verify`."""
    arguments = parse_arguments(VerifyArguments, args, "verify")
    from isoflop.alignment.verify import verify

    verdict = verify(arguments.seed, make_progress(arguments.json))
    width = max(len(check.oracle) for check in verdict.checks)
    lines = [
        f"{'ok  ' if check.passed else 'FAIL'}  {check.oracle:<{width}}  {check.measured} "
        f"({check.expected})"
        for check in verdict.checks
    ]
    failed = sum(not check.passed for check in verdict.checks)
    lines.append(
        f"{len(verdict.checks) - failed} of {len(verdict.checks)} oracles hold, "
        f"{verdict.cpu_seconds:.0f} CPU-seconds"
    )
    print_result({"passed": verdict.passed, **asdict(verdict)}, "\n".join(lines), arguments.json)
    return 0 if verdict.passed else 1
