"""Tiny models with weights that matter: every parameter random, none at its initial zero."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from isoflop.models.build import AnyModel, build_model
from isoflop.models.config import (
    DECODER_FORMS,
    AnyConfig,
    DecoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ExpertsConfig,
    RopeScaling,
)
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise

SHAPES = {
    "multi-head, tied": {},
    "grouped-query": {"n_kv_heads": 2},
    "multi-query": {"n_kv_heads": 1},
    "untied": {"tie_embeddings": False},
    "heads wider than the stream": {"head_dim": 32, "n_kv_heads": 2},
    "one layer, odd sizes": {"n_layers": 1, "vocab_size": 67, "d_ff": 41, "rope_theta": 500.0},
}

LLAMA, GPT2 = DECODER_FORMS["llama"], DECODER_FORMS["gpt2"]
EXPERTS = ExpertsConfig(n_experts=5, top_k=2, d_expert=24)
FORMS = {
    "Qwen3": {"n_kv_heads": 2},
    "Qwen3, window": {"n_kv_heads": 2, "window": 5},
    "Qwen3-MoE": {"n_kv_heads": 2, "experts": EXPERTS},
    "Qwen3-MoE, untied, not normalised": {
        "tie_embeddings": False,
        "experts": ExpertsConfig(4, 3, 20, normalise=False),
    },
    "Llama": {**LLAMA, "n_kv_heads": 2, "tie_embeddings": False},
    "Llama 3.1": {
        **LLAMA, "n_kv_heads": 2, "rope_theta": 500.0,
        "rope_scaling": RopeScaling(8.0, 1.0, 4.0, 32),
    },
    "Qwen2": {**LLAMA, "qkv_bias": True, "n_kv_heads": 2},
    "Mistral": {**LLAMA, "n_kv_heads": 2, "window": 6, "tie_embeddings": False},
    "Mixtral": {
        **LLAMA, "n_kv_heads": 2, "tie_embeddings": False, "d_ff": 24, "experts": EXPERTS,
    },
    "GPT-2": {**GPT2},
    "GPT-1": {**GPT2, "post_norm": True, "d_ff": 128},
}  # fmt: skip
"""Decoders that transformers has a class for."""
OWN_FORMS = {
    "GPT-2, sinusoids": {**GPT2, "positions": "sinusoidal"},
    "GPT-2, ALiBi": {**GPT2, "positions": "alibi", "n_heads": 3, "n_kv_heads": 3},
    "Llama, ALiBi, window": {**LLAMA, "positions": "alibi", "window": 7},
    "Gopher": {**GPT2, "norm": "rms", "positions": "relative"},
    "shared experts": {"experts": ExpertsConfig(4, 2, 20, n_shared=2)},
}
"""Decoders that it has none for."""


def make_config(**changes: object) -> DecoderConfig:
    """A decoder of some ten thousand parameters."""
    sizes: dict[str, object] = {
        "vocab_size": 97, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4,
        "head_dim": 8, "d_ff": 48, "max_seq_len": 32,
    }  # fmt: skip
    return DecoderConfig(**{**sizes, **changes})  # type: ignore[arg-type]


def make_model(config: AnyConfig, seed: int = 0) -> AnyModel:
    """A model whose zeros and gains are random too, so that every part shows."""
    model = build_model(config)
    initialise(model, seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5, generator=draw)
            elif "embed" in name or not parameter.any():
                parameter.normal_(0.0, 0.2, generator=draw)
    return model.eval()


def make_decoder(seed: int = 0, **changes: object) -> Decoder:
    """A decoder made so."""
    decoder = make_model(make_config(**changes), seed)
    assert isinstance(decoder, Decoder)
    return decoder


def make_encoder_config(**changes: object) -> EncoderConfig:
    """An encoder of some ten thousand parameters."""
    sizes: dict[str, object] = {
        "vocab_size": 97, "d_model": 32, "n_layers": 2, "n_heads": 4, "d_ff": 48,
        "max_seq_len": 32,
    }  # fmt: skip
    return EncoderConfig(**{**sizes, **changes})  # type: ignore[arg-type]


def make_t5_config(**changes: object) -> EncoderDecoderConfig:
    """An encoder–decoder of some ten thousand parameters."""
    sizes: dict[str, object] = {
        "vocab_size": 97, "d_model": 32, "n_layers": 2, "n_decoder_layers": 3, "n_heads": 4,
        "head_dim": 12, "d_ff": 48, "max_seq_len": 64, "n_buckets": 8, "max_distance": 20,
    }  # fmt: skip
    return EncoderDecoderConfig(**{**sizes, **changes})  # type: ignore[arg-type]


@pytest.fixture(params=SHAPES, ids=str)
def any_decoder(request: pytest.FixtureRequest) -> Decoder:
    """A decoder of each shape in turn."""
    return make_decoder(**SHAPES[request.param])


@pytest.fixture(params=[*FORMS, *OWN_FORMS], ids=str)
def any_form(request: pytest.FixtureRequest) -> Decoder:
    """A decoder of each form in turn."""
    return make_decoder(**{**FORMS, **OWN_FORMS}[request.param])


@pytest.fixture(params=FORMS, ids=str)
def known_form(request: pytest.FixtureRequest) -> Decoder:
    """A decoder of each form that transformers has a class for."""
    return make_decoder(**FORMS[request.param])


@pytest.fixture
def decoder_of() -> Callable[..., Decoder]:
    """`decoder_of(seed=0, **changes)`."""
    return make_decoder


@pytest.fixture
def config_of() -> Callable[..., DecoderConfig]:
    """`config_of(**changes)`."""
    return make_config


@pytest.fixture
def encoder_of() -> Callable[..., AnyModel]:
    """`encoder_of(seed=0, **changes)`."""
    return lambda seed=0, **changes: make_model(make_encoder_config(**changes), seed)


@pytest.fixture
def t5_of() -> Callable[..., AnyModel]:
    """`t5_of(seed=0, **changes)`."""
    return lambda seed=0, **changes: make_model(make_t5_config(**changes), seed)


@pytest.fixture
def theirs_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[AnyModel], nn.Module]:
    """`theirs_of(model)`: the same weights in transformers' class, computing in float64.

    Their norms, shares and angles are rounded to float32 whatever the weights are; for a
    comparison to ten digits, the first two are left unrounded and angles rounded as ours are.
    """
    transformers = pytest.importorskip("transformers")
    from isoflop.models.hugging_face_config import architecture_of, hugging_face_config
    from isoflop.models.hugging_face_tensors import links

    def norm(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.variance_epsilon)

    softmax = nn.functional.softmax

    def unrounded(x: torch.Tensor, dim: int, dtype: object = None, **_: object) -> torch.Tensor:
        return softmax(x, dim)

    def build(model: AnyModel) -> nn.Module:
        monkeypatch.setattr(nn.functional, "softmax", unrounded)
        monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
        config, name = model.config, architecture_of(model.config)
        cls = getattr(transformers, name)
        written = hugging_face_config(config) | {"experts_implementation": "eager"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = cls(cls.config_class(**written, attn_implementation="eager"))
        own = dict(model.named_parameters())
        stored = {
            key: tensor.detach()
            for link in links(config, name)
            for key, tensor in zip(
                link.theirs, link.store([own[n] for n in link.ours]), strict=True
            )
        }
        if isinstance(config, EncoderDecoderConfig) and not config.tie_embeddings:
            theirs.lm_head.weight = nn.Parameter(torch.empty_like(theirs.lm_head.weight))
        _fill(theirs, stored)
        if not isinstance(config, EncoderDecoderConfig) or config.tie_embeddings:
            theirs.tie_weights()
        for module in theirs.modules():
            kind = type(module).__name__
            if kind.endswith(("RMSNorm", "T5LayerNorm")):
                monkeypatch.setattr(type(module), "forward", norm)
            elif kind.endswith("RotaryEmbedding"):
                monkeypatch.setattr(type(module), "forward", _angles(config))
        return theirs.double().eval()

    return build


def _fill(theirs: nn.Module, stored: dict[str, torch.Tensor]) -> None:
    """Load tensors by the names of files, where experts are one by one, into the module."""
    wanted = theirs.state_dict()
    for name in [n for n in stored if ".experts." in n]:
        tensor = stored.pop(name)
        base, index, part, _ = name.replace("block_sparse_moe", "mlp").rsplit(".", 3)
        row = {"gate_proj": 0, "w1": 0, "up_proj": 1, "w3": 1}.get(part)
        if row is None:
            wanted[f"{base}.down_proj"][int(index)] = tensor
        else:
            half = len(tensor)
            wanted[f"{base}.gate_up_proj"][int(index), row * half : (row + 1) * half] = tensor
    for name, tensor in stored.items():
        wanted[name.replace("block_sparse_moe", "mlp")].copy_(tensor)
    theirs.load_state_dict(wanted)


def _angles(config: DecoderConfig) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Cosines and sines by the definition in float64, rounded to float32."""
    pairs = torch.arange(config.head_dim // 2, dtype=torch.float64)
    frequency = config.rope_theta ** (-2 * pairs / config.head_dim)
    scaling = config.rope_scaling
    if scaling is not None:  # Llama 3.1's reference: by the wavelength in tokens
        wavelength, context = 2 * torch.pi / frequency, scaling.original_max_seq_len
        smooth = (context / wavelength - scaling.low_freq_factor) / (
            scaling.high_freq_factor - scaling.low_freq_factor
        )
        between = (1 - smooth) * frequency / scaling.factor + smooth * frequency
        slow = wavelength > context / scaling.low_freq_factor
        fast = wavelength < context / scaling.high_freq_factor
        assert slow.any()
        assert fast.any()
        assert not (slow | fast).all()
        frequency = torch.where(slow, frequency / scaling.factor, between)
        frequency = torch.where(
            fast, config.rope_theta ** (-2 * pairs / config.head_dim), frequency
        )

    def forward(
        self: nn.Module, x: torch.Tensor, position_ids: torch.Tensor, *_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        angle = position_ids[..., None].double() * frequency
        angle = torch.cat((angle, angle), -1)
        rounded = (wave(angle).to(torch.float32) for wave in (torch.cos, torch.sin))
        cos, sin = (wave.to(x.dtype) for wave in rounded)
        return cos, sin

    return forward
