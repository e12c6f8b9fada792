"""Models as directories: what `transformers` loads, and back.

Not for checkpoints of a run (`training/checkpoint.py`), which hold optimizer state too. Which
class of transformers a model is, and what it calls the tensors, stands in `hugging_face_*.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from isoflop.core.artifact import (
    MANIFEST,
    build_directory,
    read_json,
    read_manifest,
    write_atomic,
    write_json,
    write_manifest,
)
from isoflop.core.errors import ArtifactError
from isoflop.core.hardware import machine
from isoflop.models.accounting import count_parameters
from isoflop.models.build import AnyModel, build_model
from isoflop.models.card import CARD, last_evaluation, model_card, name_of
from isoflop.models.config import AnyConfig, DecoderConfig, EncoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.decoder_weights import DecoderWeights
from isoflop.models.encoder import Encoder
from isoflop.models.encoder_decoder import EncoderDecoder
from isoflop.models.hugging_face_config import OWN, architecture_of, hugging_face_config
from isoflop.models.hugging_face_read import model_config
from isoflop.models.hugging_face_tensors import Link, links
from isoflop.models.packed_weights import Packed
from isoflop.models.stored_weights import (
    CONFIG,
    INDEX,
    WEIGHTS,
    StoredWeights,
    check,
    open_weights,
    write_tensors,
)

TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = ("tokenizer.json", TOKENIZER_CONFIG, "chat_template.jinja")
FAST = "PreTrainedTokenizerFast"
"""The class of transformers that reads `tokenizer.json` and nothing else."""
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def save_model(
    model: AnyModel,
    directory: Path,
    tokenizer_dir: Path | None = None,
    *,
    inputs: Sequence[Path] = (),
    tokenizer_from: Path | None = None,
    seed: int | None = None,
) -> None:
    """Write a model directory, whole or not at all, replacing an older one.

    Args:
        tokenizer_dir: Directory whose tokenizer is copied into the model's.
        inputs: What the model was made from, for its manifest, beside the tokenizer.
        tokenizer_from: Where the tokenizer is from, for the manifest, if `tokenizer_dir` is a copy.
        seed: The seed of its initial weights, for its manifest.

    Raises:
        ArtifactError: `directory` holds something else, the tokenizer cannot be read, it has
            more ids than the model, or the weights cannot be written.
    """
    special: Mapping[str, Any] | None = None
    if tokenizer_dir is not None:
        eos_id, pad_id = _special_ids(tokenizer_dir, model.config.vocab_size)
        special = {"bos_token_id": None, "eos_token_id": eos_id, "pad_token_id": pad_id}
        if isinstance(model, EncoderDecoder):  # T5's decoder begins with the padding
            special["decoder_start_token_id"] = pad_id
        origin = tokenizer_from or tokenizer_dir
        origin = origin if (origin / MANIFEST).exists() else origin / "tokenizer.json"
        inputs = (*(path for path in inputs if path != origin), origin)
    _write(model, directory, tokenizer_dir, special, inputs, seed)


def load_decoder(directory: Path) -> Decoder:
    """Open the weights of a decoder as float32, ready to be asked (`eval` mode).

    Raises:
        ArtifactError: As `load_model`, or the model is no decoder.
    """
    model = load_model(directory)
    if not isinstance(model, Decoder):
        raise ArtifactError(
            f"this is a {type(model).__name__.lower()}, and a decoder is needed here",
            where=str(directory),
        )
    return model


def load_model(directory: Path, *, keep_dtype: bool = False) -> AnyModel:
    """Open the weights of a model directory, ready to be asked (`eval` mode).

    A directory that another tool wrote has no manifest and is read as it is; one of ours is
    verified against its hashes. Names, shapes and formats are checked before memory is taken; no
    code of the directory is run.

    Args:
        keep_dtype: Leave every tensor in the format it is stored in; float32 otherwise.

    Raises:
        ArtifactError: A file is missing or damaged, the architecture is another one, or a
            tensor is missing, too many, or of the wrong shape; it is named.
    """
    with ExitStack() as opened:
        config, stored, wanted = _opened(directory, opened)
        with torch.device("meta"):
            model = build_model(config)
        tensors: dict[str, Tensor] = {}
        for link in wanted:
            loaded = link.load([stored.tensor(name) for name in link.theirs])
            for name, tensor in zip(link.ours, loaded, strict=True):
                tensors[name] = tensor if keep_dtype else tensor.float()
    return _filled(model, tensors).eval()


def load_weights(directory: Path) -> DecoderWeights:
    """Open the weights of a decoder, packed ones as they are stored and others as float32.

    Raises:
        ArtifactError: As `load_decoder`.
    """
    with ExitStack() as opened:
        config, stored, wanted = _opened(directory, opened)
        if not isinstance(config, DecoderConfig):
            kind = type(config).__name__.removesuffix("Config").lower()
            raise ArtifactError(
                f"this is a {kind}, and a decoder is needed here", where=str(directory)
            )
        tensors: dict[str, Tensor | Packed] = {}
        for link in wanted:
            packed = stored.packed(link.theirs[0]) if len(link.theirs) == 1 else None
            if packed is not None:
                tensors[link.ours[0]] = packed
                continue
            loaded = link.load([stored.tensor(name) for name in link.theirs])
            for name, tensor in zip(link.ours, loaded, strict=True):
                tensors[name] = tensor.float().contiguous()
    return DecoderWeights(config, tensors)


def _opened(directory: Path, opened: ExitStack) -> tuple[AnyConfig, StoredWeights, Sequence[Link]]:
    """The shape of a directory's model, its tensors, and which of ours they are; all checked."""
    if not directory.is_dir():
        raise ArtifactError("no such model directory", where=str(directory))
    if (directory / MANIFEST).exists():
        read_manifest(directory, "model", verify=True)
    raw = read_json(directory / CONFIG)
    config = model_config(raw, str(directory / CONFIG))
    stored = open_weights(directory, raw["architectures"][0], opened)
    if isinstance(config, EncoderConfig):  # BERT is published under either name
        config = replace(config, pair_head="cls.seq_relationship.weight" in stored.files)
    own = raw["architectures"][0] == OWN
    return config, stored, check(stored, config, OWN if own else architecture_of(config))


