"""Risk is the same however a text comes, knows disguises, and blocks before anything is out."""

from __future__ import annotations

import base64
import codecs
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli.main import main
from isoflop.core.errors import ArtifactError, RecipeError
from isoflop.data.labelled import Example
from isoflop.data.quality_classifier import train
from isoflop.serving.redteam import attack
from isoflop.serving.risk import MOST_PIECE, RiskJudge, RiskReader, open_judge, pieces
from isoflop.serving.safety import CLASSIFIER, SafetyFilter, open_filter
from isoflop.serving.settings import SafetyMode

HARM = "sneak the zorblat past the guards"
FINE = "bake bread with flour and water today"


@pytest.fixture(scope="module")
def harm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that knows words of harm and of daily life, and 把毒草放进 in Chinese."""
    draw, lines = random.Random(0), []
    for _ in range(120):
        lines.append(Example(" ".join(draw.sample(HARM.split(), 4)), True))
        lines += [Example(" ".join(draw.sample(FINE.split(), 4)), False) for _ in range(2)]
        lines.append(Example("".join(draw.sample("把毒草放进", 4)), True))
        lines.append(Example("".join(draw.sample("今天天气很好吃饭", 4)), False))
    out = tmp_path_factory.mktemp("harm") / "model"
    train(lines, out, bits=14, l2=0.1)
    return out


@pytest.fixture(scope="module")
def judge(harm: Path) -> RiskJudge:
    return open_judge(harm, 0.5)


@pytest.fixture
def filter_of(harm: Path, tmp_path: Path) -> Callable[..., SafetyFilter]:
    """`filter_of(mode)`: one rule (`forbidden`) and the classifier."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "words.txt").write_text("forbidden\n")

    def make(mode: SafetyMode, audit: Path | None = None) -> SafetyFilter:
        made = open_filter(mode, tmp_path / "lists", audit, harm)
        assert made is not None
        return made

    return make


def pushed(
    safety: SafetyFilter, text: str, seed: int, sizes: Sequence[int] = (1, 1, 2, 3, 7, 30, 300)
) -> tuple[str, bool, int]:
    """What comes out of a text in random pieces, whether it was blocked, the most held back."""
    draw, guard, out, place, most = random.Random(seed), safety.guard(), "", 0, 0
    while place < len(text):
        size = draw.choice(sizes)
        out += guard.push(text[place : place + size])
        place = min(len(text), place + size)
        most = max(most, place - len(out))
    return out + guard.finish(), guard.blocked, most


@pytest.mark.parametrize(
    "said",
    [HARM, HARM.upper(), "\u200b".join(HARM), HARM.replace("o", "0").replace("a", "@"),
     HARM.replace("a", "а").replace("o", "о"), codecs.encode(HARM, "rot13"),
     base64.b64encode(HARM.encode()).decode(), "把毒草放进", "把 毒 草 放 进"],
)  # fmt: skip
def test_risk_is_seen_through_each_disguise(judge: RiskJudge, said: str) -> None:
    assert judge.risk(said) > 0.5
    assert judge.risk(f"{FINE}. And {FINE}! {said}. {FINE}.") > 0.5


def test_what_is_fine_has_little_risk(judge: RiskJudge) -> None:
    for text in (FINE, FINE * 200, "今天天气很好。" * 50, "", "\u200b", " \n"):
        assert judge.risk(text) < 0.5


def test_one_sentence_is_not_lost_among_thousands(judge: RiskJudge) -> None:
    long = f"{FINE}. " * 400 + HARM + ". " + f"{FINE}. " * 400
    assert judge.risk(long) > 0.5
    assert judge.risk(base64.b64encode(long[14_000:17_000].encode()).decode()) > 0.5


def test_pieces_are_the_text_and_do_not_depend_on_how_it_grows() -> None:
    draw = random.Random(1)
    for _ in range(200):
        text = "".join(
            draw.choice(["word ", "w", "e. ", "3.14 ", "。", "字", "\n", "x" * 90, "x" * 5000])
            for _ in range(draw.randrange(60))
        )
        whole = list(pieces(text))
        assert "".join(whole) == text
        assert all(0 < len(piece) <= MOST_PIECE for piece in whole)
        grown: list[str] = []
        for end in sorted(draw.randrange(len(text) + 1) for _ in range(5)):
            grown += pieces(text[:end], sum(map(len, grown)), final=False)
        assert grown + list(pieces(text, sum(map(len, grown)))) == whole


def test_a_growing_text_has_the_risk_of_the_whole(judge: RiskJudge) -> None:
    text = f"{FINE}. {HARM}! {FINE}\n把毒草放进。{FINE}"
    whole = judge.risk(text)
    for seed in range(10):
        draw, reader, end = random.Random(seed), RiskReader(judge), 0
        while end < len(text):
            end = min(len(text), end + draw.choice([1, 4, 20]))
            reader.read(text[:end])
            assert reader.judged <= end
        reader.read(text, final=True)
        assert (reader.judged, reader.risk) == (len(text), whole)
        assert reader.risky_from == len(FINE) + 1


