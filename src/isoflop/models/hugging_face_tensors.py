"""Under which names, and in which form, transformers stores each tensor of a model; both ways.

Not for `config.json` (`hugging_face_config.py`) nor for files (`convert.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isoflop.models.config import (
    GATED,
    AnyConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
)

IGNORED = (
    r".*\.attn\.(masked_)?bias",
    r".*rotary_emb\.inv_freq",
    r".*embeddings\.position_ids",
    r"position_ids",
)
"""Constants that old versions of transformers stored with the weights, as patterns."""


@dataclass(frozen=True)
class Link:
    """Tensors of ours and the tensors of theirs that hold the same numbers.

    One to one; or several of ours one below the other in one of theirs (queries, keys and values
    of GPT-2); or one of ours stacked from several of theirs (experts).
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    transposed: bool = False
    """Theirs is stored with inputs as rows (GPT-2's `Conv1D`)."""

    def store(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Ours in their form."""
        if len(self.theirs) > 1:
            return list(tensors[0].unbind(0))
        whole = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
        return [whole.t() if self.transposed else whole]

    def load(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Theirs in our form; several of ours are of equal size."""
        if len(self.theirs) > 1:
            return [torch.stack(list(tensors))]
        whole = tensors[0].t() if self.transposed else tensors[0]
        return list(whole.chunk(len(self.ours)))


def links(config: AnyConfig, architecture: str) -> list[Link]:
    """All links of a model of that shape, stored as that class of transformers.

    Args:
        architecture: As in `config.json`; `hugging_face_config.architecture_of` gives it.
    """
    if isinstance(config, EncoderConfig):
        return list(_bert(config))
    if isinstance(config, EncoderDecoderConfig):
        return list(_t5(config))
    if architecture == "GPT2LMHeadModel":
        return list(_gpt2(config))
    if architecture == "OpenAIGPTLMHeadModel":
        return list(_openai_gpt(config))
    if architecture == "IsoflopDecoder":
        return list(_own(config))
    return list(_llama(config, architecture))


def aliases(config: AnyConfig, architecture: str) -> Mapping[str, str]:
    """Names under which some tools store a tied matrix again → the name that counts."""
    if isinstance(config, EncoderConfig):
        return {
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        }
    if isinstance(config, EncoderDecoderConfig):
        tied = {"lm_head.weight": "shared.weight"} if config.tie_embeddings else {}
        sides = ("encoder", "decoder")
        return {f"{side}.embed_tokens.weight": "shared.weight" for side in sides} | tied
    if not config.tie_embeddings:
        return {}
    embedding = {
        "GPT2LMHeadModel": "transformer.wte.weight",
        "OpenAIGPTLMHeadModel": "transformer.tokens_embed.weight",
    }.get(architecture, "model.embed_tokens.weight")
    return {"lm_head.weight": embedding}


def canonical_name(name: str, architecture: str) -> str:
    """A stored name as current versions of transformers write it."""
    if architecture in ("GPT2LMHeadModel", "OpenAIGPTLMHeadModel"):
        bare = ("h.", "wte.", "wpe.", "ln_f.", "tokens_embed.", "positions_embed.")
        return f"transformer.{name}" if name.startswith(bare) else name
    if architecture.startswith("Bert"):
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name
    return name


# --- decoders ------------------------------------------------------------------------------


def _same(names: Mapping[str, str], *, ours: str = "", theirs: str = "") -> Iterator[Link]:
    for own, their in names.items():
        yield Link((ours + own,), (theirs + their,))


def _with_bias(names: Mapping[str, str], bias: bool) -> dict[str, str]:
    """Modules → tensors: the weight, and the bias where there is one."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return {f"{own}.{kind}": f"{their}.{kind}" for own, their in names.items() for kind in kinds}


def _llama(config: DecoderConfig, architecture: str) -> Iterator[Link]:
    mixtral = architecture == "MixtralForCausalLM"
    own = {"embed_tokens.weight": "embed_tokens.weight", "norm.weight": "norm.weight"}
    yield from _same(own, theirs="model.")
    for layer in range(config.n_layers):
        ours, theirs = f"layers.{layer}.", f"model.layers.{layer}."
        norms = ["input_layernorm", "post_attention_layernorm"]
        norms += ["self_attn.q_norm", "self_attn.k_norm"] if config.qk_norm else []
        names = [f"{norm}.weight" for norm in norms]
        for part in ("q_proj", "k_proj", "v_proj"):
            names += [f"self_attn.{part}.weight"]
            names += [f"self_attn.{part}.bias"] if config.qkv_bias else []
        names += ["self_attn.o_proj.weight"]
        if config.experts is None:
            names += [f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")]
        yield from _same({name: name for name in names}, ours=ours, theirs=theirs)
        if config.experts is None:
            continue
        block = "block_sparse_moe" if mixtral else "mlp"
        yield Link((f"{ours}mlp.gate.weight",), (f"{theirs}{block}.gate.weight",))
        parts = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
        for part, letter in parts.items():
            their = letter if mixtral else part
            each = range(config.experts.n_experts)
            stored = tuple(f"{theirs}{block}.experts.{e}.{their}.weight" for e in each)
            yield Link((f"{ours}mlp.experts.{part}",), stored)
    if not config.tie_embeddings:
        yield Link(("lm_head.weight",), ("lm_head.weight",))


def _gpt2(config: DecoderConfig) -> Iterator[Link]:
    names = {"embed_tokens.weight": "wte.weight", "embed_positions.weight": "wpe.weight"}
    names |= _with_bias({"norm": "ln_f"}, True)
    yield from _same(names, theirs="transformer.")
    yield from _gpt_layers(config)
    if not config.tie_embeddings:
        yield Link(("lm_head.weight",), ("lm_head.weight",))


def _openai_gpt(config: DecoderConfig) -> Iterator[Link]:
    names = {
        "embed_tokens.weight": "tokens_embed.weight",
        "embed_positions.weight": "positions_embed.weight",
    }
    yield from _same(names, theirs="transformer.")
    yield from _gpt_layers(config)


def _gpt_layers(config: DecoderConfig) -> Iterator[Link]:
    for layer in range(config.n_layers):
        ours, theirs = f"layers.{layer}.", f"transformer.h.{layer}."
        norms = {"input_layernorm": "ln_1", "post_attention_layernorm": "ln_2"}
        yield from _same(_with_bias(norms, True), ours=ours, theirs=theirs)
        qkv = [f"{ours}self_attn.{part}_proj" for part in "qkv"]
        for kind in ("weight", "bias"):
            stored = (f"{theirs}attn.c_attn.{kind}",)
            yield Link(tuple(f"{p}.{kind}" for p in qkv), stored, transposed=kind == "weight")
        others = {
            "self_attn.o_proj": "attn.c_proj", "mlp.up_proj": "mlp.c_fc",
            "mlp.down_proj": "mlp.c_proj",
        }  # fmt: skip
        for own, their in others.items():
            yield Link((f"{ours}{own}.weight",), (f"{theirs}{their}.weight",), transposed=True)
            yield Link((f"{ours}{own}.bias",), (f"{theirs}{their}.bias",))


def _own(config: DecoderConfig) -> Iterator[Link]:
    """Forms that transformers has no class for: our names with the usual prefix."""
    from isoflop.models.decoder import Decoder

    with torch.device("meta"):
        names = [name for name, _ in Decoder(config).named_parameters()]
    for name in names:
        yield Link((name,), (name if name.startswith("lm_head.") else f"model.{name}",))


# --- encoders ------------------------------------------------------------------------------


def _bert(config: EncoderConfig) -> Iterator[Link]:
    names = {
        "embed_tokens.weight": "word_embeddings.weight",
        "embed_positions.weight": "position_embeddings.weight",
        "embed_types.weight": "token_type_embeddings.weight",
    } | _with_bias({"embed_norm": "LayerNorm"}, True)
    yield from _same(names, theirs="bert.embeddings.")
    parts = {
        "self_attn.q_proj": "attention.self.query", "self_attn.k_proj": "attention.self.key",
        "self_attn.v_proj": "attention.self.value", "self_attn.o_proj": "attention.output.dense",
        "self_attn_norm": "attention.output.LayerNorm", "mlp.up_proj": "intermediate.dense",
        "mlp.down_proj": "output.dense", "mlp_norm": "output.LayerNorm",
    }  # fmt: skip
    for layer in range(config.n_layers):
        ours, theirs = f"layers.{layer}.", f"bert.encoder.layer.{layer}."
        yield from _same(_with_bias(parts, True), ours=ours, theirs=theirs)
    heads = {
        "token_head.dense": "cls.predictions.transform.dense",
        "token_head.norm": "cls.predictions.transform.LayerNorm",
    }
    if config.pair_head:
        heads |= {"pooler": "bert.pooler.dense", "pair_head": "cls.seq_relationship"}
    yield from _same(_with_bias(heads, True))
    yield Link(("token_head.bias",), ("cls.predictions.bias",))


def _t5(config: EncoderDecoderConfig) -> Iterator[Link]:
    yield Link(("embed_tokens.weight",), ("shared.weight",))
    gated = config.activation in GATED
    inner = {"gate_proj": "wi_0", "up_proj": "wi_1"} if gated else {"up_proj": "wi"}
    attention = {f"{part}_proj.weight": f"{part}.weight" for part in "qkvo"}
    for side, depth in (("encoder", config.n_layers), ("decoder", config.n_decoder_layers)):
        stack = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield Link((f"{side}.distance_bias.weight",), (stack,))
        yield Link((f"{side}.norm.weight",), (f"{side}.final_layer_norm.weight",))
        for layer in range(depth):
            ours, theirs = f"{side}.layers.{layer}.", f"{side}.block.{layer}.layer."
            subs = [("self_attn", "SelfAttention")]
            subs += [("cross_attn", "EncDecAttention")] if side == "decoder" else []
            for place, (own, their) in enumerate(subs):
                yield from _same(
                    attention, ours=f"{ours}{own}.", theirs=f"{theirs}{place}.{their}."
                )
                norm = (f"{theirs}{place}.layer_norm.weight",)
                yield Link((f"{ours}{own}_norm.weight",), norm)
            last = f"{theirs}{len(subs)}."
            yield Link((f"{ours}mlp_norm.weight",), (f"{last}layer_norm.weight",))
            names = {f"{own}.weight": f"{their}.weight" for own, their in inner.items()}
            names["down_proj.weight"] = "wo.weight"
            yield from _same(names, ours=f"{ours}mlp.", theirs=f"{last}DenseReluDense.")
    if not config.tie_embeddings:
        yield Link(("lm_head.weight",), ("lm_head.weight",))
