"""`isoflop data`, `isoflop tokenizer` and `isoflop tokenize`, as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isoflop.cli.main import main

RECIPE = """
held_out_fraction = 0.2
[[sources]]
kind = "jsonl"
path = "rows.jsonl"
[[sources]]
kind = "word-problems"
documents = 300
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    lines = [json.dumps({"text": f"row number {n}"}) for n in range(20)]
    lines[4] = '{"text": "cut o'
    lines[9] = lines[8]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    path = tmp_path / "data.toml"
    path.write_text(RECIPE)
    return path


def run_json(capsys: pytest.CaptureFixture[str], *args: str | Path) -> dict[str, object]:
    assert main([*map(str, args), "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def refused(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    """The paragraph of a command that ends with 2."""
    capsys.readouterr()
    assert main([*map(str, args)]) == 2
    said = capsys.readouterr()
    assert not said.out
    return said.err


def test_from_a_recipe_to_shards_with_json(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, tokenizer, shards = (tmp_path / name for name in ("corpus", "tokenizer", "shards"))
    built = run_json(capsys, "data", "build", recipe, "-o", corpus)
    assert built == run_json(capsys, "data", "inspect", corpus)
    trained = run_json(capsys, "tokenizer", "train", corpus, "--vocab-size", "300", "-o", tokenizer)
    assert (trained["vocab_size"], trained["eos_id"]) == (300, 297)
    made = run_json(capsys, "tokenize", corpus, "--tokenizer", tokenizer, "-o", shards)
    assert made["splits"]["train"]["bytes"] == built["splits"]["train"]["bytes"]  # type: ignore[index]


def test_inspect_prints_the_funnel_and_the_broken_lines(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "build", str(recipe), "-o", str(tmp_path / "corpus")]) == 0
    built = capsys.readouterr().out
    assert main(["data", "inspect", str(tmp_path / "corpus")]) == 0
    text = capsys.readouterr().out
    assert text == built
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert any(line.startswith("read 320 ") for line in lines)
    assert any(line.startswith("- seen before (same text)") for line in lines)
    assert any(line.startswith("- broken JSON line 1 0.00 MB rows.jsonl:5") for line in lines)
    assert any(line.startswith("kept 31") for line in lines)
    assert "jsonl rows.jsonl:5: broken JSON line (Unterminated string" in text
    assert f"listed in {tmp_path / 'corpus' / 'rejects.jsonl'}" in text


def test_flags_override_the_recipe(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = []
    for share in ("0.2", "0.5"):
        out = tmp_path / share
        run_json(capsys, "data", "build", recipe, "-o", out, "--held-out-fraction", share)
        funnel = json.loads((out / "funnel.json").read_text())
        shares.append(funnel["splits"]["held_out"]["documents"] / funnel["kept"]["documents"])
    assert 0.1 < shares[0] < 0.3 < 0.4 < shares[1] < 0.6


def test_bad_input_is_one_paragraph_with_the_way_out_and_leaves_nothing(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    recipe.write_text(RECIPE.replace("documents", "docments"))
    assert "data.toml:8: " in (said := refused(capsys, "data", "build", recipe, "-o", out))
    assert "Did you mean `sources[1].documents`?" in said
    recipe.write_text(RECIPE.replace("rows.jsonl", "gone.jsonl"))
    assert "no jsonl file" in refused(capsys, "data", "build", recipe, "-o", out)
    recipe.write_text(RECIPE)
    (tmp_path / "rows.jsonl").write_text("")
    assert "not one usable document" in refused(capsys, "data", "build", recipe, "-o", out)
    assert "no such corpus directory" in refused(capsys, "data", "inspect", out)
    train = ("tokenizer", "train", out, "-o", tmp_path / "t")
    assert "no such corpus" in refused(capsys, *train, "--vocab-size", "300")
    assert "--vocab-size" in refused(capsys, *train)
    assert "Did you mean `inspect`?" in refused(capsys, "data", "inspct")
    assert sorted(os.listdir(tmp_path)) == ["data.toml", "rows.jsonl"]


def test_a_full_disk_is_said_and_nothing_half_written_is_left(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The largest file allowed is 4 kB: writing fails as it does on a full disk."""
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from isoflop.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = ["data", "build", str(recipe), "-o", str(tmp_path / "corpus")]
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "the file would be larger than allowed here" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "corpus").exists()
    assert not list(tmp_path.rglob("*.partial"))
    # What was whole stays for the same command, once there is room; and goes when it is done.
    run_json(capsys, *command)
    assert sorted(os.listdir(tmp_path)) == ["corpus", "data.toml", "rows.jsonl"]


@pytest.mark.parametrize("command", ["data build", "data inspect", "tokenizer train", "tokenize"])
def test_help_names_the_options_without_loading_what_does_the_work(command: str) -> None:
    program = (
        "import sys\nfrom isoflop.cli.main import main\ncode = main(sys.argv[1:])\n"
        "heavy = {'torch', 'scipy', 'pyarrow', 'numpy', 'tiktoken'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command.split(), "--help"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout


def test_measure_once_decide_anew_and_ask_why(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, corpus = tmp_path / "annotations", tmp_path / "corpus"
    recipe.write_text(RECIPE + '[clean.quality]\nenglish = ["gopher-quality"]\n')
    made = run_json(capsys, "data", "annotate", recipe, "-o", annotations)
    assert made["documents"] == 319  # all but the broken line
    decide = ("data", "build", recipe, "-o", corpus, "--annotations", annotations)
    # Rows of three words and short problems would all go: let them pass by the rule's name.
    refused(capsys, *decide)
    loose = '[clean.quality.thresholds]\n"gopher-quality.few-words" = 3\n'
    zero = "".join(
        f'"gopher-quality.{rule}" = 0\n'
        for rule in ("stop-words", "alphabetic-words", "short-words")
    )
    recipe.write_text(recipe.read_text() + loose + zero)
    run_json(capsys, *decide)
    asked = ("data", "why", corpus, "--rule", "gopher-quality.few-words", "--threshold", "4")
    found = run_json(capsys, *asked)
    (account,) = [a for a in found["accounts"] if a["threshold"] == 3]  # type: ignore[attr-defined]
    assert account["alternatives"][0]["failing"] >= 19  # "row number 7" has three words
    assert main([*map(str, asked)]) == 0
    text = capsys.readouterr().out
    assert "`words` must be at least the threshold" in text
    assert "row number" in text
    assert "There are c4.curly-brackets" in refused(capsys, "data", "why", corpus, "--rule", "x")
