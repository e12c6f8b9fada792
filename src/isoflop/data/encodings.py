"""Finds out how bytes encode text, and says so only when it is sure. Not for repairing mojibake.

UTF-8 is nearly never valid by accident, so it is tried first. Of the older encodings each is
decoded and the outcome weighed by how common its characters are in the languages that use it:
bits by a table of ranks, summed over the text. The cheapest reading wins, if all of it is
plausible and every other reading is clearly dearer. Damage that was saved as text already is the
business of `normalise` (`spelling.mojibake`).
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from dataclasses import dataclass

from isoflop.data.encoding_tables import Script, scripts

_ASCII_BITS = 5.0
_SAMPLE_BYTES = 65_536
_MAX_BYTES_WITHOUT_ASCII = 4_000
# So many characters beyond ASCII are not valid UTF-8 by accident.
_SURE_CHARACTERS = 16
_MAX_CONTROLS = 0.01
_MIN_MARGIN_BITS = 12.0
# A text of few characters may consist of rare ones.
_FREE_BITS = 12.0
_MAX_BITS_PER_BYTE = 6.2
_WINDOW_CHARACTERS = 400
_MIN_WINDOW_BYTES = 60
_MAX_WINDOW_BITS_PER_BYTE = 8.5
# A stretch that costs more than this share of the mean is looked at again.
_USUAL = 1.08

# UTF-32 first: its little-endian mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
# Encoding → the scripts that are written in it.
_BYTE_ENCODINGS = {
    "gb18030": ("simplified", "traditional"), "big5hkscs": ("traditional",), "cp932": ("japanese",),
    "euc_jp": ("japanese",), "cp949": ("korean",), "cp1252": ("western",),
    "cp1250": ("central",), "iso8859_2": ("central",), "cp1254": ("turkish",),
    "cp1251": ("cyrillic",), "koi8_r": ("cyrillic",), "cp866": ("cyrillic",),
    "iso8859_5": ("cyrillic",), "mac_cyrillic": ("cyrillic",), "cp1253": ("greek",),
}  # fmt: skip
_ALL = (
    "western", "simplified", "traditional", "japanese", "korean", "cyrillic", "central", "greek",
    "turkish",
)  # fmt: skip
_ENCODINGS: dict[str, tuple[str, ...]] = {
    **_BYTE_ENCODINGS, "utf_16_le": _ALL, "utf_16_be": _ALL, "utf_8": _ALL
}  # fmt: skip
# What browsers read under these names (WHATWG Encoding Standard).
_SUPERSETS = {
    "ascii": "cp1252", "iso8859-1": "cp1252", "gb2312": "gb18030", "gbk": "gb18030",
    "hz": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949",
    "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text with the encoding that it was in."""

    text: str
    encoding: str


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read a sample: what it costs in bits."""

    encoding: str
    script: Script
    text: str
    bits: float
    """Of all characters."""
    foreign_bits: float
    """Of those beyond ASCII."""
    foreign_bytes: int


def decode(raw: bytes, declared: str | None = None) -> Decoded | None:
    """The text that bytes hold, or None when no encoding or more than one is plausible.

    Args:
        declared: What a header or the page itself says; believed where the bytes are not UTF-8
            and can be read so without control characters.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return _strictly(raw.removeprefix(mark) if encoding == "utf-8" else raw, encoding)
    if b"\x1b$" in raw and (found := _strictly(raw, "iso2022_jp")):
        return found
    utf8 = _strictly(raw, "utf-8")
    if utf8 and _is_sure(utf8.text):
        return utf8
    name = _known(declared)
    if not utf8 and name and (found := _strictly(raw, name)) and _is_clean(found.text, 0.001):
        return found
    return _most_plausible(raw, utf8)


def _is_sure(text: str) -> bool:
    if not _is_clean(text, _MAX_CONTROLS):
        return False
    start = text[:_SAMPLE_BYTES]
    return text.isascii() or len(start) - sum(map(str.isascii, start)) >= _SURE_CHARACTERS


def _strictly(raw: bytes, encoding: str) -> Decoded | None:
    try:
        return Decoded(raw.decode(encoding), encoding.replace("_", "-"))
    except UnicodeError:
        return None


