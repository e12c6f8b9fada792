"""How much a model was surprised by each token of its samples; not for drawing samples.

The only part of a report that opens a model (torch, some seconds), so only where it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from isoflop.loading import load
from isoflop.reporting.records import Report, Sample

_UNFINISHED = "�"


class _Codec(Protocol):
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


def shaded(report: Report, model: Path | str) -> Report:
    """The report with the surprise of every token of its last samples, in bits.

    Args:
        model: The directory of the model that wrote them.

    Raises:
        ArtifactError: The model cannot be opened.
    """
    if not report.samples:
        return report
    opened = load(model)
    last = max(sample.step for sample in report.samples)

    def one(sample: Sample) -> Sample:
        written = sample.text.removeprefix(sample.prompt)
        prompt, text = opened.tokenizer.encode(sample.prompt), opened.tokenizer.encode(written)
        room = opened.decoder.config.max_seq_len
        if sample.step != last or not text or not prompt or len(prompt) + len(text) > room:
            return sample
        bits = opened.logprobs([*prompt, *text])[len(prompt) - 1 :] / -math.log(2)
        return replace(sample, surprisal=pieces(opened.tokenizer, text, bits.tolist()))

    return replace(report, samples=tuple(map(one, report.samples)))


def pieces(
    codec: _Codec, ids: Sequence[int], bits: Sequence[float]
) -> tuple[tuple[str, float], ...]:
    """(text, bits) of each token; of a character made of several tokens, all of them as one."""
    found: list[tuple[str, float]] = []
    waiting: list[int] = []
    sum_ = 0.0
    for index, bit in zip(ids, bits, strict=True):
        waiting.append(index)
        sum_ += bit
        piece = codec.decode(waiting)
        if not piece.endswith(_UNFINISHED):
            found.append((piece, round(sum_, 2)))
            waiting, sum_ = [], 0.0
    if waiting:
        found.append((codec.decode(waiting), round(sum_, 2)))
    return tuple(found)
