"""Every code block of the README and the manual is executed, page after page, in one folder.

What is shown is run as it is shown, with two exceptions that stand here in the open: `SMALLER`
makes the example recipes small (their text is changed, never the commands), and `SKIPPED` names
the lines that cannot run in a test, with the reason. The Chinese pages show the same commands
(test_docs.py). A line that is new is run; a skip that no page needs any more fails.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isoflop.alignment.dpo_recipe import DpoRecipe, RewardRecipe
from isoflop.alignment.policy_recipe import GrpoRecipe
from isoflop.alignment.sft_recipe import SftRecipe
from isoflop.cli.main import main
from isoflop.core.errors import RecipeError
from isoflop.core.recipe import from_dict
from isoflop.data.instruct_recipe import InstructRecipe
from isoflop.data.recipe import DataRecipe
from isoflop.planning.recipe import LadderRecipe
from isoflop.serving.feedback import FeedbackStore
from isoflop.training.recipe import TrainRecipe

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
ORDER = (
    *("tutorial", "how-it-works", "which-number", "alignment", "alignment_rl", "how-to"),
    *(
        "compression",
        "training",
        "laws",
        "textbook",
        "exit-codes",
        "reference",
        "serving",
        "distributed",
    ),
)
"""Pages build on what the pages before made."""
LANGUAGES = {"sh", "bash", "python", "toml", "text", "yaml", ""}
"""Of blocks; text, yaml and unnamed ones are pictures, output and files of other tools."""

SMALLER = {
    "demo-data.toml": {"30_000_000": "300_000", "3_000_000": "100_000", "0.035": "0.2"},
    "ladder.toml": {
        "[400_000, 630_000, 1_000_000, 1_600_000]": "[10_240, 20_480, 40_960]",
        "warmup_tokens = 50_000": "warmup_tokens = 2_048",
        "evaluations = 1": "evaluations = 1\neval_tokens = 2_048",
    },
    "train.toml": {
        "tokens = 4_000_000": "tokens = 20_480\neval_tokens = 2_048",
        "warmup_tokens = 50_000": "warmup_tokens = 2_048",
    },
    "bert.toml": {
        "tokens = 8_000_000": "tokens = 10_240",
        "warmup_tokens = 50_000": "warmup_tokens = 2_048",
        "eval_tokens = 50_000": "eval_tokens = 1_024",
    },
    "t5.toml": {
        "tokens = 8_000_000": "tokens = 10_240",
        "warmup_tokens = 50_000": "warmup_tokens = 2_048",
        "eval_tokens = 50_000": "eval_tokens = 1_024",
    },
    "instruct.toml": {"count = 1200": "count = 60", "12_000": "100", "500": "60"},
    "instruct-tools.toml": {r"count = [\d_]+": "count = 40"},
    "sft.toml": {"epochs = 2": "epochs = 1", "20_000": "2_048", "= 200": "= 8"},
    "reward.toml": {"epochs = 3": "epochs = 1"},
    "dpo.toml": {"epochs = 2": "epochs = 1"},
    "feedback.toml": {"epochs = 2": "epochs = 1", "batch_pairs = 16": "batch_pairs = 2"},
    "grpo.toml": {
        "prompts = 16": "prompts = 2", "answers = 8": "answers = 2", "= 64": "= 8",
        "rounds = 100": "rounds = 2\neval_answers = 4",
    },
    "ppo.toml": {
        "prompts = 128": "prompts = 4", "= 64": "= 8",
        "rounds = 100": "rounds = 2\neval_answers = 4",
    },
    "grokking.toml": {"steps = 3000": "steps = 30\nevaluations = 4", "modulus = 59": "modulus = 7"},
}  # fmt: skip
"""Recipe → what its text says, as a pattern, and what it says here."""

SMALLER_FLAGS = {
    r"--method (distill|drop)": "--student.tokens 20_480 --student.batch-tokens 256",
}
"""Commands that no recipe makes small → flags that do."""

FROM_SCRATCH = ("README.md", "tutorial.md", "textbook.md")
"""Pages that begin with an empty build/; what they make is there for the pages after them."""

SKIPPED = {
    r"^(PIP_\S+ )?make ": "needs a clean machine and ten minutes: `.ci/run` and tests/test_demo.py",
    r"^source |^cd |^git clone": "of the user's shell",
    r"^tensorboard ": "serves until it is stopped",
    r"^isoflop serve ": "serves until it is stopped: tests/cli/test_serve.py",
    r"^isoflop report \S+ --live": "serves until it is stopped: tests/reporting/test_live.py",
    r"^isoflop verify": "a minute, and tests/alignment/test_verify.py runs it",
    r"^isoflop doctor --calibrate": "measures the machine: tests/cli/test_doctor.py",
    r"^python benchmarks/": "measures, for minutes or hours",
    r"^isoflop (ledger|report) (build/)?demo|demo/model": "needs a demo: tests/test_demo.py",
    r"^isoflop mixture recipes/mixture.toml": "needs three corpora: tests/cli/test_mixture.py",
    r"^isoflop laws optimal mixture.json": "needs that mixture",
    r"^isoflop data (ngram|classifier)": "needs labelled text: tests/cli/test_data_models.py",
    r"^isoflop report build/scores build/other-scores": "needs another model's scores",
    r"^isoflop redteam --safety-lists": "needs lists of the user's",
    r"^isoflop train recipes/(bert|t5).toml": "the tokens of recipes/bert.toml are made by hand",
    r"^vllm ": "serves until it is stopped",
    r"--train.device cuda": "needs a GPU",
    r"^pytest ": "this suite",
    r"^torchrun|^ray |^sbatch|^kubectl|^srun|^docker|--launcher ray|slurm|ray:": "needs a cluster",
}
"""Lines that cannot run here → why."""
SKIPPED_BLOCKS = {
    "OpenAI(": "needs a server: tests/serving/test_openai_client.py",
}
"""Blocks of Python that cannot run here → why."""


def pages() -> list[Path]:
    """The README, then the manual in `ORDER`, then what is not named there; English."""
    named = [ROOT / "docs" / f"{name}.md" for name in ORDER]
    rest = [p for p in sorted((ROOT / "docs").glob("*.md")) if ".zh" not in p.name]
    return [ROOT / "README.md", *named, *(page for page in rest if page not in named)]


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, code) of a page, in order."""
    return [(kind, body) for _, kind, body in FENCE.findall(page.read_text(encoding="utf-8"))]


