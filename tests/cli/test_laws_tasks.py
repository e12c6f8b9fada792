"""`isoflop laws task` and `laws observe`: printed, promised, refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isoflop.cli.main import main
from isoflop.core.ledger import Ledger
from isoflop.laws import RunTable, fit
from isoflop.laws.tasks import fit_task


@pytest.fixture(scope="module")
def laws(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(surface, task law) of planted runs."""
    folder = tmp_path_factory.mktemp("laws")
    params, tokens = (each.ravel() for each in np.meshgrid(
        np.logspace(6.5, 8.5, 5), np.logspace(8, 10.5, 5)
    ))  # fmt: skip
    loss = 0.4 + 400 / params**0.34 + 400 / tokens**0.3
    fit(RunTable.from_arrays(params, tokens, loss), form="chinchilla", bootstrap=100).save(
        folder / "loss.json"
    )
    score = 0.25 + 0.7 / (1 + np.exp(3.0 * (loss - 1.8)))
    score += 0.003 * np.random.default_rng(0).standard_normal(len(loss))
    fit_task(loss, score, chance=0.25, draws=100).save(folder / "arc.json")
    return folder / "loss.json", folder / "arc.json"


def test_a_score_is_foretold_and_promised(
    laws: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    args = ["laws", "task", *map(str, laws), "--params", "1B", "--tokens", "30B", "--json"]
    assert main([*args, "--ledger", str(ledger)]) == 0
    said = json.loads(capsys.readouterr().out)
    (promise,) = Ledger(ledger).read()
    assert promise.id == said["promise"]
    assert (promise.value, promise.low, promise.high) == (
        said["score"]["value"], said["score"]["low"], said["score"]["high"],
    )  # fmt: skip
    assert promise.quantity == "score of arc"


def test_laws_in_the_wrong_order_are_refused(
    laws: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["laws", "task", *map(str, reversed(laws)), "--params", "1B", "--tokens", "30B"]
    assert main(args) == 2
    assert "foretells no score" in capsys.readouterr().err


def test_a_family_is_foretold_from_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    lines = ["model,family,flops,a,b,c,hard"]
    for name, offset in (("x", 0.0), ("y", -0.5), ("z", 0.4)):
        for decade in np.linspace(0, 3, 6):
            s = decade + offset - 1.5
            easy = [0.5 + w * 0.12 * s + 0.01 * rng.standard_normal() for w in (1, 0.8, 1.1)]
            cells = [f"{each:.4f}" for each in easy]
            hard = "" if (name, decade) == ("y", 3.0) else f"{1 / (1 + np.exp(1 - s)):.4f}"
            lines.append(
                ",".join([f"{name}{decade}", name, f"{10 ** (20 + decade):g}", *cells, hard])
            )
    table = tmp_path / "models.csv"
    table.write_text("\n".join(lines) + "\n")
    args = ["laws", "observe", str(table), "--target", "hard", "--components", "1"]
    assert main([*args, "--family", "y", "--flops", "1e23", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    truth = 1 / (1 + np.exp(1 - (3 - 0.5 - 1.5)))
    assert said["score"]["low"] <= truth <= said["score"]["high"]
    assert said["models"] == 17
    assert main([*args, "--family", "w", "--flops", "1e23"]) == 2
    assert "Families with enough: x, y, z" in capsys.readouterr().err
