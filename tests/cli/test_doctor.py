"""`isoflop doctor` as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isoflop.cli.main import main
from isoflop.core import hardware


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path))


@pytest.fixture
def _quick(monkeypatch) -> None:
    rates = {"float32": 100.0, "bfloat16": 1.0, "float16": 0.5}
    monkeypatch.setattr(hardware, "measure_peak", lambda dtype, threads, s: rates[dtype] * threads)
    monkeypatch.setattr(hardware, "measure_bandwidth", lambda threads: 20.0)


def test_without_a_measurement_it_says_how_to_make_one(capsys) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "isoflop doctor --calibrate" in said
    assert f"{hardware.machine()['cores']} cores" in said


@pytest.mark.usefixtures("_quick")
def test_a_calibration_is_shown_with_its_choice_and_remembered(capsys) -> None:
    assert main(["doctor", "--calibrate"]) == 0
    first = capsys.readouterr().out
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == first
    cores = hardware.machine()["cores"]
    assert f"choice    float32 with {cores} thread" in first
    assert "not worth its rounding" in first
    assert "20.0 GB/s" in first


@pytest.mark.usefixtures("_quick")
def test_json_is_one_document_with_peaks_per_dtype_and_threads(capsys) -> None:
    assert main(["doctor", "--calibrate", "--json"]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["machine"] == hardware.machine()
    assert document["calibration"]["gflops"]["float32"]["1"] == 100.0
    assert document["calibration"]["best_dtype"] == "float32"
    assert "measuring" in said.err


def test_a_package_that_is_not_installed_is_a_bad_verdict(monkeypatch, capsys) -> None:
    from isoflop.cli import doctor

    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "no-such-package"))
    assert main(["doctor"]) == 1
    assert "pip install no-such-package" in capsys.readouterr().out