def _filled(model: AnyModel, tensors: Mapping[str, Tensor]) -> AnyModel:
    """The model, made without memory for its weights, with these in their place."""
    for path, module in model.named_modules():
        for name, _ in list(module.named_parameters(recurse=False)):
            tensor = tensors.get(f"{path}.{name}" if path else name)
            if tensor is not None:
                setattr(module, name, nn.Parameter(tensor.contiguous()))
    if not isinstance(model, Encoder) and model.config.tie_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    return model


# --- another tool's directories ------------------------------------------------------------


@dataclass(frozen=True)
class ModelSummary:
    """What a directory holds."""

    architecture: str
    """The class of transformers."""
    params_total: int
    dtype: str
    tokenizer: bool
    """Whether a tokenizer is with it."""


def import_model(source: Path, out: Path) -> ModelSummary:
    """Read a directory of transformers and write it as a model of ours, tensors bit by bit.

    Its tokenizer goes along where there is a `tokenizer.json`; code of its own does not.

    Raises:
        ArtifactError: As `load_model` and `save_model`.
    """
    model = load_model(source, keep_dtype=True)
    raw = read_json(source / CONFIG)
    special = {key: raw[key] for key in SPECIAL_IDS if _is_ids(raw.get(key))}
    tokenizer = source if (source / "tokenizer.json").exists() else None
    if tokenizer is not None:
        _special_ids(tokenizer, model.config.vocab_size)
    weights = [path for path in (source / WEIGHTS, source / INDEX) if path.exists()]
    _write(model, out, tokenizer, special, [source / CONFIG, *weights[:1]], None)
    return ModelSummary(
        architecture=architecture_of(model.config),
        params_total=count_parameters(model.config).params_total,
        dtype=str(model.embed_tokens.weight.dtype).removeprefix("torch."),
        tokenizer=tokenizer is not None,
    )


def export_model(source: Path, out: Path) -> ModelSummary:
    """Write a model of ours as a directory that transformers opens, tensors bit by bit.

    Raises:
        ArtifactError: As `load_model` and `save_model`, or transformers has no class for it.
    """
    if architecture_of(model_config(read_json(source / CONFIG), str(source / CONFIG))) == OWN:
        raise ArtifactError(
            "transformers has no class for a decoder of this form",
            where=str(source),
            fix="Its positions, norms and feed-forward parts must be those of Qwen3, Llama, "
            "Mistral, Mixtral or GPT-2; Isoflop itself opens it as it is",
        )
    return import_model(source, out)


