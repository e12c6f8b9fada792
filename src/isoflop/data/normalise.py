"""One spelling for one text: NFC, Unix line ends, no control characters.

Not for judging whether the text is any good.
"""

from __future__ import annotations

import re
import unicodedata

# C0 and C1 controls but tab and newline; the byte-order mark; lone surrogates (JSON can hold
# them, UTF-8 cannot); non-characters that only ever come from damage.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff\ufffe\uffff]")
_LINE_ENDS = re.compile("\r\n?|\u2028|\u2029|\x85")


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
