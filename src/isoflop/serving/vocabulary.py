"""What token ids show and spell, and texts as ids; not for conversations (`chat_template.py`)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from isoflop.core.artifact import read_json
from isoflop.data.tokenizer import Tokenizer


class Vocabulary:
    """A tokenizer as a server needs it.

    Args:
        tokenizer: The model's.
        vocab_size: Rows of the model, at least as many as the tokenizer has ids.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.tokenizer = tokenizer
        self.special_ids = tokenizer.special_ids
        self._special_text = {index: text for text, index in tokenizer.special_ids.items()}
        control = _control_tokens(tokenizer.directory / "tokenizer.json")
        self.bytes_of: list[bytes] = [*tokenizer.token_bytes]
        self.bytes_of += [b""] * (vocab_size - len(self.bytes_of))
        for text, index in tokenizer.special_ids.items():
            if text not in control:  # added to the vocabulary, yet part of texts: `</think>`
                self.bytes_of[index] = text.encode()
        longest_first = sorted(tokenizer.special_ids, key=len, reverse=True)
        self.special_pattern = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        """Finds special tokens by their names, the longest first."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Ids of a text.

        Args:
            special: Read `<|endoftext|>` and its kin as the tokens they name.
        """
        if not special:
            return self.tokenizer.encode(text)
        ids: list[int] = []
        after = 0
        for match in self.special_pattern.finditer(text):
            ids += self.tokenizer.encode(text[after : match.start()])
            ids.append(self.special_ids[match.group()])
            after = match.end()
        return ids + self.tokenizer.encode(text[after:])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids, special tokens by their names."""
        parts = (self._shown(index) for index in ids)
        return b"".join(parts).decode("utf-8", "replace")

    def spelled(self, index: int) -> str:
        """One token as a string: its text, or `bytes:\\x…` where that is no whole text."""
        try:
            return self._shown(index).decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in self._shown(index))

    def bytes_shown(self, index: int) -> bytes:
        """The bytes of a token, of a special one its name's."""
        return self._shown(index)

    def offsets(self, ids: Sequence[int], start: int = 0) -> list[int]:
        """Where in the text of the ids each begins, in characters; `start` is the first's."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        out = []
        for index in ids:
            out.append(start)
            start += len(decoder.decode(self._shown(index)))
        return out

    def _shown(self, index: int) -> bytes:
        special = self._special_text.get(index)
        return self.bytes_of[index] if special is None else special.encode()


def _control_tokens(path: Path) -> set[str]:
    """The added tokens that are marks and never text."""
    added = read_json(path)["added_tokens"]
    return {token["content"] for token in added if token.get("special", True)}
