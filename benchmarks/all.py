"""Every comparison with another tool, one after the other, into one section of docs/benchmarks.md.

    python benchmarks/all.py [--only training laws …] [--quick] [--list] [--laws-data FOLDER]

Peers are installed by pip into build/peers/NAME, apart from what Isoflop is tested with; what
cannot be installed or run is said in its place and leaves the rest standing. The section says the
machine, the versions and the commands; what each script measures is said at its head. Best on an
otherwise idle machine: ratios are taken in turns in one run, seconds are not. Not for figures that
need hours, which docs/benchmarks.md quotes with their own commands.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from isoflop.core.artifact import write_atomic
from isoflop.core.hardware import machine, versions

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
QUIET = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
SECONDS_AT_MOST = 3600


@dataclass(frozen=True)
class Comparison:
    """One script and what it is compared with."""

    name: str
    title: str
    command: tuple[str, ...]
    """Arguments of the script; {corpus}, {tokenizer}, {model} and {laws} are put in."""
    quick: tuple[str, ...] = ()
    """What is added to see that it works, in a minute or two."""
    peers: tuple[str, ...] = ()
    """For `pip install --target --no-deps`."""
    threads: bool = False
    """It sets its own number of threads."""


COMPARISONS = (
    Comparison(
        "training", "Training beside transformers and LitGPT", ("training_speed.py",),
        ("--sizes", "0.2M", "--seconds", "3"), ("litgpt", "lightning-utilities"), threads=True,
    ),
    Comparison(
        "alignment", "Alignment beside TRL",
        ("alignment_speed.py", "--peer", "{peers}"),
        ("--stages", "sft", "--rounds", "1"),
        ("trl==1.16.0", "accelerate", "psutil", "datasets", "multiprocess", "dill", "xxhash"),
    ),
    Comparison(
        "duplicates", "Near duplicates beside datasketch and rensa",
        ("data_duplicates.py", "--peers"), ("--megabytes", "3", "1"), ("datasketch", "rensa"),
    ),
    Comparison(
        "filters", "Quality rules beside datatrove", ("data_clean.py", "--peer"), (),
        ("datatrove", "loguru", "humanize", "spacy"),
    ),
    Comparison(
        "tokenizer", "Tokenizers beside `tokenizers`", ("data_tokenizer.py", "{corpus}"),
        ("--rounds", "1", "--megabytes", "1", "--vocab-size", "1024"),
    ),
    Comparison(
        "evaluation", "Evaluation beside lm-eval's `hf`", ("evaluation_speed.py",),
        ("--items", "20", "--rounds", "1", "--shots", "0"),
        ("lm-eval", "evaluate", "sacrebleu", "rouge-score", "portalocker", "tabulate", "colorama",
         "word2number", "more-itertools", "sqlitedict", "dill", "multiprocess", "datasets",
         "nltk", "absl-py", "pytablewriter", "tcolorpy", "DataProperty", "mbstrdecoder", "typepy",
         "tabledata", "pathvalidate", "chardet", "scikit-learn", "joblib", "threadpoolctl",
         "xxhash", "tenacity", "jsonlines"),
    ),
    Comparison(
        "decoding", "Decoding beside transformers and llama.cpp",
        ("serving_speed.py", "--llama", "{llama}", "--tokenizer", "{tokenizer}"),
        ("--sizes", "10M", "--batches", "1", "--rounds", "1"), threads=True,
    ),
    Comparison(
        "laws", "Law fits beside scipy's loop over starts", ("laws_peers.py", "{laws}"),
        ("--starts", "40"),
    ),
)  # fmt: skip


def install(comparison: Comparison) -> Path:
    """The folder with the peers, installed once.

    Raises:
        OSError: pip cannot.
    """
    folder = BUILD / "peers" / comparison.name
    done = folder / ".installed"
    if comparison.peers and not done.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder)]
        told = subprocess.run(
            [*command, "--no-deps", "--disable-pip-version-check", *comparison.peers],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if told.returncode:
            raise OSError(told.stderr.strip().splitlines()[-1])
        done.write_text("\n".join(comparison.peers))
    return folder


def llama() -> str:
    """The folder of the npm package node-llama-cpp, which brings llama.cpp; empty without npm."""
    folder = BUILD / "peers" / "llama"
    package = folder / "node_modules" / "node-llama-cpp"
    if not package.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(
                ["npm", "install", "--silent", "--prefix", str(folder), "node-llama-cpp"],
                check=True, capture_output=True,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            return ""
    return str(package)


def prepared(quick: bool) -> dict[str, str]:
    """A corpus and its tokenizer, of what this Python's installation holds; made once."""
    folder = BUILD / "bench"
    recipe, corpus, tokenizer = (folder / name for name in ("data.toml", "corpus", "tokenizer"))
    folder.mkdir(parents=True, exist_ok=True)
    size = "1_000_000" if quick else "20_000_000"
    recipe.write_text(f'[[sources]]\nkind = "python"\nmax_bytes = {size}\n')
    made = [
        ["data", "build", str(recipe), "-o", str(corpus)],
        ["tokenizer", "train", str(corpus), "--vocab-size", "1024", "-o", str(tokenizer)],
    ]
    for command, out in zip(made, (corpus, tokenizer), strict=True):
        if not out.exists():
            subprocess.run([sys.executable, "-m", "isoflop", *command], check=True)
    return {"corpus": str(corpus), "tokenizer": str(tokenizer)}