def lines(code: str) -> list[str]:
    """Commands of a block: continued lines joined, comments dropped."""
    joined = (
        re.sub(r"\s+#.*$", "", line).strip() for line in code.replace("\\\n", " ").split("\n")
    )
    return [" ".join(line.split()) for line in joined if line and not line.startswith("#")]


def skipped(line: str) -> str | None:
    """The pattern that says why a line is not run."""
    return next((pattern for pattern in SKIPPED if re.search(pattern, line)), None)


def test_every_block_is_of_a_language_that_is_known() -> None:
    for page in pages():
        assert {kind for kind, _ in blocks(page)} <= LANGUAGES, page


def test_every_skip_is_needed() -> None:
    shown = [line for p in pages() for kind, code in blocks(p) if kind in ("sh", "bash")
             for line in lines(code)]  # fmt: skip
    assert [p for p in SKIPPED if not any(re.search(p, line) for line in shown)] == []
    code = [code for p in pages() for kind, code in blocks(p) if kind == "python"]
    assert [word for word in SKIPPED_BLOCKS if not any(word in each for each in code)] == []


KINDS = {
    "train.toml": TrainRecipe,
    "ladder.toml": LadderRecipe,
    "demo-data.toml": DataRecipe,
    "instruct.toml": InstructRecipe,
    "sft.toml": SftRecipe,
    "dpo.toml": DpoRecipe,
    "reward.toml": RewardRecipe,
    "grpo.toml": GrpoRecipe,
}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_every_table_shown_is_understood_as_part_of_a_recipe(page: Path) -> None:
    for kind, code in blocks(page):
        if kind == "toml":
            shown = tomllib.loads(code)
            problems = [problem for name in KINDS if (problem := _refused(name, shown))]
            assert len(problems) < len(KINDS), "\n".join([code, *problems])


def _refused(name: str, shown: dict[str, Any]) -> str | None:
    """Why the example recipe with these tables is none, or None."""
    whole = tomllib.loads((ROOT / "recipes" / name).read_text())
    for table, content in shown.items():
        if table == "data" and "mixture" in content and table in whole:  # either is given
            whole[table].pop("shards", None)
        both = isinstance(content, dict) and isinstance(whole.get(table), dict)
        whole[table] = {**whole[table], **content} if both else content
    try:
        from_dict(KINDS[name], whole, name)
    except RecipeError as error:
        return f"{name}: {error}"
    return None


