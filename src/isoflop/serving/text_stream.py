"""Turns tokens into text as they come: whole characters only, and nothing of a stop string.

What is released does not depend on how the bytes are cut into tokens. Not for choosing tokens
(`sampler.py`) nor for hiding what should not be said (`safety.py`).
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Bytes in, text out, up to the stop string that is complete first.

    A character whose bytes have not all come is held back, and so is the beginning of a stop
    string until it turns out to be none. Bytes that can be no UTF-8 become U+FFFD, as in the
    text decoded at once; a character cut off by the end of the answer is left out.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self.decoded = 0
        """Characters decoded so far, released or not."""
        self.released = 0
        """Characters released so far."""
        self.stopped: str | None = None
        """The stop string that ended the text."""

    def push(self, piece: bytes) -> str:
        """The text that a token's bytes release."""
        if self.stopped is not None:
            return ""
        new = self._decoder.decode(piece)
        self.decoded += len(new)
        if not self._stop:
            self.released += len(new)
            return new
        text = self._held + new
        ends = [(at + len(stop), -len(stop), stop) for stop in self._stop
                if (at := text.find(stop)) >= 0]  # fmt: skip
        if ends:
            end, _, self.stopped = min(ends)
            out, self._held = text[: end - len(self.stopped)], ""
        else:
            keep = max(_overlap(text, stop) for stop in self._stop)
            out, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self.released += len(out)
        return out

    def finish(self) -> str:
        """What was held back, at the end of the answer."""
        out, self._held = ("", "") if self.stopped is not None else (self._held, "")
        self.released += len(out)
        return out


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins, short of all of it."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
