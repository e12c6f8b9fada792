"""What the README and the manual show exists: commands, flags, targets, files, recipes, names."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import pkgutil
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isoflop import cli
from isoflop.alignment.dpo_recipe import DpoRecipe, RewardRecipe
from isoflop.alignment.iterate_recipe import IterateRecipe
from isoflop.alignment.policy_recipe import GrpoRecipe, PpoRecipe
from isoflop.alignment.sft_recipe import SftRecipe
from isoflop.cli.main import COMMANDS, main
from isoflop.core.errors import RecipeError
from isoflop.core.recipe import load_recipe
from isoflop.data.instruct_recipe import InstructRecipe
from isoflop.data.recipe import DataRecipe
from isoflop.evaluation.grokking_recipe import GrokkingRecipe
from isoflop.planning.mixing_recipe import MixtureRecipe
from isoflop.planning.recipe import LadderRecipe
from isoflop.training.recipe import TrainRecipe

ROOT = Path(__file__).resolve().parents[1]
RECIPES = {
    "demo-data.toml": DataRecipe,
    "instruct.toml": InstructRecipe,
    "instruct-tools.toml": InstructRecipe,
    "sft.toml": SftRecipe,
    "reward.toml": RewardRecipe,
    "dpo.toml": DpoRecipe,
    "feedback-set.toml": InstructRecipe,
    "feedback.toml": DpoRecipe,
    "grpo.toml": GrpoRecipe,
    "iterate.toml": IterateRecipe,
    "ppo.toml": PpoRecipe,
    "ladder.toml": LadderRecipe,
    "grokking.toml": GrokkingRecipe,
    "mixture.toml": MixtureRecipe,
    "train.toml": TrainRecipe,
    "bert.toml": TrainRecipe,
    "t5.toml": TrainRecipe,
    "wikitext-2-data.toml": DataRecipe,
    "wikitext-2.toml": TrainRecipe,
}
PAGES = [
    ROOT / "README.md",
    ROOT / "README.zh-CN.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
TWINS = [
    (ROOT / "README.md", ROOT / "README.zh-CN.md"),
    *((page.with_suffix("").with_suffix(".md"), page) for page in (ROOT / "docs").glob("*.zh.md")),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [body for _, kind, body in found if kind == language]


def shell_lines(page: Path) -> list[str]:
    """The commands of a page's `sh` blocks, continuation lines joined and comments dropped."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    lines = (re.sub(r"\s+#.*$", "", line).strip() for line in text.splitlines())
    return [" ".join(line.split()) for line in lines if line and not line.startswith("#")]


def commands(page: Path) -> list[str]:
    """The `isoflop …` command lines of a page."""
    return [line for line in shell_lines(page) if line.startswith("isoflop ")]


COMMAND_LINES = sorted({line for page in PAGES for line in commands(page)})


class Parsed(Exception):
    """The arguments were understood."""


@pytest.fixture(scope="session")
def shown_recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the repository's recipes and those that pages show whole, under their names."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    for page in PAGES:
        for code in blocks(page, "toml"):
            if named := re.match(r"# ([\w-]+\.toml)\n", code):
                (folder / named[1]).write_text(code)
    return folder


