"""The main text of a web page, and the licence it names. Not for judging whether it is any good."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate
from typing import Literal

from isoflop.core.errors import IsoflopError
from isoflop.data.encodings import Decoded, decode
from isoflop.data.extras import require
from isoflop.data.licences import licence_of_url

# Browsers look for the charset in the first kilobyte; real pages put it somewhat later.
_HEAD_BYTES = 4096
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{2,40})", re.I)
_XML_ENCODING = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([A-Za-z0-9_.:-]{2,40})")
_RIGHTS = re.compile(
    r"<(?:a|link)\b[^>]{0,500}?\brel\s*=\s*[\"']?[^\"'>]{0,50}?\blicense\b[^>]{0,500}?>", re.I
)
_ADDRESS = re.compile(r"\bhref\s*=\s*[\"']?([^\"'\s>]{8,300})", re.I)

_MAX_SEARCHED = 1_000_000
MAX_DEPTH = 512
"""Browsers flatten what is nested deeper; the time to read it grows with the square of it."""
# Counting depth takes as long as reading the page; pages with fewer tags are harmless.
_MIN_TAGS = 4_000
MAX_ATTRIBUTES = 2_000
MAX_CAREFUL_ELEMENTS = 20_000
_MIN_LONG_TAG = 4 * MAX_ATTRIBUTES
_LONG_TAG = re.compile(rf"<[^>]{{{_MIN_LONG_TAG}}}")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_HIDDEN = re.compile(r"<!--|-->|<(/?)(script|style|textarea)\b", re.I)
# Elements without content, and those whose end tag may be left out: they do not pile up.
_TAG = re.compile(
    r"<(/?)(?!(?:area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr|p|li|dt|dd|td"
    r"|th|tr|thead|tbody|tfoot|option|optgroup|colgroup|body|html|head)\b)[a-zA-Z]",
    re.I,
)
_BLANK_LINES = re.compile(r"\n{3,}")


class BrokenPage(IsoflopError):
    """A page that is too strange to be read; the message is the reason."""


def decode_page(raw: bytes, charset: str | None = None) -> Decoded | None:
    """The markup that bytes hold, by mark, UTF-8, HTTP header, `<meta>` and statistics, in order.

    Args:
        charset: What the HTTP header says.
    """
    head = raw[:_HEAD_BYTES]
    found = _CHARSET.search(head) or _XML_ENCODING.search(head)
    return decode(raw, charset or (found.group(1).decode("ascii") if found else None))


class Extractor:
    """Takes the main text out of HTML.

    Args:
        mode: `fast` is resiliparse; `careful` is trafilatura, some ten times slower.

    Raises:
        RecipeError: The package is not installed.
    """

    def __init__(self, mode: Literal["fast", "careful"]) -> None:
        self._careful = mode == "careful"
        self._extract = _careful() if self._careful else _fast()

    def __call__(self, html: str) -> str:
        """The main text, paragraphs on lines of their own; "" where there is none.

        Raises:
            BrokenPage: The page is nested too deeply or its elements are out of all proportion.
        """
        _check(html, self._careful)
        return _BLANK_LINES.sub("\n\n", self._extract(html)).strip()


def licence_of_page(html: str) -> str | None:
    """The licence that a page links to as its own (`rel="license"`), as an SPDX name."""
    for tag in _RIGHTS.finditer(html[:_MAX_SEARCHED]):
        address = _ADDRESS.search(tag.group())
        if address and (name := licence_of_url(address.group(1))):
            return name
    return None


def _fast() -> Callable[[str], str]:
    module = require("resiliparse.extract.html2text", 'extraction = "fast"', "text")
    extract = module.extract_plain_text
    return lambda html: str(
        extract(html, preserve_formatting=True, main_content=True, comments=False)
    )


def _careful() -> Callable[[str], str]:
    module = require("trafilatura", 'extraction = "careful"', "text")
    return lambda html: module.extract(html, include_comments=False, deduplicate=False) or ""


def _check(html: str, careful: bool) -> None:
    tags = html.count("<")
    if tags > _MIN_TAGS and _depth(html) > MAX_DEPTH and _depth(_visible(html)) > MAX_DEPTH:
        raise BrokenPage(f"elements nested more than {MAX_DEPTH} deep")
    if careful and tags > MAX_CAREFUL_ELEMENTS:
        raise BrokenPage(f"more than {MAX_CAREFUL_ELEMENTS:,} elements, too many to read carefully")
    if _LONG_TAG.search(html):
        for piece in html.split(">"):
            tag = piece[piece.find("<") :] if len(piece) > _MIN_LONG_TAG and "<" in piece else ""
            if len(_QUOTED.sub('""', tag).split()) > MAX_ATTRIBUTES:
                raise BrokenPage(f"an element with more than {MAX_ATTRIBUTES:,} attributes")


def _depth(html: str) -> int:
    """How deep elements are nested at most, by their tags alone."""
    steps = (-1 if slash else 1 for slash in _TAG.findall(html))
    return max(accumulate(steps, lambda depth, step: max(0, depth + step), initial=0))


def _visible(html: str) -> str:
    """Without comments and scripts, whose text may look like elements."""
    kept: list[str] = []
    place = 0
    closing = ""
    for found in _HIDDEN.finditer(html):
        slash, name = found.groups()
        edge = f"{slash}{name.lower()}" if name else found.group()
        if not closing and edge != "-->" and not slash:
            kept.append(html[place : found.start()])
            closing = f"/{edge}" if name else "-->"
        elif edge == closing:
            closing, place = "", found.end()
    return "".join(kept) + (html[place:] if not closing else "")
