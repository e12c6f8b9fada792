"""`config.json` of a model as transformers reads it, and which of its classes a shape is.

Not for reading one (`hugging_face_read.py`), the tensors (`hugging_face_tensors.py`) or files
(`convert.py`). No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoflop.core.recipe import to_dict
from isoflop.models.config import (
    AnyConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ExpertsConfig,
    RopeScaling,
)

OWN = "IsoflopDecoder"
"""The architecture of decoders that transformers has no class for."""

_ROTARY = {
    "Qwen3ForCausalLM": "qwen3", "Qwen3MoeForCausalLM": "qwen3_moe",
    "LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2",
    "MistralForCausalLM": "mistral", "MixtralForCausalLM": "mixtral",
}  # fmt: skip
MODEL_TYPES = _ROTARY | {
    "GPT2LMHeadModel": "gpt2", "OpenAIGPTLMHeadModel": "openai-gpt",
    "BertForPreTraining": "bert", "BertForMaskedLM": "bert",
    "T5ForConditionalGeneration": "t5", OWN: "isoflop",
}  # fmt: skip
WINDOWED = ("MistralForCausalLM", "MixtralForCausalLM")
"""Architectures whose window needs no switch to turn it on."""

# --- which class a shape is ----------------------------------------------------------------


def architecture_of(config: AnyConfig) -> str:
    """The class of transformers that computes a model of this shape, or `OWN`."""
    if isinstance(config, EncoderConfig):
        return "BertForPreTraining" if config.pair_head else "BertForMaskedLM"
    if isinstance(config, EncoderDecoderConfig):
        return "T5ForConditionalGeneration"
    gpt = {"norm": "layer", "positions": "learned", "activation": "gelu", "bias": True}
    rotary = {"norm": "rms", "positions": "rotary", "activation": "swiglu", "bias": False}
    experts = config.experts
    if _has(config, gpt, qk_norm=False, window=None, experts=None) and _one_width(config):
        four = config.d_ff == 4 * config.d_model and config.tie_embeddings
        if not config.post_norm:
            return "GPT2LMHeadModel"
        return "OpenAIGPTLMHeadModel" if four else OWN
    if not _has(config, rotary, post_norm=False):
        return OWN
    if experts is not None:
        plain = not experts.n_shared and not config.qkv_bias
        if plain and config.qk_norm:
            return "Qwen3MoeForCausalLM"
        mixtral = plain and experts.normalise and experts.d_expert == config.d_ff
        return "MixtralForCausalLM" if mixtral else OWN
    if config.qk_norm:
        return OWN if config.qkv_bias else "Qwen3ForCausalLM"
    if config.qkv_bias:
        return "Qwen2ForCausalLM"
    return "LlamaForCausalLM" if config.window is None else "MistralForCausalLM"


def _has(config: DecoderConfig, form: Mapping[str, object], **more: object) -> bool:
    return all(getattr(config, key) == value for key, value in {**form, **more}.items())


def _one_width(config: DecoderConfig) -> bool:
    heads = config.n_heads * config.head_dim
    return heads == config.d_model and config.n_kv_heads == config.n_heads


# --- writing -------------------------------------------------------------------------------


def hugging_face_config(
    config: AnyConfig,
    dtype: str = "float32",
    special_ids: Mapping[str, Any] | None = None,
    *,
    own_form: bool = False,
) -> dict[str, Any]:
    """`config.json` of a model.

    The rotary base and the dtype stand twice: transformers 5 reads `rope_parameters` and
    `dtype`, earlier versions and most other tools `rope_theta` and `torch_dtype`.

    Args:
        dtype: Of the weights, as torch names it.
        special_ids: `bos_token_id`, `eos_token_id`, `pad_token_id` and their like.
        own_form: As a decoder that Isoflop alone opens, whatever its shape.
    """
    architecture = OWN if own_form else architecture_of(config)
    if isinstance(config, EncoderConfig):
        own = _write_bert(config)
    elif isinstance(config, EncoderDecoderConfig):
        own = _write_t5(config)
    elif architecture == OWN:
        own = to_dict(config)
    elif architecture in _ROTARY:
        own = _write_rotary(config, architecture)
    else:
        own = _write_gpt(config)
    return {
        "architectures": [architecture],
        "model_type": MODEL_TYPES[architecture],
        **own,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": dtype,
        "dtype": dtype,
        **(special_ids or {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}),
    }


def _write_rotary(config: DecoderConfig, architecture: str) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        rope |= _write_scaling(config.rope_scaling)
    written: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope,
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "sliding_window": config.window,
    }
    if config.rope_scaling is not None:
        written["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}
    if architecture not in WINDOWED and architecture != "LlamaForCausalLM":
        written["use_sliding_window"] = config.window is not None
        written["max_window_layers"] = config.n_layers if config.window is None else 0
    if architecture == "LlamaForCausalLM":
        written |= {"mlp_bias": False}
        del written["sliding_window"]
    if config.experts is not None:
        written |= _write_experts(config.experts, architecture)
    return written


def _write_scaling(scaling: RopeScaling) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_seq_len,
    }


def _write_experts(experts: ExpertsConfig, architecture: str) -> dict[str, Any]:
    written: dict[str, Any] = {
        "num_experts_per_tok": experts.top_k,
        "router_aux_loss_coef": experts.balance_coefficient,
        "output_router_logits": False,
    }
    if architecture == "MixtralForCausalLM":
        return {**written, "num_local_experts": experts.n_experts, "router_jitter_noise": 0.0}
    return {
        **written,
        "num_experts": experts.n_experts,
        "moe_intermediate_size": experts.d_expert,
        "norm_topk_prob": experts.normalise,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }


def _write_gpt(config: DecoderConfig) -> dict[str, Any]:
    written: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_positions": config.max_seq_len,
        "n_ctx": config.max_seq_len,
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "tie_word_embeddings": config.tie_embeddings,
    }
    if config.post_norm:
        return {**written, "afn": "gelu"}
    return {**written, "n_inner": config.d_ff, "activation_function": "gelu_new"}


def _write_bert(config: EncoderConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "intermediate_size": config.d_ff,
        "hidden_act": "gelu",
        "max_position_embeddings": config.max_seq_len,
        "type_vocab_size": config.n_types,
        "layer_norm_eps": config.norm_eps,
        "position_embedding_type": "absolute",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "tie_word_embeddings": True,
    }


def _write_t5(config: EncoderDecoderConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "d_kv": config.head_dim,
        "d_ff": config.d_ff,
        "num_layers": config.n_layers,
        "num_decoder_layers": config.n_decoder_layers,
        "num_heads": config.n_heads,
        "relative_attention_num_buckets": config.n_buckets,
        "relative_attention_max_distance": config.max_distance,
        "feed_forward_proj": "relu" if config.activation == "relu" else "gated-gelu",
        "layer_norm_epsilon": config.norm_eps,
        "n_positions": config.max_seq_len,
        "dropout_rate": 0.0,
        "is_encoder_decoder": True,
        "tie_word_embeddings": config.tie_embeddings,
    }
