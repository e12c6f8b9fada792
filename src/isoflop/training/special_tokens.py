"""The special tokens that an objective needs of a tokenizer; not for adding them to one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isoflop.core.errors import DataError
from isoflop.data.tokenizer import Tokenizer

PAD, CLS, SEP, MASK = "[PAD]", "[CLS]", "[SEP]", "[MASK]"
"""BERT's names; [PAD] is also what T5's decoder begins with."""


def sentinel(number: int) -> str:
    """The name of T5's sentinels."""
    return f"<extra_id_{number}>"


def special_ids(tokenizer: Tokenizer, names: Sequence[str]) -> list[int]:
    """Ids of the special tokens.

    Raises:
        DataError: Some are missing; says how to get them.
    """
    missing = [name for name in names if name not in tokenizer.special_ids]
    if missing:
        asked = " ".join(f"'{name}'" for name in names)
        raise DataError(
            f"the tokenizer lacks the special tokens {', '.join(missing)}",
            where=str(tokenizer.directory),
            fix="Reserve them: `isoflop tokenizer train CORPUS --vocab-size N -o TOKENIZER "
            f"--reserve {asked}`, and tokenize anew",
        )
    return [tokenizer.special_ids[name] for name in names]


def written_out(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """The text of the ids with the special tokens by their names."""
    names = {index: name for name, index in tokenizer.special_ids.items()}
    pieces = (
        names[index].encode() if index in names else tokenizer.token_bytes[index] for index in ids
    )
    return b"".join(pieces).decode("utf-8", "replace")
