"""Cleaning end to end: annotate, decide, the corpus that comes of it, and why."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from isoflop.core.artifact import sha256_file
from isoflop.core.errors import ArtifactError, DataError, RecipeError
from isoflop.core.recipe import load_recipe
from isoflop.data.annotate import annotate
from isoflop.data.annotated import ALL_SIGNALS
from isoflop.data.clean_recipe import (
    CleanConfig,
    LanguageConfig,
    PIIConfig,
    QualityConfig,
    SpellingConfig,
    ToxicityConfig,
)
from isoflop.data.corpus import Corpus, build, inspect, split_path
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.why import why

ENGLISH = (
    "The old ferry number {0} crossed the river twice a day, carrying farmers to the market. "
    "When bridge {0} was built in the spring, most people said that it would not be missed. "
    "They were wrong, and the town {1} soon found out why. Nobody could hear the news any more! "
    "For who would stop on a bridge to talk with a stranger about the price of wheat in {1}? "
    "It took them {0} years to agree, but in the end the boat sailed again to {1}."
)
CHINESE = (
    "第{0}号老渡船每天两次过河，载着农民和他们的货车去市场。春天桥建成的时候，大多数人说不会再想念它了。"
    "他们错了，{1}镇上很快就明白了原因：再也没有人能听到消息。谁会在桥上停下来，和陌生人谈论小麦的价格呢？"
    "于是有一位老师请求议会每周让渡船开一天。他们用了{0}年才同意，但最后船又满载着人出发了。"
)
QUALITY = QualityConfig(
    english=("gopher-repetition", "gopher-quality", "c4", "fineweb"),
    chinese=("gopher-repetition", "gopher-quality", "fineweb"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Good English and Chinese, spam, a German letter, code, contacts and a rude page."""
    rows = [ENGLISH.format(n, chr(65 + n % 26) * 3 + "ville") for n in range(40)]
    rows += [CHINESE.format(n, "东南西北中"[n % 5] + "山水"[n % 2]) for n in range(30)]
    rows += ["buy now cheap " * 60, "便宜手机批发" * 60, "Too short a text."]
    rows += ["Wir haben im Garten Tomaten gepflanzt und warten jetzt auf den Sommer. " + "Ja. " * 3]
    rows += ["import os\n\n\ndef f(x):\n    return os.path.join(x, x)\n"]
    rows += [ENGLISH.format(91, "Bonn") + " Write to ann.lee@corp.co.uk or call +1 212 555 0175."]
    rows += [ENGLISH.format(92, "Kiel") + " That grue is a grue."]
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\nnonsense\n", "utf-8")
    (tmp_path / "rude.txt").write_text("grue\n")
    return tmp_path


def recipe_for(folder: Path, **clean: object) -> DataRecipe:
    return DataRecipe(
        sources=(SourceConfig("jsonl", path=folder / "rows.jsonl"),),
        held_out_fraction=0.2,
        clean=CleanConfig(**clean),  # type: ignore[arg-type]
    )


def texts(corpus: Corpus) -> dict[str, dict[str, str]]:
    tables = [pq.read_table(split_path(corpus.directory, split)) for split in ("train", "held_out")]
    return {row["text"]: row for table in tables for row in table.to_pylist()}


def reasons(corpus: Corpus) -> dict[str, int]:
    return {reason: drop["documents"] for reason, drop in corpus.funnel["dropped"].items()}


def test_every_rule_has_its_own_count_and_every_document_its_signals(
    folder: Path, tmp_path: Path
) -> None:
    toxicity = ToxicityConfig(lists=(folder / "rude.txt",), max_matches=1)
    corpus = build(
        recipe_for(
            folder, quality=QUALITY, toxicity=toxicity, language=LanguageConfig(keep=("en", "zh"))
        ),
        tmp_path / "c",
    )
    found = reasons(corpus)
    assert found["gopher-repetition.most-frequent-short-gram"] == 3  # spam, and the short one
    assert found["language not kept"] == 2  # German and code
    assert found["toxicity.words"] == 1
    assert sum(found.values()) == 7  # and the broken line
    assert corpus.funnel["splits"]["train"]["languages"].keys() == {"en", "zh-Hans"}
    table = pq.read_table(corpus.directory / "signals.parquet")
    assert set(ALL_SIGNALS) < set(table.column_names)
    assert len(ALL_SIGNALS) >= 30
    assert table.num_rows == corpus.funnel["in"]["documents"] - 1  # the broken line has none
    kept = sum(reason == "" for reason in table["reason"].to_pylist())
    assert kept == corpus.funnel["kept"]["documents"]


def test_without_a_clean_table_nothing_is_judged_or_identified(
    folder: Path, tmp_path: Path
) -> None:
    corpus = build(recipe_for(folder), tmp_path / "c")
    assert reasons(corpus) == {"broken JSON line": 1}
    assert {row["language"] for row in texts(corpus).values()} == {"und"}
    assert not (corpus.directory / "signals.parquet").exists()
    with pytest.raises(ArtifactError, match="built without quality rules"):
        why(corpus.directory, "c4.sentences")


