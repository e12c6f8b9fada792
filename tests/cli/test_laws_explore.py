"""`isoflop laws what-if` and `serving`."""

from __future__ import annotations

import json

import pytest

from isoflop.cli.main import main


def test_what_if_varies_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["laws", "what-if", "besiroglu", "--params", "1e9", "--tokens", "2e10"]
    assert main([*words, "--factors", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["variants"]
    assert [row["change"] for row in rows] == [
        "as asked", "parameters × 2", "tokens × 2", "compute × 2",
    ]  # fmt: skip
    expected = 1.8172 + 482.01 / 2e9**0.3478 + 2085.43 / 2e10**0.3658
    assert rows[1]["loss"]["loss"] == pytest.approx(expected)
    assert rows[1]["difference"] == pytest.approx(expected / rows[0]["loss"]["loss"] - 1)
    assert main(words) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 1 + 3 * 4


def test_what_if_varies_a_budget(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["laws", "what-if", "hoffmann-1", "--flops", "1e21"]) == 0
    said = capsys.readouterr().out
    assert "best division" in said
    assert "none published" in said


def test_serving_much_asks_for_a_smaller_model(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = []
    for served in ("1e9", "1e13"):
        words = ["laws", "serving", "besiroglu", "--loss", "2.1", "--served-tokens", served]
        assert main([*words, "--json"]) == 0
        best = json.loads(capsys.readouterr().out)
        loss = 1.8172 + 482.01 / best["params"] ** 0.3478 + 2085.43 / best["tokens"] ** 0.3658
        assert loss == pytest.approx(2.1, abs=1e-6)
        sizes.append(best["params"])
        assert main(words) == 0
        assert "less than the model of least training compute" in capsys.readouterr().out
    assert sizes[1] < 0.8 * sizes[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("what-if besiroglu", "say what to vary"),
        ("what-if besiroglu --params 1e9", "say what to vary"),
        ("what-if besiroglu --params 1e9 --tokens 1e9 --flops 1e20", "say what to vary"),
        ("what-if llama-3 --flops 1e20", "no one formula of the loss over params and tokens"),
        ("what-if besiroglu --flops 1e20 --factors -1", "a factor must be positive"),
        (
            "serving llama-3 --loss 2 --served-tokens 1e9",
            "no one formula of the loss over params and tokens",
        ),
        ("serving besiroglu --loss 1.5 --served-tokens 1e9", "the law's floor is 1.8172"),
    ],
)
def test_what_cannot_be_explored_is_refused_in_one_paragraph(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["laws", *words.split()]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.splitlines()) == 1