# --- in order ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes, made small, and the tables and texts that pages speak of."""
    folder = tmp_path_factory.mktemp("manual")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    for name, changes in SMALLER.items():
        path = folder / "recipes" / name
        text = path.read_text()
        for pattern, replacement in changes.items():
            literal = pattern if "\\d" in pattern else re.escape(pattern)
            text, count = re.subn(literal, replacement, text)
            assert count, f"{name} does not say `{pattern}` any more"
        path.write_text(text)
    draw = np.random.default_rng(0)
    rows = [
        (n, d, 1.8 + 480 * n**-0.35 + 2000 * d**-0.365 + draw.normal(0, 0.003))
        for n in (3e7, 1e8, 3e8, 1e9, 3e9)
        for d in (1e9, 3e9, 1e10, 3e10, 1e11)
    ]
    ours = ["params,tokens,loss,metric:copa"]
    ours += [f"{n},{d},{y},{0.5 + 0.4 / (1 + np.exp(4 * (y - 2.7)))}" for n, d, y in rows]
    (folder / "runs.csv").write_text("\n".join(ours) + "\n")
    theirs = "\n".join(["N,D,final_loss", *(f"{n},{d},{y}" for n, d, y in rows)]) + "\n"
    (folder / "their-runs.csv").write_text(theirs)
    curves = ["run_id,step,lr,loss"]
    for run, peak in (("a", 3e-4), ("b", 1e-4)):
        for step in range(2000, 20_001, 100):
            rate = peak * (1 - 0.9 * (step - 2000) / 18_000)
            loss = 2.5 + 40 * (step + 100) ** -0.45 - 0.1 * (1 - rate / peak)
            curves.append(f"{run},{step},{rate},{loss}")
    (folder / "curves.csv").write_text("\n".join(curves) + "\n")
    text = folder / "my-text"
    text.mkdir()
    words = ("loss", "token", "model", "batch", "step", "width", "ladder", "law", "promise")
    for i in range(400):
        made = ["".join(chr(97 + int(draw.integers(26))) for _ in range(7)) for _ in range(3)]
        said = " ".join([*made, *made, *(words[int(draw.integers(9))] for _ in range(20 + i % 40))])
        (text / f"{i}.txt").write_text(f"Page {i} says {draw.random():.9f}: {said}.\n")
    pairs = [
        {"prompt": f"Say {word} {i}.", "chosen": f"{word} {i}!", "rejected": "No."}
        for i in range(12) for word in words
    ]  # fmt: skip
    (folder / "preferences.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    store = FeedbackStore(folder / "feedback.sqlite")
    for p in pairs:
        opinion = SimpleNamespace(
            answer=p["rejected"], rating=1, rejected=None, edited=p["chosen"], seed=1,
            sampling=None, comment=None,
        )  # fmt: skip
        store.add("0" * 64, [{"role": "user", "content": p["prompt"]}], opinion)
    store.close()
    (folder / "test.txt").write_text("\n = A page = \n\n The cat sat on the mat . \n" * 40)
    return folder


def _write_llama(folder: Path, tokenizer: Path) -> None:
    """A Llama as transformers writes one, small and untrained."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from isoflop.data.tokenizer import load

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=load(tokenizer).vocab_size, hidden_size=64, intermediate_size=128,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=256, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(tokenizer).save_pretrained(folder)


@pytest.fixture(scope="module")
def tally() -> Iterator[dict[str, list[str]]]:
    told: dict[str, list[str]] = {"run": [], "skipped": []}
    yield told
    print(f"\n{len(told['run'])} commands and blocks run, {len(told['skipped'])} skipped", end="")


@pytest.mark.slow
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
@pytest.mark.filterwarnings("default")
def test_every_block_runs(
    page: Path, world: Path, tally: dict[str, list[str]], calibrated: None,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(world)
    names: dict[str, Any] = {}
    if page.name in FROM_SCRATCH:
        shutil.rmtree(world / "build", ignore_errors=True)
    if page.name == "how-to.md":
        _write_llama(world / "Llama-3.2-1B", world / "build" / "tokenizer")
    if page.name == "reference.md":  # a report of it is shown
        shrink = "compress build/run/model --data build/shards -o build/int8"
        assert main(shrink.split()) in (0, 1)
    for kind, code in blocks(page):
        if kind == "toml" and (named := re.match(r"# ([\w-]+\.toml)\n", code)):
            (world / named[1]).write_text(code)
        if kind in ("sh", "bash"):
            for line in lines(code):
                _run_line(line, tally, monkeypatch, capsys)
        elif kind == "python":
            if any(word in code for word in SKIPPED_BLOCKS):
                tally["skipped"].append(code)
            else:
                exec(compile(code, page.name, "exec"), names)
                tally["run"].append(code)


def _run_line(line: str, tally: dict[str, list[str]], monkeypatch: Any, capsys: Any) -> None:
    if skipped(line):
        tally["skipped"].append(line)
        return
    if line.startswith("isoflop "):
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))  # a chat ends with its input
        small = (flags for pattern, flags in SMALLER_FLAGS.items() if re.search(pattern, line))
        code = main([*shlex.split(line)[1:], *" ".join(small).split()])
        said = capsys.readouterr()
        assert code in (0, 1), f"{line}\n{said.err}"
    else:
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(line, shell=True, env=environment, capture_output=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr.decode()}"
    tally["run"].append(line)


@pytest.mark.slow
def test_what_the_readme_built_is_what_it_says(world: Path) -> None:
    law = json.loads((world / "build" / "law.json").read_text())
    assert law["form"] == "kaplan-nd"
