"""Maximal-update parametrisation over width and depth, by factors on learning rates alone.

With it the best learning rate of a narrow, shallow model is that of a wide, deep one (Yang & Hu
2021; over depth Dey et al. 2025, "CompleteP", α = 1). The usual form multiplies activations inside
the model: logits by base_width / width, each block's output by base_depth / depth. An Adam step
does not feel the size of a gradient, so a multiplier c on a weight's effect equals c on its initial
value and c on its learning rate. All multipliers therefore live in initial values and learning
rates, and a trained model is what every other tool reads, without any constant of ours.

Not for choosing the base rate (a sweep does) nor for schedules over time (`schedules.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Role = Literal["embedding", "vector", "final norm", "residual output", "matrix"]
_FINAL_NORMS = ("norm.weight", "ln_f.weight", "norm.bias", "ln_f.bias")
_RESIDUAL_OUTPUTS = ("o_proj.weight", "down_proj.weight", "experts.down_proj")


def roles(model: nn.Module) -> dict[str, Role]:
    """What each parameter does, by name.

    embedding: rows looked up by token or position, and the output layer, tied or not; vector:
    gains and biases of the blocks; final norm: that before the output layer; residual output: a
    matrix that writes into the residual stream; matrix: every other one.
    """
    found: dict[str, Role] = {}
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in model.named_parameters():
        if id(parameter) in tables or name.endswith("lm_head.weight"):
            found[name] = "embedding"
        elif name in _FINAL_NORMS:
            found[name] = "final norm"
        elif parameter.ndim < 2:
            found[name] = "vector"
        elif name.endswith(_RESIDUAL_OUTPUTS):
            found[name] = "residual output"
        else:
            found[name] = "matrix"
    return found


@dataclass(frozen=True)
class Scaling:
    """How much larger a model is than the one whose learning rate was tuned."""

    width: float = 1.0
    """d_model / base_width."""
    depth: float = 1.0
    """n_layers / base_depth."""

    @classmethod
    def of(
        cls, d_model: int, n_layers: int, base_width: int | None, base_depth: int | None
    ) -> Scaling:
        """The scaling of a model; 1 in the directions whose base is not given."""
        return cls(d_model / (base_width or d_model), n_layers / (base_depth or n_layers))

    def learning_rate(self, role: Role, orthogonal: bool = False) -> float:
        """The factor on the learning rate of a parameter.

        A matrix's update by Adam adds up over its inputs: 1 / width. An orthogonalised one of
        equal root mean square (Muon) grows in norm with the root of the width alone: 1 / √width.
        The final norm carries the output's multiplier 1 / width, a residual output the block's
        1 / depth.
        """
        if role == "final norm":
            return 1 / self.width
        if role in ("embedding", "vector"):
            return 1.0
        factor = 1 / (math.sqrt(self.width) if orthogonal else self.width)
        return factor / self.depth if role == "residual output" else factor

    def weight_decay(self, role: Role, orthogonal: bool = False) -> float:
        """The factor on the weight decay: what is taken off a weight per step, learning rate times
        decay, is the same at every size."""
        return 1 / self.learning_rate(role, orthogonal)

    @property
    def output(self) -> float:
        """The multiplier of the logits, held by the initial gain of the final norm."""
        return 1 / self.width


def scale_output(model: nn.Module, scaling: Scaling) -> None:
    """Give the freshly initialised final norm the multiplier of the logits, in place."""
    for name, parameter in model.named_parameters():
        if name in _FINAL_NORMS:
            with torch.no_grad():
                parameter.mul_(scaling.output)
