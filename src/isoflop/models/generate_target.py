"""Greedy writing of a target by an encoder-decoder; not for decoders alone (`generate.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from isoflop.models.encoder_decoder import EncoderDecoder
from isoflop.models.layers import KVCache


@torch.no_grad()
def generate_target(
    model: EncoderDecoder,
    source_ids: Sequence[int],
    max_new_tokens: int,
    *,
    start_id: int,
    stop_ids: Iterable[int] = (),
) -> list[int]:
    """The likeliest token, one after the other.

    Args:
        source_ids: What the encoder reads, its end token included.
        start_id: What the decoder is given first.
        stop_ids: Ids that end the target; the one that did is the last id returned.

    Raises:
        ValueError: The source or the target exceeds `max_seq_len`.
    """
    stop, device = set(stop_ids), model.embed_tokens.weight.device
    source = model.decoder.source(model.encode(torch.tensor([list(source_ids)], device=device)))
    cache = KVCache(model.config.n_decoder_layers)
    written: list[int] = []
    last = start_id
    for _ in range(max_new_tokens):
        logits_1TV = model.decode(torch.tensor([[last]], device=device), source, cache)
        last = int(logits_1TV[0, -1].argmax())
        written.append(last)
        if last in stop:
            break
    return written
