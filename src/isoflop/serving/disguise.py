"""Takes the disguise off a text, so that a list of plain terms finds what is spelled oddly.

Each view keeps, for every character, where in the text it comes from. Disguises are taken off
once: what is encoded twice stays hidden. Not for what is looked for (`safety.py`).
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_ZERO_WIDTH = frozenset("\u00ad\u034f\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufe0f\ufeff")
# Letters of other scripts that look like Latin ones (from Unicode's confusables, the plain ones).
_LOOKALIKES = str.maketrans(
    "авеёзікмнорстухьѕјӏԁԛԝһαβγεηικμνορτυχωɑɡı",
    "abee3ikmhopctyxbsjldqwhabyenikuvoptuxwagi",
)
_LEET = str.maketrans("0134578@$!|+", "oieastbasilt")
_RUN = re.compile(r"[A-Za-z0-9+/_-]{16,4096}={0,2}")
# Single letters with one and the same gap between them: `b o m b`, `b-o-m-b`, `炸.弹`.
_SPACED = re.compile(r"(?<!\w)\w([ .\-_*·,、]{1,2})\w(?!\w)(?:\1\w(?!\w))*")
_HAN_GAP = re.compile(r"(?<=[\u3400-\u9fff])[ .\-_*·,、|/]{1,2}(?=[\u3400-\u9fff])")


@dataclass(frozen=True)
class View:
    """A text in another spelling."""

    text: str
    start: tuple[int, ...]
    """Of each character, where what it stands for begins in the original."""
    end: tuple[int, ...]
    """And where that ends."""

    def span(self, begin: int, stop: int) -> tuple[int, int]:
        """The original's characters that a span of the view stands for."""
        return self.start[begin], self.end[stop - 1]


def plain(text: str) -> View:
    """Compatible forms and cases made one (NFKC), marks and zero-width characters left out,
    letters that look Latin made Latin."""
    out: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        if character in _ZERO_WIDTH:
            continue
        if character.isascii():
            out.append(" " if character.isspace() else character.lower())
            places.append(place)
            continue
        for part in unicodedata.normalize("NFKD", character).casefold().translate(_LOOKALIKES):
            if not unicodedata.combining(part):
                out.append(part)
                places.append(place)
    return View("".join(out), tuple(places), tuple(place + 1 for place in places))


def views(text: str) -> Iterator[View]:
    """The text in every spelling that is looked at; the plain one first."""
    base = plain(text)
    joined = _joined(base)
    for view in (base,) if joined is None else (base, joined):
        yield view
        leet = view.text.translate(_LEET)
        if leet != view.text:
            yield View(leet, view.start, view.end)
    yield View(codecs.encode(base.text, "rot13"), base.start, base.end)
    yield from _decoded(text)


def open_end(text: str) -> int:
    """Where at the end of a text an encoded word begins that may go on; its length if none."""
    match = re.search(r"[A-Za-z0-9+/=_-]{1,4096}$", text)
    return match.start() if match else len(text)


def _joined(base: View) -> View | None:
    """Letters that stand apart put together; None if none do."""
    drop: set[int] = set()
    for match in _SPACED.finditer(base.text):
        drop.update(i for i in range(*match.span()) if not base.text[i].isalnum())
    for match in _HAN_GAP.finditer(base.text):
        drop.update(range(*match.span()))
    if not drop:
        return None
    kept = [i for i in range(len(base.text)) if i not in drop]
    return View(
        "".join(base.text[i] for i in kept),
        tuple(base.start[i] for i in kept),
        tuple(base.end[i] for i in kept),
    )


def _decoded(text: str) -> Iterator[View]:
    """What runs of base64 say."""
    for match in _RUN.finditer(text):
        run = match.group().rstrip("=").translate(str.maketrans("-_", "+/"))
        try:
            said = base64.b64decode(run + "=" * (-len(run) % 4), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
        if said and all(character.isprintable() or character.isspace() for character in said):
            inner = plain(said)
            size = len(inner.text)
            yield View(inner.text, (match.start(),) * size, (match.end(),) * size)
