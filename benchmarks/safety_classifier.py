"""What the safety filter's classifier adds to its lists, on families of attacks it has never seen.

    python benchmarks/safety_classifier.py DIR [--threshold 0.5] [--json FILE]

For each family of attacks of `isoflop redteam` in turn, `isoflop data classifier` is trained on the
attacks and ordinary lines of the other families, and `isoflop redteam` asks the lines of this one,
once with the lists alone, once with the classifier alone and once with both. So each attack, and
each ordinary line that sounds like one, is judged by a classifier that saw nothing of its family;
each everyday question by one that saw nothing of its form. The counts are added up. All of the
classifiers also read paragraphs of the manual, as answers that are unlike what they were trained
on. DIR keeps the examples, the lines asked and the classifiers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isoflop.cli.main import main as isoflop
from isoflop.core.artifact import write_atomic
from isoflop.serving.redteam import LISTS, read_families, share
from isoflop.serving.risk import open_judge

WAYS = ("lists", "classifier", "lists and classifier")


def examples(lines: Iterable[tuple[str, bool]]) -> str:
    """Labelled JSONL."""
    rows = ({"text": text, "harmful": harmful} for text, harmful in lines)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def prepare(folder: Path) -> list[Path]:
    """Of each family a folder with what it is asked and what its classifier is trained on."""
    attacks = read_families(LISTS / "attacks.txt")
    benign = read_families(LISTS / "benign.txt")
    everyday = [name for name in benign if name not in attacks]
    made = []
    for place, family in enumerate(attacks):
        aside = {family, *everyday[place :: len(attacks)]}
        known = [(t, True) for name in attacks if name != family for t in attacks[name]]
        known += [(t, False) for name in benign if name not in aside for t in benign[name]]
        asked = [t for name in benign if name in aside for t in benign[name]]
        one = folder / family
        write_atomic(one / "train.jsonl", examples(known))
        write_atomic(one / "attacks.txt", "\n".join(attacks[family]) + "\n")
        write_atomic(one / "benign.txt", "\n".join(asked) + "\n")
        made.append(one)
    write_atomic(folder / "no_lists" / "none.txt", "a term that nobody writes\n")
    return made


def said(*words: object) -> dict[str, Any]:
    """The JSON of one command, whatever its verdict."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = isoflop([str(word) for word in words] + ["--json"])
    if code > 1:
        raise SystemExit(code)
    document: dict[str, Any] = json.loads(out.getvalue())
    return document


def measure(folder: Path, threshold: float) -> dict[str, Any]:
    """Train and ask; by way, what passed and what was refused."""
    found: dict[str, dict[str, Any]] = {way: {"families": {}} for way in WAYS}
    for one in prepare(folder):
        said("data", "classifier", one / "train.jsonl", "--label", "harmful", "-o", one / "model")
        judge = ("--safety-classifier", one / "model", "--safety-threshold", threshold)
        ways = ((), (*judge, "--safety-lists", folder / "no_lists"), judge)
        for way, more in zip(WAYS, ways, strict=True):
            asked = ("--attacks", one / "attacks.txt", "--benign", one / "benign.txt")
            found[way]["families"][one.name] = said("redteam", *asked, *more)
    for total in found.values():
        each = list(total["families"].values())
        for name in ("passed", "blocked"):
            counts = (sum(part[name][which] for part in each) for which in ("count", "of"))
            total[name] = vars(share(*counts))
        total["refused_lines"] = [line for part in each for line in part["blocked_lines"]]
        total["passed_requests"] = sorted({t for part in each for _, t in part["passed_lines"]})
    return found


def manual_found(folder: Path, threshold: float) -> tuple[int, int]:
    """How many paragraphs of the manual the classifiers find risky, and how many they read."""
    pages = sorted((Path(__file__).parents[1] / "docs").glob("t*.md"))
    paragraphs = [part for page in pages for part in page.read_text("utf-8").split("\n\n")]
    judges = [open_judge(model, threshold) for model in sorted(folder.glob("*/model"))]
    found = sum(judge.risk(part) > threshold for judge in judges for part in paragraphs)
    return found, len(judges) * len(paragraphs)


def words(one: Mapping[str, float]) -> str:
    """A share with its interval."""
    low, high = 100 * one["low"], 100 * one["high"]
    return f"{one['count']} of {one['of']}, {100 * one['value']:.1f} % ({low:.1f} to {high:.1f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = measure(arguments.folder, arguments.threshold)
    print(f"{'filter':<22}{'attacks that pass':<36}ordinary lines refused")
    for way, one in found.items():
        print(f"{way:<22}{words(one['passed']):<36}{words(one['blocked'])}")
    print("\nattacks that pass, by family never seen:")
    for family in found["lists"]["families"]:
        shares = (found[way]["families"][family]["passed"] for way in WAYS)
        text = "".join(f"{one['count']:>6} of {one['of']:<4}" for one in shares)
        print(f"{family:<22}{text}")
    for way in WAYS[::2]:
        print(f"\nordinary lines that {way} refuse:", *found[way]["refused_lines"], sep="\n  ")
    risky, read = manual_found(arguments.folder, arguments.threshold)
    print(f"\nparagraphs of the manual found risky: {risky} of {read}, {risky / read:.1%}")
    if arguments.json is not None:
        write_atomic(arguments.json, json.dumps(found, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
