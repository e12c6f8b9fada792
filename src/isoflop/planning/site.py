"""Where a planned run takes place, and the model, batch and layout that suit a size there.

Not for what the budget is (`planner`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from isoflop.core.errors import RecipeError
from isoflop.core.hardware import calibrate, memory_bytes
from isoflop.models.config import DecoderConfig
from isoflop.planning.candidates import Choice, rank_layouts, this_machine_choice
from isoflop.planning.forecast import LossLaw
from isoflop.planning.gpus import GIB, Gpu, get_gpu, this_machine
from isoflop.planning.layout import layouts
from isoflop.planning.rates import Rates, batch_sequences, rates
from isoflop.planning.shape import choose_shape, counted
from isoflop.planning.timing import sustained_share

DEFAULT_GPU = "h100-80gb"
START_SECONDS, LOCAL_START_SECONDS = 120.0, 5.0
MOST_BATCH_DOUBLINGS = 4
FEWEST_STEPS = 50
"""Fewer steps than these are nothing but warm-up."""


@dataclass(frozen=True)
class Site:
    """Devices of one kind."""

    gpu: Gpu
    devices: int

    @property
    def local(self) -> bool:
        """Whether this is the machine that plans."""
        return self.gpu.name == "this-machine"

    @property
    def start_seconds(self) -> float:
        """Until the first step: imports, the process group, compilation."""
        return LOCAL_START_SECONDS if self.local else START_SECONDS

    @property
    def name(self) -> str:
        """`8 × h100-80gb`."""
        return f"{self.devices} × {self.gpu.name}"


@dataclass(frozen=True)
class Wishes:
    """What the user fixed of the run; None leaves it to the plan."""

    seq_len: int | None = None
    vocab_size: int | None = None
    batch_tokens: int | None = None
    hyperparameters: Path | None = None


@dataclass(frozen=True)
class Design:
    """A model on a site, ready to be timed."""

    config: DecoderConfig
    site: Site
    seq_len: int
    law_params: int
    """Parameters as the law counts them."""
    rates: Rates
    sequences: int
    """Of a step."""
    choice: Choice

    @property
    def batch_tokens(self) -> int:
        """Tokens of a step over all devices."""
        return self.sequences * self.seq_len

    def seconds(self, tokens: float) -> float:
        """Wall-clock seconds of a run of that many tokens, start and restarts included."""
        share = sustained_share(self.site.devices, self.site.gpu)
        return self.site.start_seconds + tokens / self.choice.best.tokens_per_second / share

    def tokens_in(self, seconds: float) -> int:
        """Tokens that fit, in whole steps."""
        share = sustained_share(self.site.devices, self.site.gpu)
        tokens = (seconds - self.site.start_seconds) * share * self.choice.best.tokens_per_second
        return int(tokens // self.batch_tokens) * self.batch_tokens


def local_site() -> Site:
    """This machine, by its (cached) calibration."""
    return Site(this_machine(calibrate(), memory_bytes() or 4 * GIB), 1)


def remote_site(gpu: str | None, devices: int) -> Site:
    """Named GPUs.

    Raises:
        RecipeError: The GPU is unknown, or their number not positive.
    """
    if devices < 1:
        raise RecipeError(f"gpus = {devices} must be at least 1", where="gpus")
    return Site(get_gpu(gpu or DEFAULT_GPU), devices)


def default_seq_len(site: Site, params: float) -> int:
    """Tokens of a sequence: 256 on a CPU, 2,048 on GPUs, 4,096 from 7 billion parameters on."""
    if site.local:
        return 256
    return 4096 if params >= 7e9 else 2048


def design(site: Site, law: LossLaw, params: float, tokens: float, wishes: Wishes) -> Design:
    """Shape, learning rate, batch and layout of a run of about `params` on `tokens`.

    Args:
        params: As the law counts them.

    Raises:
        RecipeError: No shape is that small, or no layout fits the memory.
    """
    seq_len = wishes.seq_len or default_seq_len(site, params)
    config = choose_shape(params, seq_len, count=law.count, vocab_size=wishes.vocab_size)
    wanted = rates(counted(config, "without_embeddings"), tokens, wishes.hyperparameters)
    if wishes.batch_tokens is not None:
        sequences = max(1, wishes.batch_tokens // seq_len)
    else:
        sequences = batch_sequences(wanted.batch_tokens, seq_len, site.devices)
    if site.local:
        choice = this_machine_choice(config, site.gpu, seq_len, sequences)
    else:
        sequences = _divisible(config, site, sequences, fixed=wishes.batch_tokens is not None)
        choice = rank_layouts(config, site.gpu, site.devices, seq_len, sequences)
    return Design(config, site, seq_len, counted(config, law.count), wanted, sequences, choice)


def _divisible(config: DecoderConfig, site: Site, sequences: int, *, fixed: bool) -> int:
    """The batch, doubled until some layout divides it over the devices."""
    tried = sequences
    for _ in range(1 if fixed else MOST_BATCH_DOUBLINGS + 1):
        if next(layouts(config, site.devices, site.gpu.per_node, tried), None) is not None:
            return tried
        tried *= 2
    raise RecipeError(
        f"a batch of {sequences:,} sequences cannot be divided over {site.name}",
        where="layout",
        fix="Take fewer devices, a power of two of them, or a larger --batch-tokens",
    )


def enough_steps(tokens: float, batch_tokens: int) -> None:
    """Refuse a run of less than `FEWEST_STEPS` steps.

    Raises:
        RecipeError: It is too short.
    """
    steps = tokens / batch_tokens
    if steps < FEWEST_STEPS:
        raise RecipeError(
            f"the budget is too small: {tokens:.3g} tokens are {steps:.0f} steps of "
            f"{batch_tokens:,} tokens, and a run of less than {FEWEST_STEPS} is all warm-up",
            where="budget",
            fix=f"About {FEWEST_STEPS / max(steps, 1e-3):.2g} times as much would do, or a "
            "smaller --batch-tokens on fewer devices",
        )
