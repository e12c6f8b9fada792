"""What has to be installed for alignment: bytes of Isoflop's packages and of TRL's, without torch.

    pip install --target DIR --no-deps trl==1.16.0 accelerate psutil
    python benchmarks/alignment_weight.py --peer DIR

Sums the sizes of the files of every package that one needs, by its metadata, extras left out, as
they are installed here; torch and what torch needs is the same for both and is left out.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distribution,
    packages_distributions,
)
from pathlib import Path

SHARED = "torch"


def needed(name: str, skip: frozenset[str] = frozenset()) -> dict[str, Distribution]:
    """A package and all it needs, by name; what is not installed is named on stderr."""
    found: dict[str, Distribution] = {}
    waiting = [name]
    while waiting:
        now = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if now in found or now in skip:
            continue
        try:
            found[now] = distribution(now)
        except PackageNotFoundError:
            print(f"{now} is not installed", file=sys.stderr)
            continue
        for line in found[now].requires or ():
            wanted, _, marker = line.partition(";")
            if "extra" in marker or "win32" in marker or "python_version <" in marker:
                continue
            waiting.append(re.split(r"[\s<>=!~\[(@]", wanted.strip())[0])
    return found


def size(package: Distribution) -> int:
    """Bytes of its files, without compiled caches."""
    paths = [Path(str(package.locate_file(file))) for file in package.files or ()]
    if not paths:  # an editable install: the sources
        return 0
    return sum(p.stat().st_size for p in paths if p.suffix != ".pyc" and p.is_file())


def loaded(skip: frozenset[str]) -> set[str]:
    """Packages that are imported with all of Isoflop's trainers of alignment."""
    before = set(sys.modules)
    for name in ("sft", "dpo_run", "reward_run", "policy_run", "iterate"):
        importlib.import_module(f"isoflop.alignment.{name}")
    homes = packages_distributions()
    roots = {module.partition(".")[0] for module in set(sys.modules) - before}
    names = {name.lower() for root in roots for name in homes.get(root, ())}
    return names - skip - {"isoflop"}


def main() -> None:
    """Print the two sums and their parts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", type=Path, required=True, help="folder that holds trl")
    options = parser.parse_args()
    sys.path.insert(0, str(options.peer))
    both = frozenset(needed(SHARED))
    sources = Path(__file__).resolve().parents[1] / "src"
    own = sum(p.stat().st_size for p in sources.rglob("*") if p.is_file() and p.suffix != ".pyc")
    print("| | MB without torch | largest parts |\n|---|---|---|")
    totals = {}
    for name in ("isoflop", "trl"):
        sizes = {each: size(found) for each, found in needed(name, both).items()}
        if name == "isoflop":
            sizes["isoflop"] = own
        totals[name] = sum(sizes.values())
        largest = sorted(sizes, key=lambda each: -sizes[each])[:6]
        parts = ", ".join(f"{each} {sizes[each] / 1e6:.1f}" for each in largest)
        print(f"| {name} | {totals[name] / 1e6:.1f} | {parts} |")
    used = loaded(both)
    sizes = {each: size(distribution(each)) for each in used} | {"isoflop": own}
    largest = sorted(sizes, key=lambda each: -sizes[each])[:6]
    parts = ", ".join(f"{each} {sizes[each] / 1e6:.1f}" for each in largest)
    print(f"| of isoflop, what its trainers load | {sum(sizes.values()) / 1e6:.1f} | {parts} |")
    print(f"\nTRL's is {totals['trl'] / totals['isoflop']:.1f} times Isoflop's.")


if __name__ == "__main__":
    main()
