from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from isoflop.core.errors import ArtifactError, DataError, RecipeError
from isoflop.data.clean_recipe import ClassifierConfig, CleanConfig
from isoflop.data.corpus import build
from isoflop.data.labelled import Example
from isoflop.data.quality_classifier import Trained, load, measure, train
from isoflop.data.recipe import DataRecipe, SourceConfig

WORDS = [f"w{i}" for i in range(300)]
IDEOGRAPHS = [chr(0x4E00 + 7 * i) for i in range(300)]


def document(rng: np.random.Generator, good: bool, words: list[str], length: int = 40) -> str:
    """Words of which the good lean to the first half of the list, the bad to the other."""
    half = len(words) // 2
    first = rng.random(length) < (0.62 if good else 0.38)
    drawn = rng.integers(0, half, length) + np.where(first, 0, half)
    gap = "" if words is IDEOGRAPHS else " "
    return gap.join(words[i] for i in drawn)


def examples(seed: int, n: int, words: list[str] = WORDS) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [
        Example(document(rng, good, words), good) for good in (True, False) for _ in range(n // 2)
    ]


def best_auc(seed: int) -> float:
    """Of the best possible score: how many words are of the first half."""
    rng = np.random.default_rng(seed)
    good, bad = rng.binomial(40, 0.62, 200_000), rng.binomial(40, 0.38, 200_000)
    return float((good > bad).mean() + 0.5 * (good == bad).mean())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(examples(0, 1500), tmp_path_factory.mktemp("classifier") / "model", held_out=0.3)


def test_it_comes_close_to_the_best_possible_classifier_of_a_planted_truth(
    trained: Trained,
) -> None:
    best = best_auc(3)
    assert best == pytest.approx(0.98, abs=0.01)
    assert best - 0.05 < trained.held_out.auc <= best + 0.01


def test_it_works_on_text_without_spaces(tmp_path: Path) -> None:
    made = train(examples(1, 1200, IDEOGRAPHS), tmp_path / "model", held_out=0.3)
    assert made.held_out.auc > 0.9
    score = load(tmp_path / "model")
    rng = np.random.default_rng(9)
    scores = [[score(document(rng, good, IDEOGRAPHS)) for _ in range(50)] for good in (True, False)]
    assert np.mean(scores[0]) > np.mean(scores[1]) + 0.3


def test_a_loaded_classifier_scores_as_measured(trained: Trained) -> None:
    score = load(trained.directory)
    held = [e for e in examples(0, 1500) if e.held_out(0, 0.3)]
    scores = np.array([score(e.text) for e in held])
    labels = np.array([e.positive for e in held])
    again = measure(scores, labels)
    assert again.auc == pytest.approx(trained.held_out.auc, abs=1e-9)
    assert again.log_loss == pytest.approx(trained.held_out.log_loss, abs=1e-5)
    assert (trained.positive, trained.negative) == (750, 750)
    assert trained.held_out.documents == len(held)


def test_training_gives_the_same_bits_again(trained: Trained, tmp_path: Path) -> None:
    train(examples(0, 1500), tmp_path / "again", held_out=0.3)
    for name in ("weights.npy", "config.json", "quality.json"):
        assert (tmp_path / "again" / name).read_bytes() == (trained.directory / name).read_bytes()


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 8, 120) / 8  # with many ties
    labels = rng.random(120) < 0.3
    above = scores[labels][:, None] - scores[~labels][None, :]
    expected = ((above > 0) + 0.5 * (above == 0)).mean()
    assert measure(scores, labels).auc == pytest.approx(expected, abs=1e-12)


def test_reliability_shows_what_was_planted() -> None:
    rng = np.random.default_rng(1)
    true = rng.random(60_000)
    labels = rng.random(60_000) < true
    honest = measure(true, labels)
    assert honest.calibration_error < 0.01
    assert sum(b.documents for b in honest.reliability) == 60_000
    for b in honest.reliability:
        assert b.low <= b.mean_score <= b.high
        assert b.positive == pytest.approx(b.mean_score, abs=0.03)
    boastful = measure(np.where(true > 0.5, 0.95, 0.05), labels)
    assert boastful.calibration_error == pytest.approx(0.2, abs=0.01)
    assert boastful.accuracy == pytest.approx(0.75, abs=0.01)
    assert [(b.documents > 0) for b in boastful.reliability] == [True, True]


def test_a_threshold_keeps_its_share_of_the_reference(trained: Trained, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    texts = [document(rng, rng.random() < 0.1, WORDS) for _ in range(400)]
    reference = tmp_path / "crawl.jsonl"
    reference.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    made = train(examples(0, 1500), tmp_path / "m", held_out=0.3, reference=reference)
    score = load(tmp_path / "m")
    for row in made.thresholds:
        kept = np.mean([score(text + "\n") >= row.min_score for text in texts])
        assert kept == pytest.approx(row.kept, abs=0.005)
    recalls = [row.recall for row in made.thresholds]
    assert recalls == sorted(recalls, key=lambda recall: recall or 0)
    assert made.thresholds != trained.thresholds


def test_a_build_drops_what_scores_low_and_stores_the_signal(
    tmp_path: Path, trained: Trained
) -> None:
    rng = np.random.default_rng(8)
    rows = [
        {"id": f"{g}{i}", "text": document(rng, g, WORDS, 120)} for g in (0, 1) for i in range(30)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    clean = CleanConfig(classifier=ClassifierConfig(trained.directory, 0.5))
    recipe = DataRecipe((SourceConfig("jsonl", path=path),), held_out_fraction=0.3, clean=clean)
    build(recipe, tmp_path / "corpus")
    signals = pq.read_table(tmp_path / "corpus" / "signals.parquet").to_pylist()
    assert {row["id"][0] for row in signals if row["reason"] == "classifier.low"} == {"0"}
    for row in signals:
        assert (row["classifier_score"] < 0.5) == (row["reason"] == "classifier.low")


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    good = [Example(f"text {i}", True) for i in range(30)]
    with pytest.raises(DataError, match="0 negative documents are to train on"):
        train(good, tmp_path / "m")
    with pytest.raises(DataError, match="held out"):
        train([*good, Example("bad", False), Example("worse", False)], tmp_path / "m", seed=1)
    with pytest.raises(RecipeError, match="between 8 and 26"):
        train(good, tmp_path / "m", bits=40)
    with pytest.raises(RecipeError, match="min_score"):
        ClassifierConfig(Path("m"), 1.5)


@pytest.mark.parametrize("harm", ["weights", "version", "config"])
def test_a_damaged_classifier_is_refused(trained: Trained, tmp_path: Path, harm: str) -> None:
    for file in trained.directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if harm == "weights":
        (tmp_path / "weights.npy").write_bytes(b"no")
    else:
        config = json.loads((tmp_path / "config.json").read_text())
        config["features"] = "hashed-ngrams/0"
        (tmp_path / "config.json").write_text(json.dumps(config) if harm == "version" else "{}")
    with pytest.raises(ArtifactError, match="not a classifier"):
        load(tmp_path)
