"""A mixture searched on three sources that every machine with Python has; not a test.

    python benchmarks/mixture_search.py DIR            # builds the shards, searches, prints
    isoflop mixture DIR/mixture.toml -o DIR/search     # the search alone, again or continued

The sources are the manual (docstrings and the language reference of the standard library, English
prose), its code, and generated word problems in English and Chinese.
"""

from __future__ import annotations

import ast
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from isoflop.cli.main import main
from isoflop.data import corpus, shards, tokenizer
from isoflop.data.recipe import DataRecipe, SourceConfig

VOCAB_SIZE = 1024
SHORTEST = 200
"""Characters below which a docstring says too little."""
RECIPE = """\
# isoflop mixture mixture.toml -o search
proxies = 12
repeats = 3
checks = 2
target_tokens = 20_000_000
processes = {processes}

[[sources]]
name = "manual"
shards = "manual"

[[sources]]
name = "code"
shards = "code"

[[sources]]
name = "problems"
shards = "problems"
synthetic = true

[model]
d_model = 64
n_layers = 2

[optimizer]
learning_rate = 4e-3
warmup_tokens = 50_000

[train]
tokens = 400_000
seq_len = 128
global_batch_tokens = 2048
micro_batch_tokens = 2048
eval_tokens = 90_000
evaluations = 1
tensorboard = false
"""


def standard_library() -> Iterator[tuple[str, str]]:
    """(name, text) of every module of the standard library that is UTF-8."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if not {"site-packages", "test", "tests"} & set(path.parts):
            try:
                yield str(path.relative_to(root)), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def docstrings(text: str) -> Iterator[str]:
    """The docstrings of a module that are long enough to read; none where it does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):
            return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            said = ast.get_docstring(node)
            if said and len(said) >= SHORTEST:
                yield said


def manual() -> Iterator[str]:
    """English prose: the language reference and the docstrings."""
    from pydoc_data.topics import topics

    yield from topics.values()
    for _, text in standard_library():
        yield from docstrings(text)


def write_lines(path: Path, texts: Iterator[str]) -> None:
    """One JSON document a line."""
    with open(path, "w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}) + "\n")


def build(out: Path) -> None:
    """Three shard directories with one tokenizer, trained on all three."""
    write_lines(out / "manual.jsonl", manual())
    write_lines(out / "code.jsonl", (text for _, text in standard_library()))
    kinds = {
        "manual": SourceConfig("jsonl", path=out / "manual.jsonl", name="manual"),
        "code": SourceConfig("jsonl", path=out / "code.jsonl", name="code", max_bytes=4_000_000),
        "problems": SourceConfig("word-problems", max_bytes=1_500_000),
    }
    whole = corpus.build(
        DataRecipe(sources=tuple(kinds.values()), held_out_fraction=0.05), out / "all"
    )
    tokenizer.train(whole, VOCAB_SIZE, out / "tokenizer")
    for name, source in kinds.items():
        text = corpus.build(
            DataRecipe(sources=(source,), held_out_fraction=0.05), out / f"{name}-text"
        )
        made = shards.tokenize(text, out / "tokenizer", out / name)
        print(f"{name}: {made.train.n_tokens:,} tokens, held out {made.held_out.n_tokens:,}")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    if not (folder / "mixture.toml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        build(folder)
        (folder / "mixture.toml").write_text(RECIPE.format(processes=processes))
    sys.exit(main(["mixture", str(folder / "mixture.toml"), "-o", str(folder / "search")]))
