"""`tokenizer.json` and its configuration as Hugging Face libraries read them.

Not for training what the file holds nor for encoding with it (`tokenizer`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

# The split pattern of Qwen2 (2024): contractions, words with one leading mark, single digits,
# punctuation, line ends, spaces. Single digits let a small model do arithmetic by place.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
END_OF_TEXT = "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")
"""The end of a document, and the marks of a chat turn: in every tokenizer."""
BYTES = 256


def _byte_to_character() -> dict[int, str]:
    """GPT-2's map (Radford et al. 2019): a printable character for every byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {byte: chr(byte) for byte in plain}
    for offset, byte in enumerate(byte for byte in range(BYTES) if byte not in table):
        table[byte] = chr(BYTES + offset)
    return table


_BYTE_TO_CHARACTER = _byte_to_character()
_CHARACTER_TO_BYTE = {character: byte for byte, character in _BYTE_TO_CHARACTER.items()}


def printable(token: bytes) -> str:
    """The token as the file spells it: one printable character a byte."""
    return "".join(_BYTE_TO_CHARACTER[byte] for byte in token)


def bytes_of(spelled: str) -> bytes:
    """The bytes of a token as the file spells it.

    Raises:
        KeyError: A character stands for no byte: the vocabulary is not byte-level.
    """
    return bytes(_CHARACTER_TO_BYTE[character] for character in spelled)


def bpe_json(ids: Mapping[bytes, int], special: Mapping[str, int]) -> dict[str, Any]:
    """The file of a byte-level BPE.

    Args:
        ids: Token → id; the 256 bytes come first and the others in the order they were merged.
        special: Special token → id.
    """
    ordered = sorted(ids.items(), key=lambda item: item[1])
    return _file(
        special,
        {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {printable(token): index for token, index in ordered},
            "merges": _merges(ids),
        },
    )


def unigram_json(pieces: Sequence[tuple[str, float]], special: Mapping[str, int]) -> dict[str, Any]:
    """The file of a byte-level unigram model.

    Args:
        pieces: Spelled token and its log probability, in id order; every byte is among them, so
            that nothing is unknown.
        special: Special token → id.
    """
    model = {"type": "Unigram", "unk_id": None, "byte_fallback": False}
    return _file(special, {**model, "vocab": [[piece, score] for piece, score in pieces]})


ROLES = {
    "[PAD]": "pad_token", "[CLS]": "cls_token", "[SEP]": "sep_token", "[MASK]": "mask_token",
}  # fmt: skip
"""What BERT's special tokens are for, as transformers calls it."""


def config_json(special: Sequence[str]) -> dict[str, Any]:
    """`tokenizer_config.json`; the first special token ends a document, and pads a batch where no
    [PAD] is reserved."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": special[0],
        "pad_token": special[0],
        **{role: token for token, role in ROLES.items() if token in special},
        "additional_special_tokens": list(special[1:]),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,
    }


def pre_tokenizer_json() -> dict[str, Any]:
    """How text is cut into words and words into bytes, before any model sees them."""
    return {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": QWEN2_PATTERN},
                "behavior": "Isolated",
                "invert": False,
            },
            _BYTE_LEVEL,
        ],
    }


_BYTE_LEVEL = {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": False,
    "use_regex": False,
}


def _file(special: Mapping[str, int], model: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token, index in special.items()
        ],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer_json(),
        "post_processor": None,
        "decoder": _BYTE_LEVEL,
        "model": model,
    }


def _merges(ids: Mapping[bytes, int]) -> list[list[str]]:
    """The merge that makes each token, in order of id.

    A token's parts are what merging its own bytes with all earlier merges leaves: two pieces.
    """
    merges: list[list[str]] = []
    for token, rank in sorted(ids.items(), key=lambda item: item[1]):
        if len(token) == 1:
            continue
        pieces = [bytes([byte]) for byte in token]
        while len(pieces) > 2:
            made = [ids.get(a + b, rank) for a, b in pairwise(pieces)]
            best = made.index(min(made))
            pieces[best : best + 2] = [pieces[best] + pieces[best + 1]]
        merges.append([printable(piece) for piece in pieces])
    return merges
