"""Models as directories: what `transformers` loads as `Qwen3ForCausalLM`, and back.

Not for checkpoints of a run (`training/checkpoint.py`), which hold optimizer state too.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from isoflop.core.artifact import (
    MANIFEST,
    build_directory,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from isoflop.core.errors import ArtifactError, RecipeError
from isoflop.core.hardware import machine
from isoflop.models.config import DecoderConfig
from isoflop.models.decoder import Decoder

ARCHITECTURE = "Qwen3ForCausalLM"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
LARGEST_CONTEXT = 1 << 24
"""Positions; a config that says more is damaged, and its table of angles would fill the memory."""
_FLOATS = {"F64", "F32", "F16", "BF16"}

T = TypeVar("T", int, float)


def save_model(
    decoder: Decoder,
    directory: Path,
    tokenizer_dir: Path | None = None,
    *,
    inputs: Sequence[Path] = (),
    seed: int | None = None,
) -> None:
    """Write a model directory, whole or not at all, replacing an older one.

    Args:
        tokenizer_dir: Directory whose tokenizer is copied into the model's.
        inputs: What the model was made from, for its manifest, beside the tokenizer.
        seed: The seed of its initial weights, for its manifest.

    Raises:
        ArtifactError: `directory` holds something else, the tokenizer cannot be read, it has
            more ids than the model, or the weights cannot be written.
    """
    eos_id = None if tokenizer_dir is None else _eos_id(tokenizer_dir, decoder.config.vocab_size)
    config = hugging_face_config(decoder.config, decoder.embed_tokens.weight.dtype, eos_id)
    with build_directory(directory) as aside:
        write_json(aside / CONFIG, config)
        special = {"eos_token_id": eos_id, "pad_token_id": eos_id}
        write_json(aside / "generation_config.json", special)
        if tokenizer_dir is not None:
            for name in TOKENIZER_FILES:
                if (tokenizer_dir / name).exists():
                    shutil.copyfile(tokenizer_dir / name, aside / name)
            made = (tokenizer_dir / MANIFEST).exists()
            inputs = (*inputs, tokenizer_dir if made else tokenizer_dir / "tokenizer.json")
        _write_weights(decoder, aside / WEIGHTS, directory / WEIGHTS)
        write_manifest(
            aside, kind="model", config=config, machine=machine(), inputs=inputs, seed=seed
        )


def load_decoder(directory: Path) -> Decoder:
    """Open the weights of a model directory as float32, ready to be asked (`eval` mode).

    A directory that another tool wrote has no manifest and is read as it is; one of ours is
    verified against its hashes. Names and shapes are checked before memory is taken.

    Raises:
        ArtifactError: A file is missing or damaged, the architecture is another one, or a
            tensor is missing, too many, or of the wrong shape; it is named.
    """
    if not directory.is_dir():
        raise ArtifactError("no such model directory", where=str(directory))
    if (directory / MANIFEST).exists():
        read_manifest(directory, "model", verify=True)
    config = decoder_config(read_json(directory / CONFIG), str(directory / CONFIG))
    path = directory / WEIGHTS
    if not path.exists():
        raise ArtifactError(
            f"there is no {WEIGHTS}",
            where=str(directory),
            fix="Only safetensors in one file are read, never pickled weights",
        )
    try:
        with safe_open(path, framework="pt") as file:
            names = _stored_names(file, config, path)
            decoder = Decoder(config)
            with torch.no_grad():
                for name, parameter in decoder.named_parameters():
                    parameter.copy_(file.get_tensor(names[name]))
    except SafetensorError as error:
        raise ArtifactError(
            f"not a whole safetensors file ({error})",
            where=str(path),
            fix="Make the model again, or restore the file from a copy",
        ) from None
    return decoder.eval()


# --- config.json ---------------------------------------------------------------------------


def hugging_face_config(
    config: DecoderConfig, dtype: torch.dtype = torch.float32, eos_id: int | None = None
) -> dict[str, Any]:
    """`config.json` of a decoder.

    The rotary base and the dtype stand twice: transformers 5 reads `rope_parameters` and
    `dtype`, earlier versions and most other tools `rope_theta` and `torch_dtype`.
    """
    dtype_name = str(dtype).removeprefix("torch.")
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "qwen3",
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
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_embeddings,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": dtype_name,
        "dtype": dtype_name,
        "bos_token_id": None,
        "eos_token_id": eos_id,
        "pad_token_id": eos_id,
    }


def decoder_config(raw: object, where: str) -> DecoderConfig:
    """The shape that a `config.json` describes.

    Raises:
        ArtifactError: It is another architecture, uses a part of Qwen3 that ours leaves out, or
            lacks a key.
    """
    if not isinstance(raw, dict):
        raise ArtifactError("not a JSON object", where=where)
    found = raw.get("architectures")
    if found != [ARCHITECTURE]:
        raise ArtifactError(
            f"the architecture is {found}, and only {ARCHITECTURE} is known", where=where
        )
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise ArtifactError("rope_parameters is not a JSON object", where=where)
    kind = rope.get("rope_type", rope.get("type", "default"))
    unusual = {
        "attention_bias": raw.get("attention_bias") not in (None, False),
        "hidden_act": raw.get("hidden_act", "silu") != "silu",
        "use_sliding_window": raw.get("use_sliding_window") not in (None, False),
        "rope_type": kind != "default",
        "quantization_config": raw.get("quantization_config") is not None,
    }
    if any(unusual.values()):
        names = ", ".join(name for name, is_unusual in unusual.items() if is_unusual)
        raise ArtifactError(
            f"a form of {ARCHITECTURE} that is not known here: {names}", where=where
        )
    positions = _number(raw, "max_position_embeddings", int, where)
    if positions > LARGEST_CONTEXT:
        raise ArtifactError(
            f"max_position_embeddings is {positions}, more than {LARGEST_CONTEXT}", where=where
        )
    theta = rope if "rope_theta" in rope else raw
    try:
        return DecoderConfig(
            vocab_size=_number(raw, "vocab_size", int, where),
            d_model=_number(raw, "hidden_size", int, where),
            n_layers=_number(raw, "num_hidden_layers", int, where),
            n_heads=_number(raw, "num_attention_heads", int, where),
            n_kv_heads=_number(raw, "num_key_value_heads", int, where),
            head_dim=_number(raw, "head_dim", int, where),
            d_ff=_number(raw, "intermediate_size", int, where),
            max_seq_len=positions,
            rope_theta=_number(theta, "rope_theta", float, where),
            norm_eps=_number(raw, "rms_norm_eps", float, where),
            tie_embeddings=raw.get("tie_word_embeddings", False) is True,
        )
    except RecipeError as error:
        raise ArtifactError(error.what, where=where) from None


def _number(raw: Mapping[str, Any], key: str, kind: type[T], where: str) -> T:
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        said = f"{key} is {value!r}, not a number" if key in raw else f"there is no {key}"
        raise ArtifactError(said, where=where)
    return kind(value)


# --- weights -------------------------------------------------------------------------------


def _write_weights(decoder: Decoder, path: Path, shown: Path) -> None:
    # `named_parameters` names a tied matrix once, as the embedding: that is how it is stored.
    tensors: dict[str, Tensor] = {
        _hugging_face_name(name): parameter.detach().contiguous()
        for name, parameter in decoder.named_parameters()
    }
    try:
        safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk comes as this, not as an OSError
        raise ArtifactError(
            f"the weights could not be written: {error}",
            where=str(shown),
            fix="Free some space or choose another place, then run the same command again",
        ) from None
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _hugging_face_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"model.{name}"


def _stored_names(file: Any, config: DecoderConfig, path: Path) -> dict[str, str]:
    """Our parameter name → the name in the file, once all of them are there in the right shape."""
    stored = set(file.keys())
    if config.tie_embeddings:
        stored.discard("lm_head.weight")  # some tools store the tied matrix a second time
    # Counted first, so that a damaged config cannot have a billion layers built below.
    layers = {name.split(".")[2] for name in stored if name.startswith("model.layers.")}
    if len(layers) != config.n_layers:
        raise ArtifactError(
            f"it holds {len(layers)} layers, but {CONFIG} says {config.n_layers}", where=str(path)
        )
    with torch.device("meta"):
        expected = {
            name: (_hugging_face_name(name), list(parameter.shape))
            for name, parameter in Decoder(config).named_parameters()
        }
    for their_name, shape in expected.values():
        if their_name not in stored:
            raise ArtifactError(f"the tensor {their_name} is missing", where=str(path))
        found = file.get_slice(their_name)
        if found.get_shape() != shape or found.get_dtype() not in _FLOATS:
            raise ArtifactError(
                f"the tensor {their_name} is {found.get_shape()} of {found.get_dtype()}, but "
                f"{CONFIG} asks for {shape} of floats",
                where=str(path),
            )
    unknown = stored - {their_name for their_name, _ in expected.values()}
    if unknown:
        raise ArtifactError(
            f"the tensor {min(unknown)} is not one of {ARCHITECTURE}", where=str(path)
        )
    return {name: their_name for name, (their_name, _) in expected.items()}


# --- tokenizer -----------------------------------------------------------------------------


def _eos_id(tokenizer_dir: Path, vocab_size: int) -> int | None:
    """Id of the tokenizer's end-of-document token, after checking that the model has its ids."""
    path = tokenizer_dir / "tokenizer.json"
    raw = read_json(path)
    config = read_json(tokenizer_dir / "tokenizer_config.json")
    try:
        special = {token["content"]: int(token["id"]) for token in raw["added_tokens"]}
        largest = max([*raw["model"]["vocab"].values(), *special.values()])
        eos = config.get("eos_token")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"not a tokenizer ({error!r})", where=str(path)) from None
    if largest >= vocab_size:
        raise ArtifactError(
            f"the tokenizer has ids up to {largest}, the model only {vocab_size} rows",
            where=str(path),
            fix="Give the tokenizer that its shards were made with",
        )
    return special.get(eos["content"] if isinstance(eos, dict) else eos)
