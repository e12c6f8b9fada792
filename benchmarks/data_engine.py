"""Time and memory of building a corpus and its shards on the engine.

    python benchmarks/data_engine.py [--megabytes 50] [--placement processes:2]
                                     [--clean] [--duplicates]
    python benchmarks/data_engine.py --memory [--clean] [--duplicates]

The first makes a folder of mixed text (the sources, docstrings and manuals of this Python
installation as text, HTML and JSONL.gz, and Chinese and English word problems) and builds it from
the folder to shards and a data card, by CPU time of all processes; `--clean` with spelling,
languages and the quality rules; `--duplicates` with near duplicates and decontamination too: of 200
made-up evaluation items every other one is planted in a document, the rest is held back. The
second builds short documents, 30 thousand and five times as many, in one process each, and divides
the growth of the peak of memory by the growth of the documents; hardly any is dropped on the way.
"""

from __future__ import annotations

import argparse
import gzip
import html
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from isoflop.core.process import peak_memory_bytes
from isoflop.data import corpus, shards, tokenizer
from isoflop.data.clean_recipe import CleanConfig, LanguageConfig, PIIConfig, QualityConfig
from isoflop.data.documents import Document
from isoflop.data.duplicates_recipe import DecontaminateConfig, DuplicatesConfig, EvaluationSet
from isoflop.data.recipe import DataRecipe, SourceConfig
from isoflop.data.sources import read_source
from isoflop.data.word_problems import word_problem
from isoflop.reporting import data_card

FAMILIES = ("gopher-repetition", "gopher-quality", "fineweb")
CLEAN = CleanConfig(
    language=LanguageConfig(identify=True),
    quality=QualityConfig(english=FAMILIES, chinese=FAMILIES),
    pii=PIIConfig(action="redact"),
)
NEAR = DuplicatesConfig(url=True, near=True)
GLUE = "the of and to that with from into over under after before through about between"
NOUNS = """house river morning paper window garden letter music winter bridge market teacher
    mountain kitchen village station engine picture summer doctor harbour island minister forest
    weather machine evening captain library soldier history question answer council painter
    railway hospital merchant harvest journey"""


def evaluation_items() -> list[str]:
    """Two hundred questions of made-up words, half of them Chinese characters."""
    draw = random.Random(0)
    found = []
    for number in range(200):
        if number % 4 < 2:
            letters = "bcdfghklmnprst"
            words = ["".join(draw.choices(letters + "aeiou", k=6)) for _ in range(25)]
            found.append(f"What is {' '.join(words)}?")
        else:
            found.append("".join(chr(draw.randrange(0x4E00, 0x6000)) for _ in range(30)) + "？")
    return found


def make_folder(folder: Path, n_bytes: int) -> None:
    """Three quarters of files and rows from the installation, one quarter of word problems."""
    folder.mkdir()
    size, number = 0, 0
    items = evaluation_items()
    with gzip.open(folder / "rows.jsonl.gz", "wt", encoding="utf-8", compresslevel=1) as rows:
        for item in read_source(SourceConfig("python"), 0):
            if not isinstance(item, Document):
                continue
            size, number = size + len(item.text.encode()), number + 1
            text = item.text
            if number % 7 == 0 and number // 7 < len(items) // 2:
                text += f"\n{items[2 * (number // 7)]}\n"
            if number % 5 == 0:
                parts = "".join(f"<p>{html.escape(part)}</p>" for part in text.split("\n\n"))
                page = f"<html><body><article>{parts}</article></body></html>"
                (folder / f"{number}.html").write_text(page, "utf-8")
            elif number % 2:
                (folder / f"{number}.txt").write_text(text, "utf-8")
            else:
                rows.write(json.dumps({"text": text, "id": item.id}) + "\n")
            if size > 0.75 * n_bytes:
                break
        index = 0
        while size < n_bytes:
            # Forty problems a document, so that there is something to judge.
            text = "\n".join(word_problem(1, 80 * index + 2 * k + index % 2)[0] for k in range(40))
            rows.write(json.dumps({"text": text, "id": f"problems {index}"}) + "\n")
            size, index = size + len(text.encode()), index + 1


