from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from isoflop.core.errors import ArtifactError, DataError, RecipeError
from isoflop.data import perplexity
from isoflop.data.annotate import annotate
from isoflop.data.clean_recipe import CleanConfig, PerplexityConfig
from isoflop.data.corpus import Corpus, build
from isoflop.data.perplexity import Limits, Scorer, Trained
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.tokenizer import Tokenizer
from isoflop.data.why import why
from isoflop.models import ngram


@pytest.fixture(scope="module")
def trained(
    corpus: Corpus, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    out = tmp_path_factory.mktemp("filter") / "model"
    return perplexity.train(corpus, tokenizer.directory, out, order=3)


def held_out_texts(corpus: Corpus, language: str) -> list[str]:
    return [
        row["text"]
        for rows in corpus.documents("held_out")
        for row in rows
        if row["language"] == language
    ]


def shuffled(text: str) -> str:
    words = text.split()
    random.Random(0).shuffle(words)
    return " ".join(words)


def test_the_score_is_the_perplexity_of_the_tokens_and_the_end(
    trained: Trained, tokenizer: Tokenizer
) -> None:
    model = ngram.load(trained.directory)
    ids = [*tokenizer.encode("Lisa has 12 apples.\n"), tokenizer.eos_id]
    expected = math.prod(math.exp(p) for p in model.logprobs(ids)) ** (-1 / len(ids))
    assert Scorer(trained.directory)("Lisa has 12 apples.\n", "en") == pytest.approx(expected)


def test_shuffled_words_are_more_perplexing_than_the_text(trained: Trained, corpus: Corpus) -> None:
    score = Scorer(trained.directory)
    texts = [text for text in held_out_texts(corpus, "en") if len(text.split()) > 15]
    assert len(texts) >= 8
    worse = [score(shuffled(text), "en") > score(text, "en") for text in texts]
    assert np.mean(worse) == 1.0


def test_what_was_learned_is_all_of_the_training_split(trained: Trained, corpus: Corpus) -> None:
    rows = [row for rows in corpus.documents("train") for row in rows]
    assert trained.documents == len(rows)
    assert trained.tokens == ngram.load(trained.directory).tokens


def test_a_cap_takes_about_its_share_of_the_text(
    corpus: Corpus, tokenizer: Tokenizer, trained: Trained, tmp_path: Path
) -> None:
    quarter = corpus.split_bytes("train") // 4
    part = perplexity.train(corpus, tokenizer.directory, tmp_path / "m", order=1, max_bytes=quarter)
    largest = max(len(r["text"].encode()) for rows in corpus.documents("train") for r in rows)
    slack = largest / corpus.split_bytes("train")
    assert part.tokens / trained.tokens == pytest.approx(0.25, abs=0.05 + slack)
    assert 1 < part.documents < trained.documents


def test_languages_the_model_never_saw_are_not_judged(trained: Trained) -> None:
    score = Scorer(trained.directory)
    assert score("Bonjour le monde", "fr") is None
    assert score("some text", "en-GB") is not None


@pytest.mark.parametrize(("keep", "share"), [("head", 1 / 3), ("middle", 2 / 3), (0.8, 0.8)])
def test_keep_lets_pass_that_share_of_the_reference_documents(
    trained: Trained, corpus: Corpus, keep: str | float, share: float
) -> None:
    score = Scorer(trained.directory)
    texts = [row for rows in corpus.documents("held_out") for row in rows]
    values = [score(row["text"], row["language"]) for row in texts]
    limit = Limits(PerplexityConfig(trained.directory, keep=keep))("fr")
    assert np.mean([v <= limit for v in values]) == pytest.approx(share, abs=0.02)


def test_a_fixed_limit_is_the_same_for_all_languages_and_none_is_none(trained: Trained) -> None:
    limits = Limits(PerplexityConfig(trained.directory, max=55.5))
    assert limits("en") == limits("zh-Hans") == 55.5
    assert Limits(PerplexityConfig())("en") == math.inf


@pytest.mark.parametrize(
    "given",
    [
        {"model": Path("m")},
        {"max": 20.0},
        {"model": Path("m"), "max": 20.0, "keep": 0.5},
        {"model": Path("m"), "max": 1.0},
        {"model": Path("m"), "keep": 1.0},
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        PerplexityConfig(**given)  # type: ignore[arg-type]


@pytest.fixture
def noisy(tmp_path: Path, corpus: Corpus, trained: Trained) -> DataRecipe:
    """Held-out English documents as they are and, planted, with their words shuffled."""
    texts = [t for t in held_out_texts(corpus, "en") if len(t.split()) > 15]
    rows = [{"id": f"good{i}", "text": t, "language": "en"} for i, t in enumerate(texts)]
    rows += [{"id": f"bad{i}", "text": shuffled(t), "language": "en"} for i, t in enumerate(texts)]
    rows += [{"id": "french", "text": "Bonjour le monde, ça va ?", "language": "fr"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    score = Scorer(trained.directory)
    between = max(score(t, "en") or 0 for t in texts) * 1.01
    return DataRecipe(
        (SourceConfig("jsonl", path=path),),
        held_out_fraction=0.3,
        clean=CleanConfig(perplexity=PerplexityConfig(trained.directory, max=between)),
    )


def test_a_build_drops_the_perplexing_and_stores_the_signal(
    tmp_path: Path, noisy: DataRecipe, trained: Trained
) -> None:
    made = build(noisy, tmp_path / "corpus")
    signals = pq.read_table(tmp_path / "corpus" / "signals.parquet").to_pylist()
    dropped = {row["id"] for row in signals if row["reason"] == "perplexity.high"}
    good = {row["id"] for row in signals if row["id"].startswith("good")}
    assert not dropped & good
    assert len(dropped) > 0.9 * len(good)
    assert made.funnel["dropped"]["perplexity.high"]["documents"] == len(dropped)
    by_id = {row["id"]: row for row in signals}
    assert math.isnan(by_id["french"]["perplexity"])
    assert by_id["french"]["reason"] == ""
    assert by_id["good0"]["perplexity"] > 1
    assert trained.directory.name in (tmp_path / "corpus" / "config.json").read_text()
    assert str(trained.directory) not in (tmp_path / "corpus" / "config.json").read_text()


@pytest.mark.parametrize("keep", [None, 0.8])
def test_why_shows_what_another_limit_would_drop(
    tmp_path: Path, noisy: DataRecipe, keep: float | None
) -> None:
    config = noisy.clean.perplexity
    if keep is not None:
        config = PerplexityConfig(config.model, keep=keep)
    clean = CleanConfig(perplexity=config)
    build(DataRecipe(noisy.sources, 0.3, 0, clean), tmp_path / "corpus")
    signals = pq.read_table(tmp_path / "corpus" / "signals.parquet").to_pylist()
    english = [row for row in signals if row["language"] == "en"]
    dropped = [row["perplexity"] for row in english if row["reason"] == "perplexity.high"]
    kept = [row["perplexity"] for row in english if row["reason"] == ""]
    middle = sorted(kept)[len(kept) // 2]
    [account] = why(tmp_path / "corpus", "perplexity.high", middle).accounts
    assert account.in_force
    assert max(kept) <= account.threshold < min(dropped)
    assert account.failing == account.dropped == len(dropped)
    assert account.alternatives[0].lost == sum(value > middle for value in kept)


def test_stored_annotations_decide_alike_and_belong_to_their_model(
    tmp_path: Path, noisy: DataRecipe, corpus: Corpus, tokenizer: Tokenizer
) -> None:
    direct = build(noisy, tmp_path / "direct")
    annotate(noisy, tmp_path / "annotations")
    later = build(noisy, tmp_path / "later", annotations=tmp_path / "annotations")
    assert direct.funnel == later.funnel
    perplexity.train(corpus, tokenizer.directory, tmp_path / "other", order=2)
    other = CleanConfig(perplexity=PerplexityConfig(tmp_path / "other", max=9.0))
    changed = DataRecipe(noisy.sources, noisy.held_out_fraction, noisy.seed, other)
    with pytest.raises(DataError, match=r"clean\.perplexity"):
        build(changed, tmp_path / "no", annotations=tmp_path / "annotations")


@pytest.mark.parametrize("harm", ["{", '{"languages": ["en"], "quantiles": {"all": [3, 2]}}', "{}"])
def test_a_model_without_sound_cutoffs_is_refused(
    trained: Trained, tmp_path: Path, harm: str
) -> None:
    shutil.copytree(trained.directory, tmp_path, dirs_exist_ok=True)
    (tmp_path / "cutoffs.json").write_text(harm)
    with pytest.raises(ArtifactError, match=r"cutoffs\.json"):
        Scorer(tmp_path)
    with pytest.raises(ArtifactError, match=r"cutoffs\.json"):
        Limits(PerplexityConfig(tmp_path, keep="head"))
