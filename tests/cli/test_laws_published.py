"""`isoflop laws published`."""

from __future__ import annotations

import json

import pytest

from isoflop.cli.main import main
from isoflop.laws import known_models, published_laws
from isoflop.laws.load import OTHERS


def test_all_laws_and_models_are_listed_with_their_sources(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["laws", "published"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in (
        *(law.name for law in published_laws()),
        *OTHERS,
        *(m.name for m in known_models()),
    ):
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1, name
    gopher = next(line for line in lines if line.startswith("  Gopher "))
    assert gopher.split()[1:6] == ["2021", "280B", "300B", "1.07", "5.8e+23"]
    assert gopher.endswith("Rae et al. 2021")
    assert max(map(len, lines)) < 130


def test_json_has_every_figure_and_where_each_model_lies(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["laws", "published", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["laws"]) == len(published_laws()) + len(OTHERS)
    assert len(document["models"]) == len(known_models())
    assert all(entry["source"] for entry in (*document["laws"], *document["models"]))
    models = {model["name"]: model for model in document["models"]}
    assert models["GPT-4"]["standing"] is None
    chinchilla = models["Chinchilla"]["standing"]
    assert chinchilla["size_ratio"] == pytest.approx(1.0, abs=0.1)
    assert 0.0 <= chinchilla["excess_loss"] < 1e-3
    assert models["GPT-3"]["standing"]["excess_loss"] > 5e-3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("besiroglu", "482.01"),
        ("epoch", "besiroglu: "),
        ("hoffmann-3", "E + A/N^alpha + B/D^beta"),
        ("kaplan-n", "  (N_c/N)^alpha_N"),
        ("cerebras", "  E + (C_c/C)^alpha_C"),
        ("llama-3", "N_opt = 0.5747*C^0.4622"),
        ("kumar", "Kumar et al. 2024"),
        ("gpt-3", "3.14e+23 FLOPs (as published)"),
        ("Mixtral-8x7B", "12.9B of them active"),
        ("GPT-4", "GPT-4 (2023): unpublished parameters, unpublished tokens"),
    ],
)
def test_one_of_them_is_told_in_full(
    name: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["laws", "published", name]) == 0
    text = capsys.readouterr().out
    assert said in text
    assert "source: " in text
    assert main(["laws", "published", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"]


def test_models_can_be_held_against_another_law(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["laws", "published", "Gopher", "--against", "kaplan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["standing"]["size_ratio"] < 1.0


def test_an_unknown_name_is_refused_with_a_proposal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["laws", "published", "lama-3"]) == 2
    assert "Did you mean llama-3?" in capsys.readouterr().err
    assert main(["laws", "published", "Gopher", "--against", "step-law"]) == 2
    assert "says nothing of allocation" in capsys.readouterr().err


def test_a_name_of_a_law_and_of_a_model_shows_both(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["laws", "published", "chinchilla"]) == 0
    said = capsys.readouterr().out
    assert "hoffmann-1: " in said
    assert "Chinchilla (2022): 70B parameters, 1.4T tokens" in said
    assert main(["laws", "published", "Chinchilla", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["name"], document["model"]["params"]) == ("hoffmann-1", 70e9)