def _is_ids(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return all(isinstance(item, int) and not isinstance(item, bool) for item in values)


# --- writing -------------------------------------------------------------------------------


def _write(
    model: AnyModel,
    directory: Path,
    tokenizer_dir: Path | None,
    special: Mapping[str, Any] | None,
    inputs: Sequence[Path],
    seed: int | None,
) -> None:
    with build_directory(directory) as aside:
        config = _write_files(model, aside, directory, tokenizer_dir, special)
        results = last_evaluation(directory)
        card = model_card(name_of(directory), model.config, inputs, results, seed)
        write_atomic(aside / CARD, card)
        write_manifest(
            aside, kind="model", config=config, machine=machine(), inputs=inputs, seed=seed
        )


def write_variant(
    model: Decoder,
    source: Path,
    aside: Path,
    directory: Path,
    packed: Mapping[str, Packed] | None = None,
) -> Mapping[str, Any]:
    """Write the files of a model made from the one in `source`, with its tokenizer and special
    ids, but no manifest: the caller adds files of its own first.

    Args:
        aside: Where to write; `directory` is the place that errors name.
        packed: Parameters that are stored in few bits, by the name of the parameter; the model is
            then one that Isoflop alone opens.

    Returns:
        `config.json`.

    Raises:
        ArtifactError: The tokenizer cannot be read, or the weights cannot be written.
    """
    raw = read_json(source / CONFIG)
    special = {key: raw[key] for key in SPECIAL_IDS if _is_ids(raw.get(key))}
    tokenizer = source if (source / "tokenizer.json").exists() else None
    return _write_files(model, aside, directory, tokenizer, special, packed or {})


def _write_files(
    model: AnyModel,
    aside: Path,
    directory: Path,
    tokenizer_dir: Path | None,
    special: Mapping[str, Any] | None,
    packed: Mapping[str, Packed] = MappingProxyType({}),
) -> Mapping[str, Any]:
    dtype = str(model.embed_tokens.weight.dtype).removeprefix("torch.")
    architecture = OWN if packed else architecture_of(model.config)
    config = hugging_face_config(model.config, dtype, special, own_form=bool(packed))
    write_json(aside / CONFIG, config)
    if not isinstance(model, Encoder):
        ids = {key: config[key] for key in SPECIAL_IDS if config.get(key) is not None}
        write_json(aside / "generation_config.json", ids)
    if tokenizer_dir is not None:
        _copy_tokenizer(tokenizer_dir, aside)
    _write_weights(model, architecture, packed, aside / WEIGHTS, directory / WEIGHTS)
    return config


def _copy_tokenizer(source: Path, aside: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, aside / name)
    if (source / TOKENIZER_CONFIG).exists():
        config = read_json(source / TOKENIZER_CONFIG)
        # `auto_map` names Python files to be run; what `tokenizer.json` says needs none.
        if not isinstance(config, dict):
            raise ArtifactError("not a JSON object", where=str(source / TOKENIZER_CONFIG))
        if config.get("tokenizer_class") != FAST or "auto_map" in config:
            kept = {key: value for key, value in config.items() if key != "auto_map"}
            write_json(aside / TOKENIZER_CONFIG, {**kept, "tokenizer_class": FAST})


def _write_weights(
    model: AnyModel, architecture: str, packed: Mapping[str, Packed], path: Path, shown: Path
) -> None:
    # `named_parameters` names a tied matrix once, as the embedding: that is how it is stored.
    own = dict(model.named_parameters())
    tensors: dict[str, Tensor] = {}
    for link in links(model.config, architecture):
        if link.ours[0] in packed:
            tensors |= packed[link.ours[0]].parts(link.theirs[0])
            continue
        stored = link.store([own[name].detach() for name in link.ours])
        tensors |= {n: t.contiguous() for n, t in zip(link.theirs, stored, strict=True)}
    write_tensors(tensors, path, shown, {"format": "pt"})


# --- tokenizer -----------------------------------------------------------------------------


def _special_ids(tokenizer_dir: Path, vocab_size: int) -> tuple[int | None, int | None]:
    """Ids of the tokenizer's end of document and padding, after checking that the model has its
    ids; what ends a document pads where nothing else does."""
    path = tokenizer_dir / "tokenizer.json"
    raw = read_json(path)
    config = read_json(tokenizer_dir / "tokenizer_config.json")
    try:
        special = {token["content"]: int(token["id"]) for token in raw["added_tokens"]}
        vocab = raw["model"]["vocab"]  # a list of pieces with scores, in a unigram tokenizer
        ids = vocab.values() if isinstance(vocab, dict) else [len(vocab) - 1]
        largest = max([*ids, *special.values()])
        eos, pad = config.get("eos_token"), config.get("pad_token")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"not a tokenizer ({error!r})", where=str(path)) from None
    if largest >= vocab_size:
        raise ArtifactError(
            f"the tokenizer has ids up to {largest}, the model only {vocab_size} rows",
            where=str(path),
            fix="Give the tokenizer that its shards were made with",
        )
    eos_id, pad_id = (
        special.get(token["content"] if isinstance(token, dict) else token) for token in (eos, pad)
    )
    return eos_id, eos_id if pad_id is None else pad_id
