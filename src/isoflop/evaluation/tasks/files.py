"""Reading the files that tasks take, with errors that say what is wrong; not for what rows mean."""

from __future__ import annotations

import json
from pathlib import Path

from isoflop.core.errors import DataError


def read_text(file: Path) -> str:
    """All of a file, without a byte-order mark, its lines ended by `\\n`.

    Raises:
        DataError: It is not UTF-8.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the text is not UTF-8 ({error.reason} at byte {error.start:,})",
            where=str(file),
            fix="Save it as UTF-8",
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def reason(error: Exception) -> str:
    """Why a JSON row could not be read, in plain words."""
    if isinstance(error, json.JSONDecodeError):
        return f"no JSON: {error.msg.lower()} at column {error.colno}"
    if isinstance(error, KeyError):
        return f"no `{error.args[0]}`"
    return str(error) or type(error).__name__
