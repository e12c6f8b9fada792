"""Opening laws: files of every form (see also tests/cli/test_laws_fit.py), names, damage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isoflop.core.errors import ArtifactError, TableError
from isoflop.laws import find_law, fit, load_law
from isoflop.laws.families import ENTRIES
from isoflop.laws.load import HOMES, OTHERS, SURFACES
from isoflop.laws.predict import KEYS, Law
from isoflop.laws.published import published_laws
from isoflop.laws.records import RunTable
from isoflop.laws.tables import FigureTable


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Path:
    n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 4)))
    table = RunTable.from_arrays(n, d, 1.7 + 400 * n**-0.34 + 400 * d**-0.3)
    path = tmp_path_factory.mktemp("laws") / "law.json"
    fit(table, "chinchilla", bootstrap=1000).save(path)
    return path


def test_every_form_that_can_be_fitted_can_be_opened() -> None:
    assert {*SURFACES, *HOMES} == set(ENTRIES)


def test_a_surface_is_opened_as_a_law(surface: Path) -> None:
    law = load_law(surface)
    assert isinstance(law, Law)
    assert law.predict(2e9, 2e11).loss == pytest.approx(1.7 + 400 * 2e9**-0.34 + 400 * 2e11**-0.3)


@pytest.mark.parametrize("form", HOMES)
def test_a_family_with_a_key_missing_is_refused_by_file_and_key(form: str, tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_text(json.dumps({"form": form, "parameters": {}}))
    with pytest.raises(ArtifactError, match="has no formula") as caught:
        load_law(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("form", HOMES)
def test_a_family_whose_noise_lacks_what_it_reads_is_refused(form: str, tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    empty: dict[str, object] = {key: {} for key in KEYS} | {"form": form, "draws": [], "n_runs": 9}
    empty |= {"parameters": {"a": 1.0}, "source": [], "warnings": []}
    path.write_text(json.dumps(empty))
    with pytest.raises(ArtifactError, match="its noise has no ") as caught:
        load_law(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "not a law"),
        ("{", "law.json"),
        ('{"form": "quadratic"}', "knows no law of the form 'quadratic'"),
        ('{"form": 3}', "not a law"),
        ('{"form": ["gamma"]}', "not a law"),
    ],
)
def test_what_is_no_law_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match=message):
        load_law(path)


def test_a_file_that_is_not_there_is_an_error_about_the_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        find_law(tmp_path / "law.json")


@pytest.mark.parametrize("name", [*(law.name for law in published_laws()), *OTHERS, "EPOCH"])
def test_a_published_law_is_found_by_its_name(name: str) -> None:
    law = find_law(name)
    assert law.formula
    assert law.supported


def test_a_name_that_nobody_has_is_neither_file_nor_law() -> None:
    with pytest.raises(TableError, match="neither a file nor a published law 'hofmann'"):
        find_law("hofmann")


def test_a_family_survives_the_file(tmp_path: Path) -> None:
    n, d, bits = (a.ravel() for a in np.meshgrid([1e8, 4e8, 2e9], [1e9, 8e9, 6e10], [3, 4, 5]))
    added = 0.1 * d**0.5 / n**0.4 * np.exp(-bits / 0.6)
    table = FigureTable({"params": n, "tokens": d, "bits": bits, "added_loss": added})
    law = fit(table, "quantisation", bootstrap=50)
    law.save(tmp_path / "law.json")
    again = load_law(tmp_path / "law.json")
    assert type(again) is type(law)
    assert again.to_dict() == law.to_dict()


def test_a_forecast_loads_nothing_slow(surface: Path) -> None:
    script = (
        "import sys; from isoflop.cli.main import main; "
        f"code = main(['laws', 'predict', {str(surface)!r}, '--params', '1e9', '--tokens', '1e11'])"
        "; sys.exit(code or any(m in sys.modules for m in ('torch', 'scipy', 'pyarrow')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("name", [*HOMES])
def test_opening_a_form_needs_no_scipy(name: str) -> None:
    module, _ = HOMES[name]
    script = (
        f"import sys, isoflop.laws.load, isoflop.laws.{module}; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'scipy', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
