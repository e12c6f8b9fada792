"""One spelling for one text: Unicode form, line ends, widths, Chinese marks, repaired encodings.

Not for judging whether the text is any good.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from isoflop.core.errors import RecipeError
from isoflop.data.boilerplate import without_boilerplate
from isoflop.data.clean_recipe import SpellingConfig

# C0 and C1 controls but tab and newline; the byte-order mark; lone surrogates (JSON can hold
# them, UTF-8 cannot); non-characters that only ever come from damage.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff\ufffe\uffff]")
_LINE_ENDS = re.compile("\r\n?|\u2028|\u2029|\x85")

# Soft hyphen, zero-width space, direction marks and isolates, word joiner and invisible signs.
# The joiners U+200C and U+200D spell words in Persian and Hindi and build emoji: they go only
# beside ASCII, ideographs or space.
_INVISIBLE = re.compile(
    "[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f]"
    "|(?<![^\x00-\x7f\u3400-\u9fff])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\u3400-\u9fff])"
)
_HALF_KANA = re.compile("[\uff65-\uff9f]+")
# Letters, digits and the signs that do not serve as Chinese punctuation; and the wide space.
_FULL_TO_ASCII = {
    0xFF00 + low: chr(0x20 + low)
    for low in range(1, 0x5F)
    if chr(0x20 + low).isalnum() or chr(0x20 + low) in "#$%&*+-/<=>@\\^_`{|}"
} | {0x3000: " "}
_CHINESE_MARKS = {
    ",": "，", ";": "；", ":": "：", "?": "？", "!": "！", "(": "（", ")": "）", ".": "。",
}  # fmt: skip
_IDEOGRAPH = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af"
# A mark after an ideograph (or a closing mark of it); a stop or colon only where no figure, word
# or path follows. An opening bracket belongs to the ideograph after it.
_ASCII_MARK = re.compile(
    rf"(?<=[{_IDEOGRAPH}”’」』）》])(?:[,;?!)]|[.:](?![A-Za-z0-9_./\\]))[^\S\n]?(?=\s|$|.)"
    rf"|\((?=[{_IDEOGRAPH}])|(?<=[{_IDEOGRAPH}])\("
)


def normalise(text: str) -> str:
    """The canonical spelling of a text, or "" when nothing visible is left of it.

    Line ends become newlines, control characters and lone surrogates go, the rest is put in
    Unicode normal form C (UAX #15), blank lines around the text go, and one newline ends it.
    Applying it twice changes nothing.
    """
    # Removal comes before NFC: taking a control character out from between a letter and its
    # accent would otherwise leave a pair that NFC composes.
    text = _UNWANTED.sub("", _LINE_ENDS.sub("\n", text))
    text = unicodedata.normalize("NFC", text).rstrip()
    first = len(text) - len(text.lstrip())
    # Leading blank lines go, the indentation of the first line stays.
    text = text[text.rfind("\n", 0, first) + 1 :]
    return text + "\n" if text else ""


class Normaliser:
    """Spells texts as a recipe asks, and always as `normalise` does.

    Raises:
        RecipeError: A package that the recipe's switches need is not installed.
    """

    def __init__(self, config: SpellingConfig) -> None:
        self._steps: list[Callable[[str], str]] = []
        if config.mojibake:
            self._steps.append(_mojibake_repair())
        if config.invisible:
            self._steps.append(lambda text: _INVISIBLE.sub("", text))
        if config.form == "nfkc":
            self._steps.append(lambda text: unicodedata.normalize("NFKC", text))
        if config.width:
            self._steps.append(fold_width)
        if config.chinese != "keep":
            self._steps.append(_chinese_converter(config.chinese))
        if config.punctuation:
            self._steps.append(chinese_punctuation)
        if config.boilerplate:
            self._steps.append(without_boilerplate)

    def __call__(self, text: str) -> str:
        """The text in the recipe's spelling, or "" when nothing visible is left of it."""
        # Twice: the steps want Unix line ends and no controls, and may leave blank edges.
        text = normalise(text)
        for step in self._steps:
            text = step(text)
        return normalise(text) if self._steps else text


def fold_width(text: str) -> str:
    """Full-width letters, digits and signs as ASCII, half-width kana as full-width ones.

    Full-width commas, stops, brackets, question and exclamation marks stay: they are the Chinese
    ones.
    """
    if text.isascii():
        return text
    text = _HALF_KANA.sub(lambda match: unicodedata.normalize("NFKC", match.group()), text)
    return text.translate(_FULL_TO_ASCII)


def chinese_punctuation(text: str) -> str:
    """ASCII marks beside ideographs as full-width ones; figures and Latin words keep theirs."""
    if text.isascii():
        return text
    for _ in range(2):  # the mark after a bracket is seen once the bracket is a Chinese one
        text = _ASCII_MARK.sub(lambda match: _CHINESE_MARKS[match.group().rstrip()], text)
    return text


def _mojibake_repair() -> Callable[[str], str]:
    ftfy = _optional("ftfy", "spelling.mojibake = true", "ftfy")
    config = ftfy.TextFixerConfig(
        # The encoding alone: the rest is this module's business, by its own switches.
        unescape_html=False, remove_terminal_escapes=False, fix_latin_ligatures=False,
        fix_character_width=False, uncurl_quotes=False, fix_line_breaks=False,
        remove_control_chars=False, normalization=None, explain=False,
    )  # fmt: skip
    return lambda text: text if text.isascii() else str(ftfy.fix_text(text, config))


def _chinese_converter(script: str) -> Callable[[str], str]:
    opencc = _optional("opencc", f'spelling.chinese = "{script}"', "opencc")
    converter = opencc.OpenCC("t2s" if script == "simplified" else "s2t")
    return lambda text: text if text.isascii() else str(converter.convert(text))


def _optional(module: str, switch: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise RecipeError(
            f"`{switch}` needs the package {module}, which is not installed",
            where="[clean]",
            fix=f"Install it with `pip install {package}`, or leave the switch out",
        ) from None
