"""The weights of a directory that anybody may have written: named, checked, then read.

Only safetensors, never pickled weights; names, counts, shapes and formats are compared with the
config before memory is taken. Not for what the tensors mean (`hugging_face_tensors.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from isoflop.core.artifact import read_json
from isoflop.core.errors import ArtifactError
from isoflop.models.accounting import count_parameters
from isoflop.models.build import build_model
from isoflop.models.config import AnyConfig, DecoderConfig, EncoderDecoderConfig
from isoflop.models.hugging_face_tensors import IGNORED, Link, aliases, canonical_name, links
from isoflop.models.packed_weights import Packed, UnpackedFile

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MOST_PARAMETERS = 1 << 50
"""A config that asks for more is damaged; its shapes would overflow."""
_FLOATS = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True)
class StoredWeights:
    """The tensors of a directory by their current names; none is read yet."""

    path: Path
    files: Mapping[str, tuple[Any, str]]
    """Current name → the open file and the name in it."""

    def slice(self, name: str) -> Any:
        """Shape and format of a tensor."""
        file, stored = self.files[name]
        return file.get_slice(stored)

    def tensor(self, name: str) -> Tensor:
        """Read a tensor."""
        file, stored = self.files[name]
        tensor: Tensor = file.get_tensor(stored)
        return tensor

    def packed(self, name: str) -> Packed | None:
        """Read a tensor as it is stored; None if it is not packed."""
        file, stored = self.files[name]
        packed: Packed | None = file.packed(stored) if file.is_packed(stored) else None
        return packed


def write_tensors(
    tensors: Mapping[str, Tensor],
    path: Path,
    shown: Path | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a safetensors file and have it on the disk.

    Args:
        shown: The path for messages, where the file is written aside first.

    Raises:
        ArtifactError: It could not be written: the disk is full, or a file may not grow so large.
    """
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:  # a full disk comes as this, not as an OSError
        raise ArtifactError(
            f"the disk is full, or the file would be larger than allowed here: {error}",
            where=str(shown or path),
            fix="Free some space or choose another place, then run the same command again",
        ) from None
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def open_weights(directory: Path, architecture: str, opened: ExitStack) -> StoredWeights:
    """All tensors of `model.safetensors`, or of the files that its index names."""
    path = directory / (INDEX if (directory / INDEX).exists() else WEIGHTS)
    names = [WEIGHTS]
    if path.name == INDEX:
        raw = read_json(path)
        held = raw.get("weight_map") if isinstance(raw, dict) else None
        if not isinstance(held, dict) or not all(isinstance(n, str) for n in held.values()):
            raise ArtifactError("the index has no weight_map of files", where=str(path))
        names = sorted(set(held.values()))
    files: dict[str, tuple[Any, str]] = {}
    for name in names:
        if not re.fullmatch(r"[\w.-]+\.safetensors", name):
            raise ArtifactError(f"{name!r} is not a safetensors file beside it", where=str(path))
        if not (directory / name).exists():
            raise ArtifactError(
                f"there is no {name}",
                where=str(directory),
                fix="Only safetensors are read, never pickled weights",
            )
        try:
            whole = opened.enter_context(safe_open(directory / name, framework="pt"))
        except SafetensorError as error:
            raise ArtifactError(
                f"not a whole safetensors file ({error})",
                where=str(directory / name),
                fix="Make the model again, or restore the file from a copy",
            ) from None
        file = UnpackedFile(whole, str(directory / name))
        files |= {canonical_name(key, architecture): (file, key) for key in file.keys()}  # noqa: SIM118
    return StoredWeights(path, files)


def check(stored: StoredWeights, config: AnyConfig, architecture: str) -> list[Link]:
    """The links of the model, once all their tensors are there in the right shape.

    Raises:
        ArtifactError: The first thing that does not fit, by name.
    """
    where, also = str(stored.path), aliases(config, architecture)
    names = {n for n in stored.files if not any(re.fullmatch(p, n) for p in IGNORED)}
    # Counted first, so that a damaged config cannot have a billion layers built below.
    _check_depth(names, config, where)
    if count_parameters(config).params_total > MOST_PARAMETERS:
        raise ArtifactError(f"the sizes in {CONFIG} are impossible", where=where)
    for again, name in also.items():
        if again in names and name in names and not _same(stored, again, name):
            raise ArtifactError(
                f"{CONFIG} ties {again} to {name}, but they are different", where=where
            )
    names -= also.keys()
    wanted = links(config, architecture)
    for their_name, shape in _shapes(config, wanted).items():
        if their_name not in names:
            raise ArtifactError(f"the tensor {their_name} is missing", where=where)
        found = stored.slice(their_name)
        if found.get_shape() != shape or found.get_dtype() not in _FLOATS:
            raise ArtifactError(
                f"the tensor {their_name} is {found.get_shape()} of {found.get_dtype()}, but "
                f"{CONFIG} asks for {shape} of floats",
                where=where,
            )
        names.discard(their_name)
    if names:
        said = f"the tensor {min(names)} is not one of {architecture}"
        raise ArtifactError(said, where=where)
    return wanted


def _check_depth(names: set[str], config: AnyConfig, where: str) -> None:
    found: dict[str, set[str]] = {}
    for name in names:
        match = re.match(r"(.*?)\.?(?:layers|h|layer|block)\.(\d+)\.", name)
        if match:
            found.setdefault(match[1], set()).add(match[2])
    stacks = {"model": config.n_layers}
    if isinstance(config, EncoderDecoderConfig):
        stacks = {"encoder": config.n_layers, "decoder": config.n_decoder_layers}
    elif found:
        stacks = dict.fromkeys(found, config.n_layers)
    for stack, asked in stacks.items():
        held = len(found.get(stack, ()))
        if held != asked:
            said = f"it holds {held} layers, but {CONFIG} says {asked}"
            raise ArtifactError(said, where=where)
    if isinstance(config, DecoderConfig) and config.experts is not None:
        matches = (re.search(r"\.experts\.(\d+)\.", name) for name in names)
        experts = {match[1] for match in matches if match}
        if experts and len(experts) != config.experts.n_experts:
            said = f"it holds {len(experts)} experts, but {CONFIG} says {config.experts.n_experts}"
            raise ArtifactError(said, where=where)


def _shapes(config: AnyConfig, wanted: Sequence[Link]) -> dict[str, list[int]]:
    """Their names → the shapes that the config asks for, without memory."""
    if isinstance(config, DecoderConfig) and config.positions == "rotary":
        config = replace(config, max_seq_len=1)  # no table of angles before the sizes are checked
    with torch.device("meta"):
        own = dict(build_model(config).named_parameters())
    return {
        name: list(tensor.shape)
        for link in wanted
        for name, tensor in zip(link.theirs, link.store([own[n] for n in link.ours]), strict=True)
    }


def _same(stored: StoredWeights, one: str, other: str) -> bool:
    return bool(torch.equal(stored.tensor(one), stored.tensor(other)))