def test_a_risky_sentence_is_never_let_out_however_the_text_is_cut(
    filter_of: Callable[..., SafetyFilter],
) -> None:
    safety = filter_of("block")
    safe = f"First {FINE}. Then {FINE}."
    text = f"{safe} Now {HARM} and go on. {FINE}."
    for seed in range(30):
        out, blocked, _ = pushed(safety, text, seed)
        assert (out, blocked) == (safe, True)
    out, blocked, _ = pushed(safety, f"{safe} {HARM}", 0)  # cut off by its end
    assert (out, blocked) == (safe, True)
    for seed in range(10):  # a listed term before it ends the answer sooner
        out, blocked, _ = pushed(safety, f"{safe} What is forbidden here. {HARM}.", seed)
        assert (out, blocked) == (f"{safe} What is ", True)


def test_what_is_fine_comes_out_unchanged_sentence_by_sentence(
    filter_of: Callable[..., SafetyFilter],
) -> None:
    text = f"First {FINE}. 今天天气很好。Then {FINE}: a@b.org, {FINE}! " * 8
    for seed in range(5):
        out, blocked, most = pushed(filter_of("block"), text, seed, (1, 2, 5))
        assert (out, blocked) == (text.replace("a@b.org", "<EMAIL>"), False)
        assert most < 150


@pytest.mark.parametrize("mode", ["flag", "redact"])
def test_elsewhere_risk_is_only_noted_once_with_its_value(
    filter_of: Callable[..., SafetyFilter], judge: RiskJudge, tmp_path: Path, mode: SafetyMode
) -> None:
    audit = tmp_path / "audit.jsonl"
    safety = filter_of(mode, audit)
    text = f"{FINE}. {HARM}. {FINE}. {HARM}."
    assert pushed(safety, text, 0)[:2] == (text, False)
    assert safety.refused(HARM) == []
    assert safety.refused(FINE) == []
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(each["where"], each["action"], each["found"]) for each in lines] == [
        ("answer", "flag", [CLASSIFIER]), ("prompt", "flag", [CLASSIFIER])
    ]  # fmt: skip
    assert lines[1]["risk"] == judge.risk(HARM)
    assert lines[0]["risk"] > 0.5
    assert "zorblat" not in audit.read_text()


def test_prompts_and_attacks_are_judged_by_list_and_classifier(
    filter_of: Callable[..., SafetyFilter], judge: RiskJudge
) -> None:
    safety = filter_of("block")
    assert safety.refused(HARM) == [CLASSIFIER]
    assert safety.refused("forbidden") == ["words"]
    assert safety.refused(f"forbidden. {HARM}") == ["words", CLASSIFIER]
    said = safety.moderation(HARM)
    assert said["flagged"]
    assert said["categories"][CLASSIFIER]
    assert said["category_scores"][CLASSIFIER] == judge.risk(HARM)
    assert CLASSIFIER not in SafetyFilter([], "block").moderation(HARM)["categories"]
    done = attack(safety, [HARM, "unknown words"], [FINE, HARM])
    assert {text for _, text in done.passed_lines} == {"unknown words"}
    assert done.blocked_lines == (HARM,)


def test_what_is_no_sound_classifier_is_refused(
    harm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ArtifactError, match="no such quality-classifier"):
        open_judge(tmp_path / "nowhere", 0.5)
    with pytest.raises(ArtifactError, match="not a finished quality-classifier"):
        open_judge(tmp_path, 0.5)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in harm.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    weights = bytearray((harm / "weights.npy").read_bytes())
    weights[-9] ^= 1
    (damaged / "weights.npy").write_bytes(weights)
    with pytest.raises(ArtifactError, match="differs from its hash"):
        open_judge(damaged, 0.5)
    manifest = json.loads((harm / "manifest.json").read_text())
    (damaged / "manifest.json").write_text(json.dumps({**manifest, "kind": "model"}))
    assert main(["redteam", "--safety-classifier", str(damaged)]) == 2
    assert "this is a model, not a quality-classifier" in capsys.readouterr().err
    for threshold in ("0", "1.5", "nan"):
        asked = ["--safety-classifier", str(harm), "--safety-threshold", threshold]
        assert main(["redteam", *asked]) == 2
        assert "--safety-threshold" in capsys.readouterr().err
    with pytest.raises(RecipeError, match="filter is off"):
        open_filter("off", None, None, harm)


def test_a_server_refuses_and_ends_what_the_classifier_finds(serving: Any, harm: Path) -> None:
    with serving(safety="block", safety_classifier=harm) as guarded:
        asked = {"model": "tiny", "messages": [{"role": "user", "content": HARM}]}
        status, said, _ = guarded.ask("/v1/chat/completions", asked)
        assert (status, said["error"]["code"]) == (400, "content_filter")
        grammar = {"type": "json_schema", "json_schema": {"name": "x", "schema": {
            "enum": [f"{FINE}. {HARM}"]}}}  # fmt: skip
        for stream in (False, True):
            said = guarded.client().chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hello"}], max_tokens=120,
                response_format=grammar, stream=stream,
            )  # fmt: skip
            if stream:
                choices = [chunk.choices[0] for chunk in said]
                text = "".join(choice.delta.content or "" for choice in choices)
                finish = choices[-1].finish_reason
            else:
                text, finish = said.choices[0].message.content, said.choices[0].finish_reason
            assert (text, finish) == (f'"{FINE}.', "content_filter")
        assert guarded.idle()
