"""Low-rank adapters, LoRA and DoRA: put on a decoder, trained, merged, saved for PEFT.

An adapter is a parametrisation of a weight: every form of the forward pass, the fused ones too,
asks for the weight and gets the changed one. Not for training them (`sft.py`).
"""

from __future__ import annotations

import math
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils import parametrize

from isoflop.alignment.sft_recipe import LoraConfig
from isoflop.core.artifact import (
    MANIFEST,
    build_directory,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from isoflop.core.errors import ArtifactError
from isoflop.core.hardware import machine
from isoflop.models.decoder import Decoder
from isoflop.models.stored_weights import write_tensors

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class LowRank(nn.Module):
    """W + (α/r)·B·A (Hu et al. 2022, section 4.1), with B = 0 at first: the weight itself.

    With DoRA each row of the sum has the length of a trained vector, at first that of W's row
    (Liu et al. 2024, equation 5); as there (section 4.3) no gradient goes through the lengths.
    """

    def __init__(
        self, weight_OI: Tensor, rank: int, alpha: float, dora: bool, draw: torch.Generator
    ) -> None:
        super().__init__()
        rows, columns = weight_OI.shape
        self.scale = alpha / rank
        bound = 1 / math.sqrt(columns)  # Kaiming with a = √5, as the paper's code
        start_RI = (torch.rand(rank, columns, generator=draw) * 2 - 1) * bound
        self.lora_A = nn.Parameter(start_RI.to(weight_OI))
        self.lora_B = nn.Parameter(weight_OI.new_zeros(rows, rank))
        self.magnitude: nn.Parameter | None = None
        if dora:
            self.magnitude = nn.Parameter(torch.linalg.vector_norm(weight_OI, dim=1).detach())

    def forward(self, weight_OI: Tensor) -> Tensor:
        """The changed weight, (out, in)."""
        changed_OI: Tensor = torch.add(weight_OI, self.lora_B @ self.lora_A, alpha=self.scale)
        if self.magnitude is None:
            return changed_OI
        length_O = torch.linalg.vector_norm(changed_OI, dim=1).detach()
        # A row of zeros, as fresh models have, has no direction to give a length to.
        tiny = torch.finfo(length_O.dtype).tiny
        scaled_OI: Tensor = changed_OI * (self.magnitude / length_O.clamp_min(tiny))[:, None]
        return scaled_OI


def attach(model: Decoder, rank: int, alpha: float, dora: bool, seed: int) -> None:
    """Freeze all weights and put an adapter on every matrix of the blocks."""
    model.requires_grad_(False)
    for number, (_, module) in enumerate(_matrices(model)):
        draw = torch.Generator().manual_seed(seed * 100_003 + number)
        adapter = LowRank(module.weight, rank, alpha, dora, draw)
        parametrize.register_parametrization(module, "weight", adapter)


def merge(model: Decoder) -> None:
    """Make the changed weights the model's own and drop the adapters."""
    for _, module in _matrices(model):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    model.requires_grad_(True)


def save_adapter(model: Decoder, out: Path, config: LoraConfig, base: Path) -> None:
    """Write the adapters as the `peft` library loads them, whole or not at all.

    Raises:
        ArtifactError: `out` holds something else.
    """
    tensors: dict[str, Tensor] = {}
    for name, adapter in adapters(model):
        key = f"base_model.model.model.{name}"
        tensors[f"{key}.lora_A.weight"] = adapter.lora_A.detach().contiguous()
        tensors[f"{key}.lora_B.weight"] = adapter.lora_B.detach().contiguous()
        if adapter.magnitude is not None:
            tensors[f"{key}.lora_magnitude_vector"] = adapter.magnitude.detach().contiguous()
    said = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base),
        "r": config.rank, "lora_alpha": config.alpha, "lora_dropout": 0.0, "bias": "none",
        "use_dora": config.dora, "target_modules": list(TARGETS), "fan_in_fan_out": False,
        "inference_mode": True,
    }  # fmt: skip
    with build_directory(out) as aside:
        write_json(aside / CONFIG, said)
        write_tensors(tensors, aside / WEIGHTS, out / WEIGHTS, {"format": "pt"})
        write_manifest(aside, kind="adapter", config=said, machine=machine(), inputs=[base])


def load_adapter(model: Decoder, directory: Path) -> None:
    """Put a saved adapter, ours or PEFT's, on a model; `merge` then makes it the model's own.

    Raises:
        ArtifactError: A file is missing, the adapter is of another form, or its tensors are not
            those of this model.
    """
    if (directory / MANIFEST).exists():  # ours; PEFT's has none
        read_manifest(directory, "adapter", verify=True)
    config = read_json(directory / CONFIG)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise ArtifactError("this is no LoRA adapter", where=str(directory / CONFIG))
    path = directory / WEIGHTS
    if not path.exists():
        raise ArtifactError("no such file", where=str(path))
    try:
        tensors = safetensors.torch.load_file(path)
        form = int(config["r"]), float(config["lora_alpha"]), bool(config.get("use_dora", False))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"the adapter cannot be read: {error}", where=str(directory), fix="Train it again"
        ) from None
    attach(model, *form, 0)
    for name, adapter in adapters(model):
        key = f"base_model.model.model.{name}"
        wanted = {f"{key}.lora_A.weight": adapter.lora_A, f"{key}.lora_B.weight": adapter.lora_B}
        if adapter.magnitude is not None:
            wanted[f"{key}.lora_magnitude_vector"] = adapter.magnitude
        for there, parameter in wanted.items():
            found = tensors.pop(there, None)
            if found is None or found.shape != parameter.shape:
                raise ArtifactError(
                    f"it lacks {there} of shape {tuple(parameter.shape)}", where=str(path)
                )
            with torch.no_grad():
                parameter.copy_(found)
    if tensors:
        raise ArtifactError(f"it has {min(tensors)}, the model has not", where=str(path))


def adapters(model: Decoder) -> list[tuple[str, LowRank]]:
    """The adapters by the names of their modules."""
    found = []
    for name, module in _matrices(model):
        if parametrize.is_parametrized(module, "weight"):
            adapter = module.get_submodule("parametrizations.weight.0")
            if not isinstance(adapter, LowRank):
                raise TypeError(f"{name} has a parametrisation that is no adapter")
            found.append((name, adapter))
    return found


def _matrices(model: Decoder) -> list[tuple[str, nn.Linear]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in TARGETS
    ]