def cpu_seconds() -> float:
    """Of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def time_build(megabytes: float, placement: str, clean: bool, duplicates: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_folder(folder / "texts", int(megabytes * 1e6))
        recipe = DataRecipe(
            sources=(
                SourceConfig("text", path=folder / "texts"),
                SourceConfig("html", path=folder / "texts"),
                SourceConfig("jsonl", path=folder / "texts" / "rows.jsonl.gz"),
            ),
            clean=CLEAN if clean else CleanConfig(),
        )
        if duplicates:
            (folder / "quiz.txt").write_text("\n".join(evaluation_items()), "utf-8")
            tasks = (EvaluationSet(folder / "quiz.txt"),)
            recipe = replace(
                recipe, duplicates=NEAR, decontaminate=DecontaminateConfig(tasks, action="cut")
            )
        rows = []
        wall, cpu = time.perf_counter(), cpu_seconds()

        def lap(stage: str) -> None:
            nonlocal wall, cpu
            rows.append((stage, time.perf_counter() - wall, cpu_seconds() - cpu))
            wall, cpu = time.perf_counter(), cpu_seconds()

        built = corpus.build(recipe, folder / "corpus", placement=placement)
        lap("data build")
        tokenizer.train(built, 8192, folder / "tokenizer")
        lap("tokenizer train")
        shards.tokenize(built, folder / "tokenizer", folder / "shards", placement=placement)
        lap("tokenize")
        data_card.data_card(built.directory, None, folder / "tokenizer")
        lap("data card")
        found = built.funnel
        print(f"{found['in']['documents']:,} documents, {found['in']['bytes'] / 1e6:.1f} MB read;")
        print(f"{found['kept']['documents']:,}, {found['kept']['bytes'] / 1e6:.1f} MB kept")
        if duplicates:
            for report in ("duplicates", "contamination"):
                print(report, (built.directory / f"{report}.json").read_text("utf-8")[:400])
        print(f"{'':<16} {'wall s':>7} {'CPU s':>7} {'MB / CPU s':>11}")
        rows.append(("all", sum(r[1] for r in rows), sum(r[2] for r in rows)))
        for stage, seconds, used in rows:
            print(f"{stage:<16} {seconds:>7.1f} {used:>7.1f} {megabytes / used:>11.2f}")
        print(f"load {os.getloadavg()[0]:.1f}; half the CPU time: {rows[-1][2] / 2:.1f} s")


def short_text(draw: random.Random) -> str:
    """Six lines of English words at random, which the quality rules let pass."""
    lines, glue, nouns = [], GLUE.split(), NOUNS.split()
    for _ in range(6):
        words = [f"{draw.choice(glue)} {draw.choice(nouns)}" for _ in range(5)]
        lines.append(f"{' '.join(words).capitalize()}.")
    return "\n".join(lines)


def measure_memory(documents: int, clean: bool, duplicates: bool) -> None:
    """Build in this process and print the documents and the peak."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw = random.Random(0)
        with open(folder / "rows.jsonl", "w", encoding="utf-8") as rows:
            for _ in range(documents):
                rows.write(json.dumps({"text": short_text(draw)}) + "\n")
        recipe = DataRecipe(
            (SourceConfig("jsonl", path=folder / "rows.jsonl"),),
            clean=CLEAN if clean else CleanConfig(),
            duplicates=NEAR if duplicates else DuplicatesConfig(),
        )
        kept = corpus.build(recipe, folder / "corpus").funnel["kept"]["documents"]
    print(json.dumps({"documents": documents, "kept": kept, "peak": peak_memory_bytes()}))


def memory_per_document(clean: bool, duplicates: bool) -> None:
    found = []
    for documents in (30_000, 150_000):
        command = [sys.executable, __file__, "--memory-of", str(documents)]
        command += ["--clean"] * clean + ["--duplicates"] * duplicates
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
        kept, peak = found[-1]["kept"], found[-1]["peak"]
        print(f"{documents:>9,} documents, {kept:,} kept: peak {peak / 1e6:,.0f} MB", flush=True)
    (few, many) = found
    growth = (many["peak"] - few["peak"]) / (many["documents"] - few["documents"])
    print(f"{growth:,.0f} bytes a document and {few['peak'] / 1e6:,.0f} MB fixed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=50.0)
    parser.add_argument("--placement", default="processes:2")
    parser.add_argument("--clean", action="store_true")
    parser.add_argument("--duplicates", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--memory-of", type=int)
    arguments = parser.parse_args()
    if arguments.memory_of:
        measure_memory(arguments.memory_of, arguments.clean, arguments.duplicates)
    elif arguments.memory:
        memory_per_document(arguments.clean, arguments.duplicates)
    else:
        time_build(arguments.megabytes, arguments.placement, arguments.clean, arguments.duplicates)


if __name__ == "__main__":
    main()
