"""The shape that a `config.json` of transformers describes; what ours leaves out of an architecture
is refused by name.

Not for writing one (`hugging_face_config.py`) nor for the tensors (`convert.py`). No torch here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from isoflop.core.errors import ArtifactError, RecipeError
from isoflop.core.recipe import from_dict
from isoflop.models.config import (
    AnyConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ExpertsConfig,
    RopeScaling,
)
from isoflop.models.hugging_face_config import MODEL_TYPES, OWN, WINDOWED

LARGEST_CONTEXT = 1 << 24
"""Positions; a config that says more is damaged, and its table of angles would fill the memory."""

T = TypeVar("T", int, float)


def model_config(raw: object, where: str) -> AnyConfig:
    """The shape that a `config.json` describes.

    Raises:
        ArtifactError: It is an unknown architecture, uses a part of one that ours leaves out, or
            lacks a key.
    """
    if not isinstance(raw, dict):
        raise ArtifactError("not a JSON object", where=where)
    found = raw.get("architectures")
    name = found[0] if isinstance(found, list) and len(found) == 1 else None
    if name not in MODEL_TYPES:
        known = ", ".join(MODEL_TYPES)
        raise ArtifactError(f"the architecture is {found}; known are {known}", where=where)
    reader = _Config(raw, where, name)
    reader.refuse_unless(quantization_config=(None,))
    try:
        if name == OWN:
            reader.positions("max_seq_len")
            keys = {field.name for field in dataclasses.fields(DecoderConfig)}
            return from_dict(DecoderConfig, {k: v for k, v in raw.items() if k in keys}, where)
        readers: Mapping[str, Callable[[_Config], AnyConfig]] = {
            "gpt2": _read_gpt,
            "openai-gpt": _read_gpt,
            "bert": _read_bert,
            "t5": _read_t5,
        }
        return readers.get(MODEL_TYPES[name], _read_rotary)(reader)
    except RecipeError as error:
        raise ArtifactError(error.what, where=where) from None


@dataclasses.dataclass(frozen=True)
class _Config:
    """The keys of a `config.json`, checked as they are taken."""

    raw: Mapping[str, Any]
    where: str
    architecture: str

    def whole(self, key: str, default: int | None = None) -> int:
        return self._number(self.raw, key, int, default)

    def real(self, key: str, default: float | None = None) -> float:
        return self._number(self.raw, key, float, default)

    def _number(
        self, raw: Mapping[str, Any], key: str, kind: type[T], default: T | None = None
    ) -> T:
        value = raw.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
            said = f"{key} is {value!r}, not a number" if key in raw else f"there is no {key}"
            raise ArtifactError(said, where=self.where)
        return kind(value)

    def positions(self, key: str, default: int | None = None) -> int:
        found = self.whole(key, default)
        if found > LARGEST_CONTEXT:
            raise ArtifactError(f"{key} is {found}, more than {LARGEST_CONTEXT}", where=self.where)
        return found

    def refuse_unless(self, **known: tuple[object, ...]) -> None:
        """Refuse values of keys that ask for a form ours does not have; absent keys are fine."""
        names = [k for k, values in known.items() if k in self.raw and self.raw[k] not in values]
        if names:
            raise ArtifactError(
                f"a form of {self.architecture} that is not known here: {', '.join(names)}",
                where=self.where,
            )

    def rope(self) -> tuple[float, RopeScaling | None]:
        raw = self.raw.get("rope_parameters") or self.raw.get("rope_scaling") or {}
        if not isinstance(raw, dict):
            raise ArtifactError("rope_parameters is not a JSON object", where=self.where)
        base = raw if "rope_theta" in raw else self.raw
        theta = self._number(base, "rope_theta", float, 10_000.0)
        kind = raw.get("rope_type", raw.get("type", "default"))
        if kind == "default":
            return theta, None
        if kind != "llama3":
            raise ArtifactError(
                f"a form of {self.architecture} that is not known here: rope_type {kind}",
                where=self.where,
            )
        scaling = RopeScaling(
            factor=self._number(raw, "factor", float),
            low_freq_factor=self._number(raw, "low_freq_factor", float),
            high_freq_factor=self._number(raw, "high_freq_factor", float),
            original_max_seq_len=self._number(raw, "original_max_position_embeddings", int),
        )
        return theta, scaling

    def window(self, n_layers: int) -> int | None:
        if self.architecture == "LlamaForCausalLM" or self.raw.get("sliding_window") is None:
            return None
        if self.architecture not in WINDOWED:
            full_below = self.whole("max_window_layers", n_layers)
            if self.raw.get("use_sliding_window") is not True or full_below >= n_layers:
                return None
            if full_below > 0:
                raise ArtifactError(
                    "a window in some of the layers is not known here", where=self.where
                )
        return self.whole("sliding_window")


def _read_rotary(c: _Config) -> DecoderConfig:
    qwen2, name = c.architecture == "Qwen2ForCausalLM", c.architecture
    c.refuse_unless(
        hidden_act=("silu",), attention_bias=(None, False), mlp_bias=(None, False),
        decoder_sparse_step=(1,), mlp_only_layers=(None, []), partial_rotary_factor=(None, 1.0),
    )  # fmt: skip
    theta, scaling = c.rope()
    n_layers, n_heads = c.whole("num_hidden_layers"), c.whole("num_attention_heads")
    experts: ExpertsConfig | None = None
    if name in ("Qwen3MoeForCausalLM", "MixtralForCausalLM"):
        mixtral = name == "MixtralForCausalLM"
        n_experts = "num_experts" if "num_experts" in c.raw else "num_local_experts"
        experts = ExpertsConfig(
            n_experts=c.whole(n_experts),
            top_k=c.whole("num_experts_per_tok"),
            d_expert=c.whole("intermediate_size" if mixtral else "moe_intermediate_size"),
            normalise=mixtral or c.raw.get("norm_topk_prob") is True,
            balance_coefficient=c.real("router_aux_loss_coef", 1e-3),
        )
    return DecoderConfig(
        vocab_size=c.whole("vocab_size"),
        d_model=c.whole("hidden_size"),
        n_layers=n_layers,
        n_heads=n_heads,
        n_kv_heads=c.whole("num_key_value_heads", n_heads),
        head_dim=c.whole("head_dim", c.whole("hidden_size") // max(1, n_heads)),
        d_ff=c.whole("intermediate_size"),
        max_seq_len=c.positions("max_position_embeddings"),
        rope_theta=theta,
        norm_eps=c.real("rms_norm_eps"),
        tie_embeddings=c.raw.get("tie_word_embeddings", False) is True,
        qk_norm=name.startswith("Qwen3"),
        qkv_bias=qwen2,
        window=c.window(n_layers),
        rope_scaling=scaling,
        experts=experts,
    )


def _read_gpt(c: _Config) -> DecoderConfig:
    c.refuse_unless(
        activation_function=("gelu_new", "gelu_pytorch_tanh"), afn=("gelu",),
        scale_attn_weights=(True,), scale_attn_by_inverse_layer_idx=(False,),
        add_cross_attention=(False,),
    )  # fmt: skip
    width, n_heads = c.whole("n_embd"), c.whole("n_head")
    if n_heads < 1 or width % n_heads:
        said = f"n_embd = {width} is not a multiple of n_head = {n_heads}"
        raise ArtifactError(said, where=c.where)
    return DecoderConfig(
        vocab_size=c.whole("vocab_size"),
        d_model=width,
        n_layers=c.whole("n_layer"),
        n_heads=n_heads,
        n_kv_heads=n_heads,
        head_dim=width // n_heads,
        d_ff=c.whole("n_inner", 4 * width),
        max_seq_len=c.positions("n_positions"),
        norm_eps=c.real("layer_norm_epsilon", 1e-5),
        tie_embeddings=c.raw.get("tie_word_embeddings", True) is True,
        norm="layer",
        positions="learned",
        activation="gelu",
        qk_norm=False,
        bias=True,
        post_norm=c.architecture == "OpenAIGPTLMHeadModel",
    )


def _read_bert(c: _Config) -> EncoderConfig:
    c.refuse_unless(
        hidden_act=("gelu",), position_embedding_type=("absolute",), is_decoder=(False,),
        tie_word_embeddings=(True,),
    )  # fmt: skip
    return EncoderConfig(
        vocab_size=c.whole("vocab_size"),
        d_model=c.whole("hidden_size"),
        n_layers=c.whole("num_hidden_layers"),
        n_heads=c.whole("num_attention_heads"),
        d_ff=c.whole("intermediate_size"),
        max_seq_len=c.positions("max_position_embeddings"),
        n_types=c.whole("type_vocab_size"),
        pair_head=c.architecture == "BertForPreTraining",
        norm_eps=c.real("layer_norm_eps", 1e-12),
    )


def _read_t5(c: _Config) -> EncoderDecoderConfig:
    c.refuse_unless(feed_forward_proj=("relu", "gated-gelu"))
    gated = c.raw.get("feed_forward_proj") == "gated-gelu"
    return EncoderDecoderConfig(
        vocab_size=c.whole("vocab_size"),
        d_model=c.whole("d_model"),
        n_layers=c.whole("num_layers"),
        n_decoder_layers=c.whole("num_decoder_layers", c.whole("num_layers")),
        n_heads=c.whole("num_heads"),
        head_dim=c.whole("d_kv"),
        d_ff=c.whole("d_ff"),
        max_seq_len=c.positions("n_positions", 512),
        activation="geglu" if gated else "relu",
        tie_embeddings=c.raw.get("tie_word_embeddings", True) is True,
        n_buckets=c.whole("relative_attention_num_buckets"),
        max_distance=c.whole("relative_attention_max_distance", 128),
        norm_eps=c.real("layer_norm_epsilon", 1e-6),
    )
