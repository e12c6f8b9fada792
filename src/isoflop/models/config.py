"""The shape of a decoder, checked; no torch here, so that plans and laws can count without it.

Not for the modules (`decoder.py`) nor for recipes, which leave parts of the shape out.
"""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.core.errors import RecipeError

FEWEST_FUSED = 8
"""Shortest window for the fast CPU forms: shorter ones are generation's, a token at a time."""
LONGEST_FUSED = 512
"""Longest window whose attention a CPU computes block by block and keeps (`fused.py`)."""
BLOCK_QUERIES = 64
"""Queries of one such block: keys after the last of them are skipped, not masked."""


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder.

    Raises:
        RecipeError: A size is below 1, or sizes do not fit each other; all problems at once.
    """

    vocab_size: int
    d_model: int
    """Width of the residual stream."""
    n_layers: int
    n_heads: int
    """Query heads."""
    n_kv_heads: int
    """Key–value heads; a divisor of `n_heads`."""
    head_dim: int
    d_ff: int
    """Inner width of the feed-forward part."""
    max_seq_len: int = 256
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    norm_eps: float = 1e-6
    """Added to the mean square in every norm."""
    tie_embeddings: bool = True
    """Use the embedding matrix as output layer."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} = {value} must be at least 1"
            for name, value in vars(self).items()
            if name not in ("rope_theta", "norm_eps", "tie_embeddings") and value < 1
        ]
        problems += [
            f"{name} = {getattr(self, name)} must be positive"
            for name in ("rope_theta", "norm_eps")
            if not getattr(self, name) > 0
        ]
        if self.n_kv_heads > 0 and self.n_heads % self.n_kv_heads:
            problems.append(
                f"n_heads = {self.n_heads} is not a multiple of n_kv_heads = {self.n_kv_heads}"
            )
        if self.head_dim % 2:
            problems.append(f"head_dim = {self.head_dim} must be even for rotary positions")
        if problems:
            raise RecipeError("; ".join(problems), where="model")
