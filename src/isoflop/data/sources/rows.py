"""From a row of JSONL, Parquet or a dataset to a document; not for reading the rows."""

from __future__ import annotations

import json
from typing import Any

from isoflop.data.documents import Document
from isoflop.data.recipe import SourceConfig

_FIELDS = ("id", "url", "language")


def document_from_row(
    source: SourceConfig, identity: str, text: str, row: dict[str, Any], offset: int
) -> Document:
    """A document from a row whose known keys become fields and whose others become `meta`.

    Lone surrogates, which JSON can hold and UTF-8 cannot, become U+FFFD everywhere but in the
    text, where the corpus' spelling removes them.
    """
    own = {key: row.pop(key, None) for key in _FIELDS}
    meta: dict[str, object] = {**row, "offset": offset}
    if source.license and not meta.get("license"):
        meta["license"] = source.license
    return Document(
        id=_encodable(str(own["id"])) if own["id"] is not None else identity,
        text=text,
        source=source.label,
        language=_encodable(str(own["language"] or source.language)),
        url=_encodable(str(own["url"] or "")),
        meta=meta,
    )


def without_surrogates(row: dict[str, Any], text_key: str) -> dict[str, Any]:
    """The row with U+FFFD for the lone surrogates in all its keys and values but the text."""
    text = row.pop(text_key, None)
    clean: dict[str, Any] = json.loads(_encodable(json.dumps(row, ensure_ascii=False)))
    return {**clean, text_key: text}


def _encodable(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