@pytest.mark.parametrize("action", ["redact", "drop", "tag"])
def test_personal_data_is_redacted_dropped_or_tagged_and_counted(
    folder: Path, tmp_path: Path, action: str
) -> None:
    corpus = build(recipe_for(folder, pii=PIIConfig(action=action)), tmp_path / "c")  # type: ignore[arg-type]
    assert corpus.funnel["pii"] == {
        "email": {"documents": 1, "found": 1},
        "phone": {"documents": 1, "found": 1},
    }
    row = next((r for text, r in texts(corpus).items() if "Bonn" in text), None)
    if action == "drop":
        assert row is None
        assert reasons(corpus)["personal data"] == 1
        return
    assert row is not None
    if action == "redact":
        assert row["text"].endswith("Write to <EMAIL> or call <PHONE>.\n")
    else:
        assert json.loads(row["meta"])["pii"] == {"email": 1, "phone": 1}
        assert "ann.lee@corp.co.uk" in row["text"]


def test_deciding_from_annotations_gives_the_same_bytes_as_building(
    folder: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(
        folder,
        quality=QUALITY,
        pii=PIIConfig(action="redact"),
        spelling=SpellingConfig(width=True, boilerplate=True),
        toxicity=ToxicityConfig(lists=(folder / "rude.txt",)),
    )
    made = annotate(recipe, tmp_path / "annotations")
    assert made.documents == 77
    direct = build(recipe, tmp_path / "direct")
    again = build(recipe, tmp_path / "again", annotations=made.directory)
    assert again.funnel == direct.funnel
    for name in ("train/documents.parquet", "held_out/documents.parquet", "signals.parquet"):
        assert sha256_file(again.directory / name) == sha256_file(direct.directory / name)

    loose = dataclasses.replace(recipe.clean, quality=QualityConfig(), pii=PIIConfig())
    other = dataclasses.replace(recipe, clean=loose)
    kept = build(other, tmp_path / "loose", annotations=made.directory).funnel["kept"]
    assert kept == build(other, tmp_path / "loose2").funnel["kept"]
    assert kept["documents"] > direct.funnel["kept"]["documents"]


def test_annotations_of_another_spelling_are_refused(folder: Path, tmp_path: Path) -> None:
    made = annotate(recipe_for(folder), tmp_path / "annotations")
    changed = recipe_for(folder, spelling=SpellingConfig(form="nfkc"))
    with pytest.raises(DataError, match=r"made with other .*annotate` with this recipe again"):
        build(changed, tmp_path / "c", annotations=made.directory)
    next(made.directory.rglob("*.parquet")).write_bytes(b"cut")
    with pytest.raises(ArtifactError):
        build(recipe_for(folder), tmp_path / "c", annotations=made.directory)


def test_why_foretells_what_another_threshold_drops(folder: Path, tmp_path: Path) -> None:
    rule = "gopher-quality.few-words"
    corpus = build(recipe_for(folder, quality=QUALITY), tmp_path / "c")
    english = why(corpus.directory, rule, threshold=91).accounts[0]
    assert (english.group, english.threshold, english.in_force) == ("english", 50, True)
    stricter = dataclasses.replace(QUALITY, thresholds={rule: 91})
    rebuilt = build(recipe_for(folder, quality=stricter), tmp_path / "c2")
    lost = corpus.funnel["kept"]["documents"] - rebuilt.funnel["kept"]["documents"]
    # The name stands for the English and the Chinese rule.
    accounts = why(corpus.directory, rule, threshold=91).accounts
    assert sum(account.alternatives[0].lost for account in accounts) == lost > 0
    assert english.alternatives[0].failing >= english.failing
    assert why(corpus.directory, rule).accounts[1].threshold == 85
    values = [example.value for example in english.kept_examples]
    assert values == sorted(values)
    assert english.kept_examples[0].excerpt.startswith("The old ferry")
    with pytest.raises(DataError, match=r"no quality rule `nope`.*c4\.sentences"):
        why(corpus.directory, "nope")


def test_a_clean_table_is_read_from_toml(folder: Path, tmp_path: Path) -> None:
    (folder / "data.toml").write_text(
        'held_out_fraction = 0.2\n[[sources]]\nkind = "jsonl"\npath = "rows.jsonl"\n'
        '[clean.spelling]\nform = "nfkc"\n[clean.language]\nkeep = ["en", "zh"]\n'
        '[clean.quality]\nenglish = ["c4"]\n[clean.quality.thresholds]\n"c4.sentences" = 3\n'
        '[clean.pii]\naction = "redact"\n[clean.toxicity]\nlists = ["rude.txt"]\n'
    )
    recipe = load_recipe(folder / "data.toml", DataRecipe)
    assert recipe.clean.quality.thresholds == {"c4.sentences": 3.0}
    assert recipe.clean.toxicity.lists == (folder / "rude.txt",)
    corpus = build(recipe, tmp_path / "c")
    assert inspect(corpus.directory) == corpus
    config = json.loads((corpus.directory / "config.json").read_text("utf-8"))
    assert config["clean"]["toxicity"]["lists"] == ["rude.txt"]


@pytest.mark.parametrize(
    ("clean", "message"),
    [
        (lambda: LanguageConfig(min_score=2.0), "`min_score` must lie between"),
        (lambda: ToxicityConfig(max_matches=-1), "`max_matches` must not be negative"),
    ],
)
def test_impossible_values_are_refused(clean: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        clean()  # type: ignore[operator]


def test_a_threshold_of_no_rule_is_refused_before_work(folder: Path, tmp_path: Path) -> None:
    quality = QualityConfig(english=("c4",), thresholds={"c4.sentence": 1.0})
    with pytest.raises(RecipeError, match=r"no quality rule: c4\.sentence"):
        build(recipe_for(folder, quality=quality), tmp_path / "c")
    assert not (tmp_path / "c").exists()
