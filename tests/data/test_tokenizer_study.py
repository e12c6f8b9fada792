from __future__ import annotations

from pathlib import Path

import pytest

from isoflop.core.errors import DataError
from isoflop.data.corpus import Corpus
from isoflop.data.tokenizer import Tokenizer, train
from isoflop.data.tokenizer_study import VocabularyStudy, compression, study

WIDTH, BODY = 64, 200_000


@pytest.fixture(scope="module")
def found(corpus: Corpus) -> VocabularyStudy:
    return study(corpus, (512, 320, 400), WIDTH, BODY)


def test_bytes_per_token_are_those_of_the_decoded_text(
    corpus: Corpus, tokenizer: Tokenizer
) -> None:
    rows = [row for group in corpus.documents("held_out") for row in group]
    measured = {part.language: part for part in compression(tokenizer, corpus)}
    assert set(measured) == {"all", "code", "en", "mixed"} | set(
        corpus.funnel["splits"]["held_out"]["languages"]
    )
    for language, part in measured.items():
        texts = [row["text"] for row in rows if language in ("all", row["language"])]
        assert part.text_bytes == sum(len(text.encode()) for text in texts)
        assert part.tokens == sum(len(tokenizer.encode(text)) for text in texts)
        assert part.bytes_per_token == part.text_bytes / part.tokens


def test_cut_merges_compress_as_a_training_at_that_size_does(
    found: VocabularyStudy, corpus: Corpus, tmp_path: Path
) -> None:
    assert [size.vocab_size for size in found.sizes] == [320, 400, 512]
    for size in found.sizes:
        alone = train(corpus, size.vocab_size, tmp_path / str(size.vocab_size))
        assert size.compression == compression(alone, corpus)


def test_costs_follow_their_formulas(found: VocabularyStudy, corpus: Corpus) -> None:
    for size in found.sizes:
        assert size.embedding_params == size.vocab_size * WIDTH
        assert size.embedding_share == size.embedding_params / (size.embedding_params + BODY)
        assert size.flops_per_token == 6 * (BODY + size.vocab_size * WIDTH)
        assert size.flops_per_byte == size.flops_per_token / size.compression[0].bytes_per_token
    untied = study(corpus, (320,), WIDTH, BODY, tied=False).sizes[0]
    assert untied.embedding_params == 2 * found.sizes[0].embedding_params
    assert untied.flops_per_byte == found.sizes[0].flops_per_byte


def test_a_wide_small_model_wants_fewer_words_than_a_deep_one(corpus: Corpus) -> None:
    wide = study(corpus, (320, 512), d_model=4096, body_params=1)
    deep = study(corpus, (320, 512), d_model=1, body_params=10**9)
    assert (wide.best.vocab_size, deep.best.vocab_size) == (320, 512)


def test_impossible_sizes_are_refused(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="every size must be at least 259"):
        study(corpus, (258, 300), WIDTH, BODY)
    with pytest.raises(DataError, match="Ask for a smaller vocabulary"):
        study(corpus, (300, 10**6), WIDTH, BODY)
