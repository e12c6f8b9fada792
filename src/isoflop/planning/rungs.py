"""The ladder to run before a large run for which there is no law yet, and what it costs.

Not for running it (`ladder`), nor for ladders of minutes on this machine (`budget`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from isoflop.core.errors import RecipeError
from isoflop.planning.forecast import FLOPS_PER_PARAMETER_TOKEN, LossLaw
from isoflop.planning.rates import DECAY_SHARE
from isoflop.planning.shape import choose_shape, counted

SIZES, STEP = 4, 3.0
"""Sizes, and the ratio of compute between neighbours."""
HORIZONS = (0.5, 1.0, 2.0)
"""Tokens of a size's runs, over those that its own compute asks for."""
REACH = 50.0
"""The target costs this many times the longest run of the largest size."""


@dataclass(frozen=True)
class Rung:
    """One size: a trunk at a constant rate, cooled down at each horizon."""

    params: int
    d_model: int
    n_layers: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class FirstLadder:
    """Four sizes at three horizons, after which a law of one's own foretells the target."""

    rungs: tuple[Rung, ...]
    runs: int
    flops: float
    share: float
    """Its FLOPs over the target's; they come on top."""

    def to_dict(self) -> dict[str, Any]:
        """The ladder document of a plan."""
        return asdict(self)


def first_ladder(law: LossLaw, flops: float, seq_len: int, vocab_size: int) -> FirstLadder | None:
    """Sizes and horizons around the law's optimum, far below a target of `flops`.

    None where the smallest would hold no decoder.
    """
    largest = flops / REACH / max(HORIZONS)
    rungs: list[Rung] = []
    total = 0.0
    for i in reversed(range(SIZES)):
        params, _ = law.optimal(largest / STEP**i)
        try:
            config = choose_shape(params, seq_len, count=law.count, vocab_size=vocab_size)
        except RecipeError:
            return None
        actual = counted(config, law.count)
        middle = largest / STEP**i / (FLOPS_PER_PARAMETER_TOKEN * actual)
        tokens = tuple(round(middle * share) for share in HORIZONS)
        # The longest run is the trunk; the others leave it for their decay alone.
        trained = tokens[-1] + DECAY_SHARE * sum(tokens[:-1])
        total += FLOPS_PER_PARAMETER_TOKEN * actual * trained
        rungs.append(Rung(actual, config.d_model, config.n_layers, tokens))
    return FirstLadder(tuple(rungs), SIZES * len(HORIZONS), total, total / flops)
