"""The `[model]` table of a recipe: an architecture or a published model, and what differs from it.

Not for the shapes themselves (`config.py`) nor the published ones (`presets.py`). No torch here.
The attribute docstrings are the command line's help.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from isoflop.core.errors import RecipeError
from isoflop.models.config import (
    DECODER_FORMS,
    GATED,
    Activation,
    AnyConfig,
    Architecture,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ExpertsConfig,
    Norm,
    Positions,
)
from isoflop.models.presets import preset

WIDTH, LAYERS, HEAD_DIM = 128, 4, 32
EXPERTS, EXPERTS_PER_TOKEN = 8, 2

_SIZES = ("d_model", "n_layers", "head_dim", "n_heads", "d_ff")
_EXPERTS = (
    "n_experts", "experts_per_token", "d_expert", "n_shared_experts", "balance_loss", "z_loss",
)  # fmt: skip
_ENCODER_DECODER = (*_SIZES, "n_decoder_layers", "activation", "tie_embeddings")


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the model; what is left out follows from the preset, or from `d_model`."""

    architecture: Architecture | None = None
    """The form of the model; qwen3 when neither this nor a preset is given."""
    preset: str | None = None
    """A published model (`isoflop models` lists them); other keys change parts of it. Its
    vocabulary and context are those of the shards and of train.seq_len."""
    d_model: int | None = None
    """Width of the residual stream; a multiple of 32. 128 without a preset."""
    n_layers: int | None = None
    """Number of blocks, in an encoder–decoder of its encoder. 4 without a preset."""
    n_decoder_layers: int | None = None
    """Blocks of an encoder–decoder's decoder; as many as n_layers when not given."""
    head_dim: int | None = None
    """Width of one attention head. 32 without a preset."""
    n_heads: int | None = None
    """Query heads; d_model / head_dim when not given."""
    n_kv_heads: int | None = None
    """Key–value heads; as many as query heads when not given."""
    d_ff: int | None = None
    """Feed-forward width; 4 d_model, or 8/3 d_model with a gate, rounded up to a multiple of 32
    when not given."""
    rope_theta: float | None = None
    """Base of the rotary frequencies; 10000 without a preset."""
    tie_embeddings: bool | None = None
    """Use the embedding matrix as output layer; yes without a preset."""
    norm: Norm | None = None
    """RMSNorm or LayerNorm; the architecture's when not given."""
    positions: Positions | None = None
    """How tokens know their order; the architecture's when not given."""
    activation: Activation | None = None
    """Inside of the feed-forward part; the architecture's when not given."""
    post_norm: bool | None = None
    """Normalise after each residual sum and not at the end, as the first Transformer did; the
    architecture's when not given."""
    window: int | None = None
    """A token sees itself and window - 1 tokens before it; all of them when not given."""
    n_experts: int | None = None
    """Experts of every layer, for a mixture of experts; 8 with qwen3-moe when not given."""
    experts_per_token: int | None = None
    """Experts that each token goes to; 2 when not given."""
    d_expert: int | None = None
    """Width of one expert; such that a token's experts together are as wide as d_ff when not
    given."""
    n_shared_experts: int | None = None
    """Experts that every token goes to besides; none when not given."""
    balance_loss: float | None = None
    """Weight of the loss that keeps experts evenly used; 0.001 when not given."""
    z_loss: float | None = None
    """Weight of the loss that keeps router logits small; 0.001 when not given."""

    @property
    def resolved_architecture(self) -> Architecture:
        """The architecture, the preset's where there is one."""
        if self.preset is not None:
            return preset(self.preset).architecture
        return self.architecture or "qwen3"

    def config(self, vocab_size: int, max_seq_len: int) -> AnyConfig:
        """The full shape, with what was left out filled in.

        Raises:
            RecipeError: The parts do not fit each other.
        """
        sizes: dict[str, Any] = {"vocab_size": vocab_size, "max_seq_len": max_seq_len}
        sizes |= self._sizes()
        architecture = self.resolved_architecture
        if self.preset is not None:
            return replace(preset(self.preset).config, **sizes)
        if architecture == "bert":
            return EncoderConfig(**sizes)
        if architecture == "t5":
            return EncoderDecoderConfig(**sizes)
        return DecoderConfig(**{**DECODER_FORMS[architecture], **sizes})

    def decoder_config(self, vocab_size: int, max_seq_len: int) -> DecoderConfig:
        """The full shape of a decoder.

        Raises:
            RecipeError: The parts do not fit each other, or make no decoder.
        """
        config = self.config(vocab_size, max_seq_len)
        if not isinstance(config, DecoderConfig):
            raise RecipeError(
                f"model.architecture = {self.resolved_architecture} is no decoder", where="model"
            )
        return config

    def problems(self) -> list[str]:
        """What of the table cannot be, each by the names of its keys."""
        try:
            architecture = self.resolved_architecture
        except RecipeError as error:
            return [f"model.preset: {error.what}" + (f" ({error.fix})" if error.fix else "")]
        found = [*self._impossible(), *self._unfit(architecture)]
        if not found:
            try:  # what only shows in the whole shape
                self.config(vocab_size=1, max_seq_len=1)
            except RecipeError as error:
                found.append(f"model: {error.what}")
        return found

    def _impossible(self) -> Iterator[str]:
        for name in (*_SIZES, "n_decoder_layers", "n_kv_heads", "window", *_EXPERTS[:3]):
            value = getattr(self, name)
            if name != "d_model" and value is not None and value < 1:
                yield f"model.{name} = {value} must be at least 1"
        if self.d_model is not None and (self.d_model < 1 or self.d_model % 32):
            yield f"model.d_model = {self.d_model} is not a multiple of 32"
        elif self.preset is None:
            width, head_dim = self.d_model or WIDTH, self.head_dim or HEAD_DIM
            if self.n_heads is None and head_dim > 0 and width % head_dim:
                yield (
                    f"model.d_model = {width} is not a multiple of model.head_dim = {head_dim}; "
                    "give model.n_heads"
                )

    def _unfit(self, architecture: Architecture) -> Iterator[str]:
        """Keys that say nothing of this architecture."""
        if self.preset is not None and self.architecture not in (None, architecture):
            yield f"model.architecture = {self.architecture}, but {self.preset} is {architecture}"
        own: dict[str, tuple[str, ...]] = {"bert": _SIZES, "t5": _ENCODER_DECODER}
        allowed = own.get(architecture) or self._decoder_keys(architecture)
        for field in fields(self):
            name = field.name
            if getattr(self, name) is None or name in ("architecture", "preset", *allowed):
                continue
            yield f"model.{name} is not a part of {self.preset or architecture}"

    def _decoder_keys(self, architecture: Architecture) -> tuple[str, ...]:
        unfit = ["n_decoder_layers"]
        if not self._has_experts(architecture):
            unfit += _EXPERTS
        form = DECODER_FORMS[architecture].get("positions", "rotary")
        if (self.positions or form) != "rotary":
            unfit += ["rope_theta"]
        return tuple(field.name for field in fields(self) if field.name not in unfit)

    def _has_experts(self, architecture: Architecture) -> bool:
        if self.preset is not None:
            base = preset(self.preset).config
            if isinstance(base, DecoderConfig) and base.experts is not None:
                return True
        return architecture == "qwen3-moe" or self.n_experts is not None

    def _sizes(self) -> dict[str, Any]:
        """What differs from the preset, or from the architecture's defaults."""
        architecture = self.resolved_architecture
        base = None if self.preset is None else preset(self.preset).config
        width = self.d_model or (WIDTH if base is None else base.d_model)
        head_dim = self.head_dim or (HEAD_DIM if base is None else base.head_dim)
        sizes: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "rope_theta",
                "tie_embeddings",
                "norm",
                "positions",
                "activation",
                "post_norm",
                "window",
            )
            if getattr(self, name) is not None
        }
        layers = self.n_layers or (LAYERS if base is None else base.n_layers)
        sizes |= {"d_model": width, "n_layers": layers}
        same_width = base is not None and width == base.d_model and self.head_dim is None
        n_heads = base.n_heads if base is not None and same_width else width // head_dim
        sizes["n_heads"] = self.n_heads or n_heads
        sizes["d_ff"] = self.d_ff or self._inner_width(width, base)
        if architecture != "bert":
            sizes["head_dim"] = head_dim
        if architecture == "t5":
            sizes["n_decoder_layers"] = self.n_decoder_layers or layers
        if architecture in DECODER_FORMS:
            keys = base.n_kv_heads if isinstance(base, DecoderConfig) else sizes["n_heads"]
            sizes["n_kv_heads"] = self.n_kv_heads or math.gcd(keys, sizes["n_heads"])
            if self._has_experts(architecture):
                sizes["experts"] = self._experts(base, sizes["d_ff"], width)
                if architecture == "llama":  # Mixtral's one width is that of its experts
                    sizes["d_ff"] = sizes["experts"].d_expert
        return sizes

    def _inner_width(self, width: int, base: AnyConfig | None) -> int:
        if base is not None:
            scaled = base.d_ff * width / base.d_model
            return base.d_ff if width == base.d_model else math.ceil(scaled / 32) * 32
        form = DECODER_FORMS.get(self.resolved_architecture, {"activation": "gelu"})
        activation = self.activation or form.get("activation", "swiglu")
        if activation in GATED:
            return math.ceil(8 * width / 3 / 32) * 32
        return 4 * width

    def _experts(self, base: AnyConfig | None, d_ff: int, width: int) -> ExpertsConfig:
        found = base.experts if isinstance(base, DecoderConfig) else None
        top_k = self.experts_per_token or (found.top_k if found else EXPERTS_PER_TOKEN)
        d_expert = math.ceil(d_ff / top_k / 32) * 32
        if found is not None and base is not None:
            d_expert = math.ceil(found.d_expert * width / base.d_model)
        experts = found or ExpertsConfig(EXPERTS, top_k, d_expert)
        return replace(
            experts,
            n_experts=self.n_experts or experts.n_experts,
            top_k=top_k,
            d_expert=self.d_expert or d_expert,
            n_shared=_or(self.n_shared_experts, experts.n_shared),
            balance_coefficient=_or(self.balance_loss, experts.balance_coefficient),
            z_coefficient=_or(self.z_loss, experts.z_coefficient),
        )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
