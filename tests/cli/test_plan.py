"""`isoflop plan` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from isoflop.cli.main import main


def test_json_is_one_document_with_the_whole_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--gpus", "8", "--gpu", "h100-80gb", "--hours", "24", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document)[:14] == [
        "params", "tokens", "flops", "model", "global_batch_tokens", "learning_rate", "schedule",
        "loss", "layout", "memory_bytes", "seconds", "mfu", "cost", "assumptions",
    ]  # fmt: skip


def test_the_text_is_a_short_table_the_layouts_and_the_reasons(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "--gpus", "8", "--gpu", "h100-80gb", "--hours", "24"]) == 0
    said = capsys.readouterr().out
    labels = ["model", "data", "batch", "rate", "loss", "layout", "memory", "time", "cost",
              "energy", "ladder first", "checkpoints"]  # fmt: skip
    rows = [line for line in said.splitlines() if line.startswith("  ")]
    for label, row in zip(labels, rows, strict=False):
        assert row.startswith(f"  {label} "), row
    assert "why: " in said
    assert "this rests on" in said
    assert "192 GPU-hours" in said
    assert "does not fit" not in said


def test_layouts_that_do_not_fit_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "--params", "4.5e9", "--tokens", "1e11", "--gpus", "2", "--gpu", "a100-80gb"])
    table = capsys.readouterr().out.split("layouts")[1].split("why")[0]
    assert "does not fit" in table


def test_an_impossible_plan_is_one_paragraph_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["plan", "--params", "70e9", "--tokens", "1.4e12", "--gpus", "8"]
    assert main([*command, "--gpu", "rtx-4090"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("memory: ")
    assert len(said.err.splitlines()) == 1


def test_an_unsupported_law_is_said_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--flops", "1e13"]) == 1
    said = capsys.readouterr()
    assert "unsupported" in said.err
    assert "verdict: unsupported" in said.out


def test_an_unknown_gpu_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--gpus", "8", "--gpu", "h1000", "--hours", "24"]) == 2
    assert "a100-80gb" in capsys.readouterr().err


def test_help_and_a_plan_import_no_torch() -> None:
    code = (
        "import sys; from isoflop.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "print(code, 'torch' in sys.modules, file=sys.stderr)"
    )
    for words in (["plan", "--help"], ["plan", "--gpus", "8", "--hours", "24"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60
        )
        assert done.stderr.strip() == "0 False", done.stderr


def test_help_imports_neither_numpy_nor_scipy() -> None:
    code = (
        "import sys; from isoflop.cli.main import main\n"
        "main(['plan', '--help'])\n"
        "print({'numpy', 'scipy', 'torch'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "set()"