@pytest.fixture
def only_parse(shown_recipes: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """Give a command line to the real command, and stop it before it works."""

    def stop_after(parse: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            parse(*args)
            raise Parsed

        return wrapped

    for found in pkgutil.iter_modules(cli.__path__, "isoflop.cli."):
        if found.name == "isoflop.cli.arguments":  # theirs call each other
            continue
        module = importlib.import_module(found.name)
        for name in ("parse_arguments", "parse_recipe_arguments"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, stop_after(getattr(module, name)))
    monkeypatch.chdir(shown_recipes)

    def run(words: list[str]) -> None:
        module = importlib.import_module(COMMANDS[words[0]][0])
        with contextlib.suppress(Parsed):
            module.run(words[1:])
            raise AssertionError(f"{words} worked instead of being parsed")

    return run


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_line_shown_is_understood(
    line: str, only_parse: Callable[[list[str]], None]
) -> None:
    words = shlex.split(line)[1:]
    if words[-1] in ("--help", "--version"):
        with contextlib.redirect_stdout(io.StringIO()):
            assert main(words) == 0
    else:
        only_parse(words)


@pytest.mark.parametrize(
    "line",
    ["laws fit runs.csv --shape gamma", "train recipes/train.toml -o run --train.tokns 9", "tran"],
)
def test_a_command_line_with_a_mistake_is_not_understood(
    line: str, only_parse: Callable[[list[str]], None]
) -> None:
    with pytest.raises((RecipeError, KeyError)):
        only_parse(line.split())


def test_the_readmes_and_the_tutorial_show_commands_at_all() -> None:
    for page in (ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "docs" / "tutorial.md"):
        assert len(commands(page)) >= 5, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_shown_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+) \?=", makefile, re.MULTILINE))
    shown = [line.split() for line in shell_lines(page) if re.search(r"\bmake [a-z]", line)]
    shown += [words.split() for words in re.findall(r"`(make [a-z][^`]*)`", page.read_text())]
    for words in shown:
        rest = words[words.index("make") + 1 :]
        asked = {word for word in rest if "=" not in word and word not in ("&&",)}
        assert asked <= targets, words
        assert {word.partition("=")[0] for word in rest if "=" in word} <= variables, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    files = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    missing = [link for link in files if not (page.parent / link).exists()]
    assert not missing
    outside = [link for link in files if ROOT not in (page.parent / link).resolve().parents]
    assert not outside


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_imported_in_an_example_exists(page: Path) -> None:
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                for name in node.names:
                    importlib.import_module(name.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, name.name) for name in node.names), code


@pytest.mark.parametrize(("english", "chinese"), TWINS, ids=lambda page: page.name)
def test_the_chinese_page_shows_the_same_commands_under_as_many_headings(
    english: Path, chinese: Path
) -> None:
    assert shell_lines(english) == shell_lines(chinese)
    headings = [
        [len(mark) for mark in re.findall(r"^(#+) ", FENCE.sub("", page.read_text()), re.MULTILINE)]
        for page in (english, chinese)
    ]
    assert headings[0] == headings[1]


def test_every_page_of_the_manual_has_a_chinese_twin_but_the_records() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md") if ".zh." not in path.name}
    twins = {path.name.replace(".zh.md", ".md") for path in (ROOT / "docs").glob("*.zh.md")}
    assert twins <= pages
    assert pages - twins <= {"benchmarks.md", "decisions.md"}


# --- recipes -------------------------------------------------------------------------------


def test_every_recipe_is_of_a_known_kind() -> None:
    # The tables of align.toml are recipes of several commands (tests/alignment/test_align.py).
    assert {path.name for path in (ROOT / "recipes").glob("*")} == {*RECIPES, "align.toml"}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads_and_says_how_to_run_it(name: str) -> None:
    path = ROOT / "recipes" / name
    load_recipe(path, RECIPES[name])
    head = path.read_text().split("\n\n")[0]
    assert f"isoflop {COMMAND_OF[RECIPES[name]]} recipes/{name} -o " in head


COMMAND_OF = {
    DataRecipe: "data build",
    InstructRecipe: "data instruct",
    SftRecipe: "sft",
    LadderRecipe: "ladder",
    RewardRecipe: "reward",
    DpoRecipe: "dpo",
    GrpoRecipe: "grpo",
    IterateRecipe: "iterate",
    PpoRecipe: "ppo",
    GrokkingRecipe: "grokking",
    MixtureRecipe: "mixture",
    TrainRecipe: "train",
}


def test_the_example_run_is_one_of_which_the_example_ladders_law_speaks() -> None:
    ladder = load_recipe(ROOT / "recipes" / "ladder.toml", LadderRecipe)
    run = load_recipe(ROOT / "recipes" / "train.toml", TrainRecipe)
    assert run.data.shards == ladder.data.shards
    rate = ladder.width_rule.learning_rate(ladder.optimizer.learning_rate, run.model.d_model)
    assert run.optimizer.learning_rate == pytest.approx(rate, rel=0.01)
    for name in ("schedule", "warmup_tokens", "decay_fraction", "weight_decay", "beta2"):
        assert getattr(run.optimizer, name) == getattr(ladder.optimizer, name), name
    for name in ("seq_len", "global_batch_tokens", "seed", "eval_tokens"):
        assert getattr(run.train, name) == getattr(ladder.train, name), name
    largest = max(rung.d_model**2 * rung.n_layers * max(rung.tokens) for rung in ladder.rungs)
    assert run.model.d_model**2 * run.model.n_layers * run.train.tokens > 2 * largest
