"""A decoder as one GGUF file, the form that llama.cpp opens: weights, shape and tokenizer.

Not for directories of transformers (`models/convert.py`). Names of keys and tensors are those of
llama.cpp, by way of the `gguf` package; what llama.cpp cannot compute is refused by name.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from isoflop.core.artifact import fsync_directory, read_json
from isoflop.core.errors import ArtifactError, IsoflopError
from isoflop.data.tokenizer_file import QWEN2_PATTERN
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import TOKENIZER_CONFIG, load_decoder
from isoflop.models.decoder import Decoder
from isoflop.models.hugging_face_config import architecture_of
from isoflop.models.stored_weights import CONFIG

Type: TypeAlias = Literal["f32", "f16", "q8_0", "q4_0"]
"""How matrices are stored; Q8_0 and Q4_0 have a scale for every 32 weights of a row."""
ARCHITECTURES = {
    "Qwen3ForCausalLM": "qwen3", "Qwen3MoeForCausalLM": "qwen3moe", "Qwen2ForCausalLM": "qwen2",
    "LlamaForCausalLM": "llama", "GPT2LMHeadModel": "gpt2",
}  # fmt: skip
_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
_GPT2_SPLIT = {"type": "ByteLevel", "use_regex": True}
_BLOCK = 32
"""Weights that share a scale; rows of another width are stored as F16."""


@dataclass(frozen=True)
class GgufSummary:
    """What was written."""

    architecture: str
    """llama.cpp's name."""
    tensors: int
    bytes: int


def export_gguf(source: Path, out: Path, type: Type = "f16") -> GgufSummary:
    """Write a model directory as a GGUF file, whole or not at all.

    Args:
        type: How matrices are stored. Norms, biases, routers and positions are F32 always; with
            `q4_0` the embedding and the output layer are Q8_0.

    Raises:
        IsoflopError: The `gguf` package is missing.
        ArtifactError: The model cannot be read, has no tokenizer, or is of a form or has a
            tokenizer that llama.cpp does not know.
    """
    gguf = _package()
    decoder = load_decoder(source)
    architecture = _architecture(decoder.config, source)
    vocabulary = read_vocabulary(source, decoder.config.vocab_size)
    if out.is_dir():
        raise ArtifactError("this is a directory, not a file", where=str(out), fix="Name a file")
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        writer = gguf.GGUFWriter(aside, architecture)
        _add_shape(writer, decoder.config, source.resolve().name)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[type]])
        _add_vocabulary(writer, vocabulary)
        count = 0
        for name, array in tensors(decoder):
            kind = gguf.GGMLQuantizationType[stored_type(name, array, type).upper()]
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
            count += 1
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, out)
    finally:
        aside.unlink(missing_ok=True)
    fsync_directory(out.parent)
    return GgufSummary(architecture, count, out.stat().st_size)


def stored_type(name: str, array: npt.NDArray[np.float32], type: Type) -> str:
    """How a tensor is stored in a file of that type."""
    small = array.ndim == 1 or name.startswith("position_embd") or "ffn_gate_inp" in name
    if small or type == "f32":
        return "f32"
    if type == "f16" or array.shape[-1] % _BLOCK:
        return "f16"
    outer = name in ("token_embd.weight", "output.weight")
    return "q8_0" if type == "q4_0" and outer else type


def _package() -> Any:
    try:
        return importlib.import_module("gguf")
    except ModuleNotFoundError:
        raise IsoflopError(
            "the package `gguf` is not installed", fix="Run `pip install 'isoflop[gguf]'`"
        ) from None


def _architecture(config: DecoderConfig, source: Path) -> str:
    name = architecture_of(config)
    experts = config.experts
    problems = [
        (name not in ARCHITECTURES, f"its form ({name})"),
        (config.window is not None, "a window of attention"),
        (config.rope_scaling is not None, "stretched rotary frequencies"),
        (experts is not None and not experts.normalise, "shares of experts that do not sum to 1"),
    ]
    found = [what for wrong, what in problems if wrong]
    if found:
        raise ArtifactError(
            f"GGUF export does not know {', '.join(found)}",
            where=str(source),
            fix="It knows Qwen3, Qwen3-MoE, Qwen2, Llama and GPT-2; try `--to hf`",
        )
    return ARCHITECTURES[name]


def _add_shape(writer: Any, config: DecoderConfig, name: str) -> None:
    writer.add_name(name)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    writer.add_vocab_size(config.vocab_size)
    if config.norm == "layer":
        writer.add_layer_norm_eps(config.norm_eps)
        return
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    if config.experts is not None:
        writer.add_expert_count(config.experts.n_experts)
        writer.add_expert_used_count(config.experts.top_k)
        writer.add_expert_feed_forward_length(config.experts.d_expert)


# --- tensors -------------------------------------------------------------------------------


_PARTS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
}  # fmt: skip
_EXPERTS = {f"mlp.experts.{part}_proj": f"ffn_{part}_exps" for part in ("gate", "up", "down")}
_OUTER = {
    "embed_tokens": "token_embd", "embed_positions": "position_embd", "norm": "output_norm",
    "lm_head": "output",
}  # fmt: skip


