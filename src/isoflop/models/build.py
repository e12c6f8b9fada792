"""The module of any shape, not its initial values (`initialise.py`) nor its files (`convert`)."""

from __future__ import annotations

from typing import TypeAlias

from isoflop.models.config import AnyConfig, DecoderConfig, EncoderConfig
from isoflop.models.decoder import Decoder
from isoflop.models.encoder import Encoder
from isoflop.models.encoder_decoder import EncoderDecoder

AnyModel: TypeAlias = Decoder | Encoder | EncoderDecoder


def build_model(config: AnyConfig) -> AnyModel:
    """The module of that shape, its weights not yet set."""
    if isinstance(config, EncoderConfig):
        return Encoder(config)
    return Decoder(config) if isinstance(config, DecoderConfig) else EncoderDecoder(config)