def measure(comparison: Comparison, places: dict[str, str], quick: bool) -> str:
    """What a comparison printed, or why there is nothing, as Markdown."""
    peers = install(comparison)
    words = [word.format(**places, peers=peers) for word in comparison.command]
    pairs = zip(words, [*words[1:], "-"], strict=True)  # a flag whose value is empty goes with it
    kept = [word for word, after in pairs if word and not (word.startswith("--") and not after)]
    command = [*kept, *(comparison.quick if quick else ())]
    environment = {
        **os.environ, **({} if comparison.threads else QUIET),
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(peers)]).strip(":"),
    }  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / command[0]), *command[1:]],
        env=environment, capture_output=True, text=True, timeout=SECONDS_AT_MOST, check=False,
    )  # fmt: skip
    took = time.monotonic() - began
    shown = " ".join(word.replace(str(ROOT) + "/", "") for word in command)
    said = done.stdout.strip() or "\n".join(done.stderr.strip().splitlines()[-3:])
    if done.returncode:
        said = "\n".join(["could not be run:", *done.stderr.strip().splitlines()[-3:]])
    (BUILD / "bench" / f"{comparison.name}.txt").write_text(said + "\n")
    body = said if "|---" in said or "| ---" in said else f"```text\n{said}\n```"
    return f"`python benchmarks/{shown}` ({took:.0f} s)\n\n{body}"


def section(parts: dict[str, str]) -> str:
    """The section of the page between its marks."""
    here = machine()
    tools = ("torch", "transformers", "numpy", "scipy", "tokenizers")
    listed = ", ".join(f"{name} {version}" for name, version in versions(tools).items() if version)
    lines = [
        BEGIN, "", "## One run of all comparisons", "",
        "Written by `make bench`. Each table is one process, contestants in turns; ratios count,",
        "seconds are this machine's at that moment.", "",
        f"{time.strftime('%Y-%m-%d', time.gmtime())}; {here['cpu']}, {here['cores']} cores; "
        f"Python {sys.version.split()[0]}, {listed}.", "",
    ]  # fmt: skip
    for title, body in parts.items():
        lines += [f"### {title}", "", body, ""]
    return "\n".join([*lines, END])


def write_page(text: str) -> None:
    """Put the section into docs/benchmarks.md, in the place of the one before."""
    page = PAGE.read_text(encoding="utf-8")
    marked = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    found = marked.search(page)
    new = page[: found.start()] + text + page[found.end() :] if found else f"{page}\n{text}\n"
    write_atomic(PAGE, new)


def run_all(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """(title, Markdown) of each comparison asked for."""
    places = prepared(arguments.quick)
    places["laws"] = str(arguments.laws_data or "")
    chosen = [c for c in COMPARISONS if not arguments.only or c.name in arguments.only]
    places["llama"] = llama() if any(c.name == "decoding" for c in chosen) else ""
    for comparison in chosen:
        print(f"{comparison.title} …", file=sys.stderr, flush=True)
        try:
            yield comparison.title, measure(comparison, places, arguments.quick)
        except (OSError, subprocess.TimeoutExpired) as error:
            yield comparison.title, f"could not be run: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [comparison.name for comparison in COMPARISONS]
    parser.add_argument("--only", nargs="+", choices=names, default=[])
    parser.add_argument("--quick", action="store_true", help="see that they work; prints, no page")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--laws-data", type=Path)
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{c.name:<12} {c.title}" for c in COMPARISONS))
        return
    parts = dict(run_all(arguments))
    text = section(parts)
    print(text)
    if not arguments.quick and not arguments.only:
        write_page(text)
    failed = [title for title, body in parts.items() if "could not be run" in body]
    sys.exit(f"could not be run: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
