"""What compression did to a model: bits per byte, divergence and changed choices, on held-out text.

Not for foretelling it (`sensitivity.py`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.data.loader import IGNORED, EvalWindows, Windows
from isoflop.models.decoder import Decoder
from isoflop.models.generate import generate

ROWS = 16
"""Windows per forward pass."""
SPEED_TOKENS, SPEED_PROMPT = 24, 8


@dataclass(frozen=True)
class Measured:
    """A compressed model beside the full one, on the same windows."""

    bits_per_byte_full: float
    bits_per_byte: float
    kl: float
    """Mean KL divergence from the full model's distribution to this one's, nats per token."""
    flipped: float
    """Share of tokens at which the likeliest next token is another one."""
    tokens: int
    """Tokens judged."""

    @property
    def added(self) -> float:
        """Bits per byte lost to compression."""
        return self.bits_per_byte - self.bits_per_byte_full

    @property
    def relative_loss(self) -> float:
        """The same as a share of the full model's."""
        return self.added / self.bits_per_byte_full


@torch.no_grad()
def window_losses(decoder: Decoder, windows: Windows) -> npt.NDArray[np.float64]:
    """(n_windows,) summed loss of each window in nats."""
    sums = []
    for ids, labels, document in _batches(windows):
        logits = decoder(ids, document)
        losses = F.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED
        )
        sums.append(losses.double().view(labels.shape).sum(1).numpy())
    return np.concatenate(sums)


@torch.no_grad()
def measure(full: Decoder, small: Decoder, windows: EvalWindows) -> Measured:
    """Compare two decoders of one vocabulary on held-out windows."""
    nats_full = nats = divergence = 0.0
    flipped = count = 0
    for ids, labels, document in _batches(windows):
        counted = labels != IGNORED
        log_p = full(ids, document)[counted].double().log_softmax(-1)
        log_q = small(ids, document)[counted].double().log_softmax(-1)
        label = labels[counted][:, None]
        nats_full -= log_p.gather(1, label).sum().item()
        nats -= log_q.gather(1, label).sum().item()
        divergence += (log_p.exp() * (log_p - log_q)).sum().item()
        flipped += int((log_p.argmax(-1) != log_q.argmax(-1)).sum())
        count += len(label)
    bits = math.log(2) * windows.text_bytes
    return Measured(nats_full / bits, nats / bits, divergence / count, flipped / count, count)


def generation_speeds(decoder: Decoder, windows: Windows, bursts: int) -> list[float]:
    """Tokens per second of greedy decoding, one sequence, in each of several short bursts."""
    found = []
    n_new = min(SPEED_TOKENS, decoder.config.max_seq_len - 1)
    for burst in range(bursts + 1):
        prompt = windows.ids_BT[burst % len(windows.ids_BT), :SPEED_PROMPT].tolist()
        began = time.perf_counter()
        generate(decoder, prompt, n_new)
        found.append(n_new / (time.perf_counter() - began))
    return found[1:]  # the first one warms caches


def _batches(windows: Windows) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(ids, labels, documents) of a few windows at a time."""
    for at in range(0, len(windows.ids_BT), ROWS):
        part = (windows.ids_BT, windows.labels_BT, windows.document_BT)
        ids, labels, document = (torch.from_numpy(array[at : at + ROWS]) for array in part)
        yield ids, labels, document
