"""A tiny model with a real tokenizer: merges across words in English and Chinese."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import rustbpe
import torch

from isoflop.data import tokenizer
from isoflop.data.tokenizer import Tokenizer, write_tokenizer
from isoflop.data.tokenizer_file import QWEN2_PATTERN, bpe_json
from isoflop.data.word_problems import word_problem
from isoflop.evaluation.likelihood import Subject
from isoflop.models.build import build_model
from isoflop.models.config import DecoderConfig
from isoflop.models.convert import save_model
from isoflop.models.decoder import Decoder
from isoflop.models.initialise import initialise

WINDOW = 64


@pytest.fixture(scope="session")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A BPE of 400 tokens trained on the word problems."""
    trainer = rustbpe.Tokenizer()
    texts = (word_problem(0, i)[0] for i in range(400))
    trainer.train_from_iterator(texts, vocab_size=399, pattern=QWEN2_PATTERN)
    ids = {bytes(token): rank for token, rank in trainer.get_mergeable_ranks()}
    folder = tmp_path_factory.mktemp("codec") / "tokenizer"
    write_tokenizer(folder, bpe_json(ids, {"<|endoftext|>": len(ids)}), {}, [])
    return tokenizer.load(folder)


def make_decoder(vocab_size: int, **changes: object) -> Decoder:
    """A decoder of random weights, large enough that its beliefs differ."""
    sizes: dict[str, object] = {
        "vocab_size": vocab_size, "d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
        "head_dim": 8, "d_ff": 48, "max_seq_len": WINDOW,
    }  # fmt: skip
    model = build_model(DecoderConfig(**{**sizes, **changes}))  # type: ignore[arg-type]
    initialise(model, 0)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn(weights.shape, generator=draw), alpha=0.15)
    assert isinstance(model, Decoder)
    return model.eval()


@pytest.fixture(scope="session")
def subject(codec: Tokenizer) -> Subject:
    """The tiny model, to be asked."""
    return Subject(make_decoder(codec.vocab_size), codec, codec.eos_id)


@pytest.fixture(scope="session")
def subject_of(codec: Tokenizer) -> Callable[..., Subject]:
    """`subject_of(window=5)`: tiny models of other forms."""

    def make(**changes: object) -> Subject:
        return Subject(make_decoder(codec.vocab_size, **changes), codec, codec.eos_id)

    return make


@pytest.fixture(scope="session")
def model_directory(
    subject: Subject, codec: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model as a directory."""
    out = tmp_path_factory.mktemp("model") / "model"
    save_model(subject.decoder, out, codec.directory)
    return out
