"""The machine as it is, peaks as measured, and a slow number format that costs no time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isoflop.core import hardware
from isoflop.core.hardware import (
    Calibration,
    cache_path,
    calibrate,
    choose,
    machine,
    measure_peak,
    read_calibration,
    thread_counts,
)


def test_the_machine_is_described_without_importing_torch_or_naming_the_host() -> None:
    code = (
        "import sys; from isoflop.core.hardware import machine; here = machine()\n"
        "assert here['cores'] >= 1 and here['torch'], here\n"
        "assert not {'torch', 'numpy', 'scipy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert os.uname().nodename not in machine().values()
    assert machine()["cores"] <= (os.cpu_count() or 1)


class Simulated:
    """A machine whose clock moves only when it multiplies, at a set rate."""

    def __init__(self, gflops: float) -> None:
        self.rate, self.now = gflops * 1e9, 0.0

    def of_size(self, n: int):
        def work() -> None:
            self.now += 2 * n**3 / self.rate

        return work

    def clock(self) -> float:
        self.now += 1e-7
        return self.now


@pytest.mark.parametrize("gflops", [0.1, 1.0, 100.0, 5000.0])
def test_the_measured_rate_is_the_true_one_and_slow_formats_stay_within_the_time(
    gflops: float,
) -> None:
    simulated = Simulated(gflops)
    measured = hardware._grow_and_repeat(simulated.of_size, 0.4, 2048, simulated.clock)
    assert measured == pytest.approx(gflops, rel=0.01)
    assert simulated.now < 0.5


def test_measuring_multiplies_for_real_and_restores_the_thread_count() -> None:
    import torch

    before = torch.get_num_threads()
    assert measure_peak("float32", 1, seconds=0.05, largest=256) > 0.01
    assert torch.get_num_threads() == before


def test_bfloat16_is_chosen_only_where_it_pays_and_the_reason_is_said() -> None:
    slow = {"float32": {1: 50.0, 2: 98.0, 4: 100.0}, "bfloat16": {1: 0.5, 2: 1.0, 4: 1.0}}
    dtype, threads, reason = choose(slow)
    assert (dtype, threads) == ("float32", 2)  # four threads are not 5 % faster than two
    assert "0.01 times the speed of float32, not worth" in reason
    fast = {"float32": {1: 50.0}, "bfloat16": {1: 100.0}, "float16": {1: 500.0}}
    assert choose(fast)[:2] == ("bfloat16", 1)
    assert choose({"float32": {1: 50.0}, "bfloat16": {1: 60.0}})[0] == "float32"


@pytest.mark.parametrize(
    ("cores", "counts"),
    [(1, [1]), (2, [1, 2]), (4, [1, 2, 3, 4]), (12, [1, 2, 4, 8, 12]), (16, [1, 2, 4, 8, 16])],
)
def test_all_cores_are_always_among_the_thread_counts(cores: int, counts: list[int]) -> None:
    assert thread_counts(cores) == counts


@pytest.fixture
def measured(monkeypatch, tmp_path: Path) -> list[str]:
    calls: list[str] = []

    def peak(dtype: str, threads: int, seconds: float) -> float:
        calls.append(dtype)
        return 10.0 * threads

    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path))
    monkeypatch.setattr(hardware, "measure_peak", peak)
    monkeypatch.setattr(hardware, "measure_bandwidth", lambda threads: 20.0)
    return calls


def test_a_calibration_is_kept_and_read_back_equal_until_refreshed(measured: list[str]) -> None:
    first = calibrate()
    count = len(measured)
    assert calibrate() == first == read_calibration(cache_path(machine()))
    assert len(measured) == count
    calibrate(refresh=True)
    assert len(measured) == 2 * count
    assert first.peak("float32") == 10.0 * machine()["cores"]
    assert first.peak(threads=1) == 10.0


def test_a_damaged_or_unwritable_cache_is_measured_anew(measured: list[str], tmp_path) -> None:
    cache_path(machine()).write_text('{"gflops": 3}')
    assert isinstance(calibrate(), Calibration)
    (tmp_path / "file").write_text("")
    assert isinstance(calibrate(tmp_path / "file" / "c.json"), Calibration)


def test_another_torch_is_another_calibration() -> None:
    here = machine()
    assert cache_path(here) != cache_path({**here, "torch": "0.1"})