def tensors(decoder: Decoder) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """llama.cpp's name and values of every tensor; a tied output layer is left to the embedding.

    GPT-2's queries, keys and values are one tensor there, and Llama's queries and keys have the
    two halves of each head interleaved: its rotation turns neighbours, not halves.
    """
    config = decoder.config
    own = {name: parameter.detach() for name, parameter in decoder.named_parameters()}
    fused, llama = config.norm == "layer", architecture_of(config) == "LlamaForCausalLM"
    for name, tensor in own.items():
        path, kind = name.rsplit(".", 1)
        if not name.startswith("layers."):
            yield f"{_OUTER[path]}.{kind}", _numpy(tensor)
            continue
        _, layer, inner = name.split(".", 2)
        place, inner = f"blk.{layer}.", inner.removesuffix(f".{kind}")
        if f"{inner}.{kind}" in _EXPERTS:
            yield f"{place}{_EXPERTS[f'{inner}.{kind}']}.weight", _numpy(tensor)
        elif fused and inner == "self_attn.q_proj":
            three = [own[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            yield f"{place}attn_qkv.{kind}", np.concatenate([_numpy(each) for each in three])
        elif fused and inner in ("self_attn.k_proj", "self_attn.v_proj"):
            continue
        elif llama and inner in ("self_attn.q_proj", "self_attn.k_proj"):
            yield f"{place}{_PARTS[inner]}.{kind}", interleaved(_numpy(tensor), config.head_dim)
        else:
            yield f"{place}{_PARTS[inner]}.{kind}", _numpy(tensor)


def interleaved(rows: npt.NDArray[np.float32], head_dim: int) -> npt.NDArray[np.float32]:
    """Rows of each head reordered from halves (0 … K/2−1, K/2 … K−1) to pairs (0, K/2, 1, …)."""
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def _numpy(tensor: Tensor) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = tensor.float().contiguous().numpy()
    return found


# --- tokenizer -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """A byte-level BPE as llama.cpp wants it."""

    split: str
    """llama.cpp's name of the pattern that cuts text into words."""
    tokens: tuple[str, ...]
    """Spelled, one printable character a byte, one for each row of the embedding."""
    special: frozenset[int]
    unused: frozenset[int]
    """Rows that no token has."""
    merges: tuple[str, ...]
    ids: Mapping[str, int]
    """`bos`, `eos` and `pad`, those there are."""
    chat_template: str | None


def read_vocabulary(source: Path, vocab_size: int) -> Vocabulary:
    """The tokenizer of a model directory.

    Raises:
        ArtifactError: There is none, or it is not a byte-level BPE that llama.cpp splits alike.
    """
    path = source / "tokenizer.json"
    raw, config = read_json(path), read_json(source / CONFIG)
    try:
        model, added = raw["model"], {t["content"]: int(t["id"]) for t in raw["added_tokens"]}
        split = _split_name(raw["pre_tokenizer"])
        if model["type"] != "BPE" or raw["normalizer"] is not None or split is None:
            raise ArtifactError(
                "llama.cpp would cut text differently from this tokenizer",
                where=str(path),
                fix="A byte-level BPE with the pattern of Qwen2 or GPT-2 can be exported",
            )
        merges = tuple(m if isinstance(m, str) else " ".join(m) for m in model["merges"])
        spelled = {index: token for token, index in {**model["vocab"], **added}.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ArtifactError(f"not a tokenizer ({error!r})", where=str(path)) from None
    template = source / "chat_template.jinja"
    said = read_json(source / TOKENIZER_CONFIG).get("chat_template")
    return Vocabulary(
        split=split,
        tokens=tuple(spelled.get(index, f"[PAD{index}]") for index in range(vocab_size)),
        special=frozenset(added.values()),
        unused=frozenset(range(vocab_size)) - spelled.keys(),
        merges=merges,
        ids={
            name: config[f"{name}_token_id"]
            for name in ("bos", "eos", "pad")
            if isinstance(config.get(f"{name}_token_id"), int)
        },
        chat_template=template.read_text("utf-8") if template.exists() else said,
    )


def _split_name(raw: Mapping[str, Any]) -> str | None:
    """llama.cpp's name of a pre-tokenizer, or None."""
    steps = raw.get("pretokenizers", [raw])
    if len(steps) == 1 and _GPT2_SPLIT.items() <= steps[0].items():
        return None if steps[0].get("add_prefix_space") else "gpt-2"
    first, last = steps[0], steps[-1]
    plain = last.get("type") == "ByteLevel" and last.get("use_regex") is False
    if len(steps) != 2 or not plain or last.get("add_prefix_space"):
        return None
    split = {"type": "Split", "pattern": {"Regex": QWEN2_PATTERN}, "behavior": "Isolated"}
    return "qwen2" if split.items() <= first.items() else None


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    types = importlib.import_module("gguf").TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types(
        [
            types.CONTROL if i in vocabulary.special
            else types.UNUSED if i in vocabulary.unused
            else types.NORMAL
            for i in range(len(vocabulary.tokens))
        ]
    )  # fmt: skip
    writer.add_token_merges(list(vocabulary.merges))
    for name, index in vocabulary.ids.items():
        getattr(writer, f"add_{name}_token_id")(index)
    writer.add_add_bos_token(False)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
