"""The table of GPUs: data sheets, names, refusal of the unknown."""

from __future__ import annotations

import pytest

from isoflop.core.errors import RecipeError
from isoflop.core.hardware import Calibration
from isoflop.planning.gpus import ALIASES, GPUS, get_gpu, this_machine


@pytest.mark.parametrize(
    ("name", "teraflops", "gigabytes", "bandwidth", "watts"),
    [
        ("a100-40gb", 312, 40, 1.555e12, 400),
        ("a100-80gb", 312, 80, 2.039e12, 400),
        ("h100-80gb", 989, 80, 3.35e12, 700),
        ("h200", 989, 141, 4.8e12, 700),
        ("b200", 2250, 180, 7.7e12, 1000),
        ("l40s", 362, 48, 0.864e12, 350),
        ("rtx-4090", 165, 24, 1.008e12, 450),
        ("mi300x", 1307, 192, 5.3e12, 750),
        ("v100-32gb", 125, 32, 0.9e12, 300),
        ("t4", 65, 16, 0.32e12, 70),
    ],
)
def test_a_gpu_has_the_numbers_of_its_data_sheet(
    name: str, teraflops: float, gigabytes: float, bandwidth: float, watts: float
) -> None:
    gpu = get_gpu(name)
    assert gpu.flops == pytest.approx(teraflops * 1e12, rel=0.002)
    # Drivers report a little less than the label; an HBM "GB" is nearly a GiB.
    assert 0.92 * gigabytes <= gpu.memory_bytes / 2**30 <= gigabytes
    assert gpu.bandwidth == pytest.approx(bandwidth, rel=0.001)
    assert gpu.watts == watts


def test_peaks_are_without_sparsity() -> None:
    # 528 tensor cores × 1024 multiply-adds × 2 × 1.83 GHz for H100; 432 × 512 × ... for A100.
    assert get_gpu("h100-80gb").flops == pytest.approx(528 * 512 * 2 * 1.83e9, rel=0.01)
    assert get_gpu("a100-80gb").flops == pytest.approx(432 * 256 * 2 * 1.41e9, rel=0.01)


def test_chips_without_bfloat16_say_so() -> None:
    assert {name for name, gpu in GPUS.items() if gpu.dtype == "float16"} == {"v100-32gb", "t4"}


@pytest.mark.parametrize("name", ["H100", "h100_80GB", " h100 80gb ", "H100-SXM"])
def test_names_are_understood_in_any_spelling(name: str) -> None:
    assert get_gpu(name) is GPUS["h100-80gb"]


def test_every_other_name_leads_to_a_gpu() -> None:
    assert set(ALIASES.values()) <= set(GPUS)


def test_an_unknown_gpu_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError) as refused:
        get_gpu("h1000")
    assert "Did you mean h100" in str(refused.value)
    assert all(name in str(refused.value) for name in GPUS)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=lambda gpu: gpu.name)
def test_every_gpu_is_whole_and_names_its_sources(gpu) -> None:
    assert gpu.source
    assert gpu.matmul_source
    assert (gpu.price is None) == (gpu.price_source == "")
    assert 0.4 < gpu.matmul_share <= 0.9
    assert gpu.matmul_flops < gpu.flops
    assert 1e9 < gpu.network <= gpu.link < gpu.bandwidth or gpu.per_node == 4


def test_this_machine_is_what_was_measured_on_it() -> None:
    calibration = Calibration(
        {"float32": {1: 60.0, 2: 110.0}}, 30.0, "float32", 2, "", 1.0, "2026-01-01",
        {"cpu": "a CPU", "cores": 2},
    )  # fmt: skip
    here = this_machine(calibration, 2**34)
    assert (here.flops, here.bandwidth, here.memory_bytes) == (110e9, 30e9, 2**34)
    assert here.number_bytes == 4
    assert here.measured
