"""Reads trees of HTML files, and turns any page into a document; not for crawls (`warc`)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from isoflop.data.documents import Document, InputSplit, Skipped
from isoflop.data.html_text import BrokenPage, Extractor, decode_page, licence_of_page
from isoflop.data.recipe import SourceConfig
from isoflop.data.sources.files import find_files, whole
from isoflop.data.sources.text import read_whole, source_meta, unknown_encoding

ENDINGS = (".html", ".htm", ".xhtml")


def plan(source: SourceConfig, seed: int) -> list[InputSplit]:
    """One split a file."""
    extractor_for(source)  # its package must be there before the work starts
    return whole(find_files(source, ENDINGS), seed)


def read(source: SourceConfig, split: InputSplit) -> Iterator[Document | Skipped]:
    """The main text of a file as one document."""
    raw = read_whole(source, split)
    yield raw if isinstance(raw, Skipped) else page_document(source, split.identity, raw)


def page_document(
    source: SourceConfig,
    identity: str,
    raw: bytes,
    url: str = "",
    charset: str | None = None,
    offset: int | None = None,
) -> Document | Skipped:
    """The main text of a page.

    Args:
        identity: Of the file; a document at an offset is called `identity@offset`.
        charset: What the HTTP header says of the encoding.
    """
    name = identity if offset is None else f"{identity}@{offset}"
    found = decode_page(raw, charset)
    if found is None:
        return unknown_encoding(identity, raw, offset)
    try:
        text = extractor_for(source)(found.text)
    except BrokenPage as problem:
        return Skipped(identity, "broken HTML", len(raw), None, True, problem.what, offset)
    if not text:
        return Skipped(identity, "no main text in the page", len(raw), offset=offset)
    meta = source_meta(source)
    if licence := licence_of_page(found.text):
        meta["license"] = licence
    if found.encoding != "utf-8":
        meta["encoding"] = found.encoding
    if offset is not None:
        meta["offset"] = offset
    return Document(name, text, source.label, source.language, url, meta)


def extractor_for(source: SourceConfig) -> Extractor:
    """The extractor of a source, made once a process."""
    return _extractor(source.extraction)


_extractor = lru_cache(maxsize=None)(Extractor)