def _known(declared: str | None) -> str | None:
    """The codec for a declared name; None for no name and for those that are no text encoding."""
    if not declared:
        return None
    try:
        found = codecs.lookup(declared.strip(" \"';"))
    except (LookupError, ValueError):
        return None
    name = _SUPERSETS.get(found.name, found.name)
    return name if _LEGACY.match(name) else None


# Python also names codecs that are none of text, and UTF-7, which nobody should read.
_LEGACY = re.compile("iso8859|cp|koi8|mac|big5|gb|hz|shift|euc|johab|iso2022|tis|kz|utf-16")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffd\ue000-\uf8ff]")


def _is_clean(text: str, share: float) -> bool:
    return len(_CONTROLS.findall(text)) <= share * len(text)


def _most_plausible(raw: bytes, utf8: Decoded | None) -> Decoded | None:
    readings = sorted(_readings(raw), key=lambda reading: reading.bits)
    if not readings:
        return None
    best = readings[0]
    if utf8 is not None:
        # It stands unless another reading is clearly better; then nobody knows.
        own = next((r for r in readings if r.encoding == "utf_8"), best)
        clear = own.bits - best.bits < _MIN_MARGIN_BITS
        return utf8 if clear and _is_clean(utf8.text, _MAX_CONTROLS) else _if_wide(raw, readings)
    return _if_certain(raw, readings)


def _if_wide(raw: bytes, readings: list[_Reading]) -> Decoded | None:
    """UTF-16 without a mark: of ASCII text it is valid UTF-8 too, every second byte a NUL."""
    return _if_certain(raw, readings) if readings[0].encoding.startswith("utf_16") else None


def _if_certain(raw: bytes, readings: list[_Reading]) -> Decoded | None:
    best = readings[0]
    if best.foreign_bits > _MAX_BITS_PER_BYTE * best.foreign_bytes + _FREE_BITS:
        return None
    for other in readings[1:]:
        if other.bits - best.bits >= _MIN_MARGIN_BITS:
            break
        if other.text != best.text:
            return None
    found = _strictly(raw, best.encoding)
    return found if found and _plausible_throughout(found.text, best) else None


def _readings(raw: bytes) -> list[_Reading]:
    """The readings of the beginning of a text."""
    sample = raw[:_SAMPLE_BYTES]
    # UTF-16 without one ASCII character, not even a line end, is short.
    may_be_wide = b"\0" in sample or len(sample) < _MAX_BYTES_WITHOUT_ASCII
    found: list[_Reading] = []
    for encoding, names in _ENCODINGS.items():
        is_wide = encoding.startswith("utf_16")
        if is_wide and not may_be_wide:
            continue
        try:  # the last character of a sample may be cut
            decoder = codecs.getincrementaldecoder(encoding)()
            text = decoder.decode(sample, final=len(sample) == len(raw))
        except UnicodeError:
            continue
        counts = Counter(text)
        ascii_characters = sum(n for character, n in counts.items() if character.isascii())
        foreign = len(sample) - ascii_characters * (2 if is_wide else 1)
        for name in names:
            script = scripts()[name]
            bits = script.context_bits(text)
            bits += sum(n * script.bits(character) for character, n in counts.items())
            total = bits + _ASCII_BITS * ascii_characters
            found.append(_Reading(encoding, script, text, total, bits, foreign))
    return found


def _plausible_throughout(text: str, reading: _Reading) -> bool:
    """Whether no stretch of the text looks like another encoding than the rest."""
    usual = _USUAL * reading.foreign_bits / max(1, reading.foreign_bytes)
    for start in range(0, len(text), _WINDOW_CHARACTERS):
        piece = text[start : start + _WINDOW_CHARACTERS]
        if piece.isascii():
            continue
        raw = piece.encode(reading.encoding)
        foreign = len(raw) - sum(map(str.isascii, piece))
        bits = sum(map(reading.script.bits, piece)) + reading.script.context_bits(piece)
        if foreign < _MIN_WINDOW_BYTES or bits <= usual * foreign:
            continue
        if bits > _MAX_WINDOW_BITS_PER_BYTE * foreign:
            return False
        best = min(_readings(raw), key=lambda other: other.bits)
        total = bits + _ASCII_BITS * sum(map(str.isascii, piece))
        if best.text != piece and best.bits < total - _MIN_MARGIN_BITS:
            return False
    return True
