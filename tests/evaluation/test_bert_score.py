"""BERTScore by hand, and by a tiny encoder; the task that uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from isoflop.core.errors import ArtifactError, DataError
from isoflop.data.tokenizer import Tokenizer
from isoflop.evaluation.bert_score import bert_score, open_encoder
from isoflop.evaluation.evaluate import evaluate
from isoflop.evaluation.overlap import bleu, chrf
from isoflop.models.build import build_model
from isoflop.models.config import EncoderConfig
from isoflop.models.convert import save_model
from isoflop.models.initialise import initialise

PLANE = {
    "a": [1.0, 0.0], "b": [0.0, 2.0], "c": [3.0, 3.0], "d": [0.6, 0.8],
}  # fmt: skip
"""Letters as vectors whose cosines are known."""


def by_letters(text: str) -> torch.Tensor:
    return torch.tensor([PLANE[c] for c in text]).reshape(-1, 2)


def test_the_score_is_that_computed_by_hand() -> None:
    # cos: a·c = b·c = √½, a·d = 0.6, b·d = 0.8, c·d = 1.4·√½
    half = 0.5**0.5
    (found,) = bert_score(["ab"], [["cd"]], by_letters)
    assert found.precision == pytest.approx((half + 0.8) / 2)
    assert found.recall == pytest.approx((half + 0.8) / 2)
    (found,) = bert_score(["a"], [["cd"]], by_letters)
    assert found.precision == pytest.approx(half)
    assert found.recall == pytest.approx((half + 0.6) / 2)
    p, r = half, (half + 0.6) / 2
    assert found.f1 == pytest.approx(2 * p * r / (p + r))


def test_the_best_reference_counts_and_the_same_text_scores_one() -> None:
    (found,) = bert_score(["dab"], [["c", "bad"]], by_letters)
    assert found.f1 == pytest.approx(1)


def test_an_empty_text_scores_nothing_and_one_without_reference_is_refused() -> None:
    assert bert_score([""], [["ab"]], by_letters)[0].f1 == 0
    with pytest.raises(DataError):
        bert_score(["a"], [[]], by_letters)


@pytest.fixture(scope="module")
def encoder(codec: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = build_model(
        EncoderConfig(codec.vocab_size, d_model=32, n_layers=2, n_heads=2, d_ff=64, max_seq_len=24)
    )
    initialise(model, 3)
    out = tmp_path_factory.mktemp("encoder") / "model"
    save_model(model, out, codec.directory)
    return out


def test_states_are_the_encoders_own_and_long_texts_are_cut(
    encoder: Path, codec: Tokenizer
) -> None:
    states = open_encoder(encoder)
    short = states("Tom has 3 apples.")
    assert short.shape == (len(codec.encode("Tom has 3 apples.")), 32)
    assert len(states("Tom has 3 apples. " * 40)) == 24
    assert len(states("")) == 0
    same, other = bert_score(["Tom has 3 apples."] * 2, [["Tom has 3 apples."], ["小红"]], states)
    assert same.f1 == pytest.approx(1, abs=1e-6)
    assert other.f1 < 0.999


def test_a_decoder_is_no_encoder(model_directory: Path) -> None:
    with pytest.raises(ArtifactError, match="no encoder"):
        open_encoder(model_directory)


def test_texts_are_scored_beside_their_references(
    model_directory: Path, encoder: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": "Tom has", "references": ["3 apples.", "three apples"]},
            {"prompt": "Question: 1 + 1", "reference": "2"}]  # fmt: skip
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = evaluate(model_directory, [f"texts={path}"], tmp_path / "out", encoder=encoder)
    result = found.results["texts:asked"]
    items = [
        json.loads(line) for line in (tmp_path / "out" / "items.jsonl").read_text().splitlines()
    ]
    texts = [item["detail"]["text"] for item in items]
    references = [row.get("references") or [row["reference"]] for row in rows]
    wanted = [chrf([t], [r]) / 100 for t, r in zip(texts, references, strict=True)]
    assert result.scored.score == pytest.approx(sum(wanted) / 2)
    assert result.extra["bleu"] == pytest.approx(bleu(texts, references))
    assert -1 <= result.extra["bert_f1"] <= 1


def test_a_row_without_reference_is_named(model_directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "a", "reference": "b"}\n{"prompt": "c"}\n')
    with pytest.raises(DataError) as caught:
        evaluate(model_directory, [f"texts={path}"])
    assert caught.value.where == f"{path}:2"
