"""Words in English and Chinese at once; the style sheet shows one. Not for what they are about.

Sentences with numbers in them are written in both languages where they are made (`both`). Fixed
words that stand in many places (axes, headings, titles of figures) have their Chinese in `phrases`.
"""

from __future__ import annotations

from isoflop.reporting.phrases import chinese_of
from isoflop.reporting.svg import text


def both(english: str, chinese: str) -> str:
    """A phrase, as markup, in both languages."""
    return f'<span class="en">{english}</span><span class="zh" lang="zh-Hans">{chinese}</span>'


def fixed(english: str) -> str:
    """A fixed phrase, as markup, in both languages where both are known."""
    chinese = chinese_of(english)
    return text(english) if chinese is None else both(text(english), text(chinese))
