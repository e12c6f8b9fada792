"""More tokens for a vocabulary that exists, learned from new text; old ids stay as they are.

Chinese for an English vocabulary, say, without making the old shards and embeddings worthless.
Not for training one from nothing (`tokenizer`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import tokenizers

from isoflop.core.artifact import read_json
from isoflop.core.console import SILENT, Progress
from isoflop.core.errors import DataError
from isoflop.data.corpus import Corpus
from isoflop.data.tokenizer import (
    Tokenizer,
    artifact_or_file,
    load,
    pre_tokenizer,
    sample,
    write_tokenizer,
)
from isoflop.data.tokenizer_file import bpe_json, bytes_of

_SAMPLE_BYTES = 16_000_000
_WORDS_A_TEXT = 1000
# The first and one past the last of the code points that no text may hold.
_SURROGATES = (0xD800, 0xE000)
_FIRST_CHARACTER = 0x100


def extend(
    base: Path, corpus: Corpus, n_added: int, out: Path, progress: Progress = SILENT
) -> Tokenizer:
    """Continue the merges of a byte-level BPE on the training split of a corpus.

    New ids follow the last old one, special tokens included, so that every old id keeps its
    meaning; text that held the new tokens is said in fewer ids than before.

    Args:
        base: The tokenizer directory to extend.
        n_added: Tokens to add.

    Raises:
        ArtifactError: `base` is missing or damaged.
        DataError: `base` is not a BPE as `train` writes it, or the text does not give as many.
    """
    tokenizer = load(base)
    if tokenizer.backend != "tiktoken":
        raise DataError(
            "only a byte-level BPE with the split pattern of Qwen2 can be extended",
            where=str(base / "tokenizer.json"),
            fix="Train one with `isoflop tokenizer train`",
        )
    if n_added < 1:
        raise DataError(f"{n_added} tokens cannot be added", where="--add", fix="Ask for some")
    words = _words(tokenizer, corpus, progress)
    merged = _continue_merges(words, n_added)
    new = list(dict.fromkeys(b"".join(tokenizer.token_bytes[_id(c)] for c in m) for m in merged))
    if len(new) < n_added:
        raise DataError(
            f"the text gives only {len(new)} more tokens, not {n_added}",
            where=str(corpus.directory),
            fix="Ask for fewer with --add, or extend on more text",
        )
    ids = {
        bytes_of(token): index
        for token, index in read_json(base / "tokenizer.json")["model"]["vocab"].items()
    }
    ids |= {token: tokenizer.vocab_size + place for place, token in enumerate(new)}
    config = {"vocab_size": tokenizer.vocab_size + n_added, "model": "bpe", "added": n_added}
    content = bpe_json(ids, tokenizer.special_ids)
    write_tokenizer(out, content, config, [artifact_or_file(base), corpus.directory])
    progress.finish(f"vocabulary of {tokenizer.vocab_size + n_added:,}")
    return load(out)


def _words(tokenizer: Tokenizer, corpus: Corpus, progress: Progress) -> Counter[str]:
    """How often each word of more than one token occurs, spelled with a character a token."""
    size = min(_SAMPLE_BYTES, corpus.split_bytes("train"))
    progress.start("tokenizer extend", size / 1e6, "MB")
    split = pre_tokenizer()[0]
    words: Counter[str] = Counter()
    for row in sample(corpus, "train", _SAMPLE_BYTES, progress):
        words.update(word for word, _ in split.pre_tokenize_str(row["text"]))
    spelled: Counter[str] = Counter()
    for word, count in words.items():
        found = tokenizer.encode(word)
        if len(found) > 1:
            spelled["".join(map(_character, found))] += count
    return spelled


def _continue_merges(words: Counter[str], n_added: int) -> list[str]:
    """What each further merge makes, spelled with a character for each old token.

    To the trainer the old tokens are an alphabet: it then merges them as it would have gone on.
    """
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=len(set().union(*words)) + n_added, show_progress=False
    )
    whole = tokenizers.Tokenizer(tokenizers.models.BPE())
    whole.pre_tokenizer = tokenizers.pre_tokenizers.CharDelimiterSplit(" ")
    whole.train_from_iterator(_repeated(words), trainer)
    return ["".join(merge) for merge in json.loads(whole.to_str())["model"]["merges"]]


def _repeated(words: Counter[str]) -> Iterator[str]:
    for word, count in words.items():
        for start in range(0, count, _WORDS_A_TEXT):
            yield " ".join([word] * min(_WORDS_A_TEXT, count - start))


def _character(index: int) -> str:
    """A character of its own for every id; not a space."""
    code = _FIRST_CHARACTER + index
    return chr(code if code < _SURROGATES[0] else code + _SURROGATES[1] - _SURROGATES[0])


def _id(character: str) -> int:
    code = ord(character)
    if code >= _SURROGATES[1]:
        code -= _SURROGATES[1] - _SURROGATES[0]
    return code - _FIRST_CHARACTER
