"""Licences and known vulnerabilities of what is installed beside Isoflop; not of its own code.

`make audit` runs it in `.venv`. The licences are read from the installed packages and held against
`ALLOWED`; the vulnerabilities are asked for by pip-audit, of PyPI's advisories, for every pin of
constraints.txt. Exit status: 0 nothing found, 1 something was found, 2 the advisories could not be
asked for (then nothing is known about vulnerabilities, and that is said).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

ALLOWED = {
    "apache": "permissive, grants patents",
    "mit": "permissive",
    "bsd": "permissive",
    "isc": "permissive",
    "0bsd": "permissive",
    "zlib": "permissive",
    "psf": "permissive: the licence of Python",
    "python software foundation": "permissive: the licence of Python",
    "python-2.0": "permissive: the licence of Python",
    "cnri-python": "permissive: the licence of Python",
    "hpnd": "permissive",
    "mit-cmu": "permissive",
    "unlicense": "public domain",
    "public domain": "no rights reserved",
    "cc0": "no rights reserved",
    "bsl-1.0": "permissive",
    "ofl": "of fonts, which are not changed",
    "mpl": "copyleft by file: its files are used as they are and not changed",
    "mozilla": "copyleft by file: its files are used as they are and not changed",
    "lgpl": "a library that is imported, not changed and not shipped in the package",
    "gpl-3.0-with-gcc-exception": "the runtime of a compiler, linked under its exception",
}
"""Part of a licence's name → why it may stand beside an Apache-2.0 package that imports it."""

KNOWN = {
    "docutils": "public domain, BSD and PSF; one file for Emacs is GPL and is not used",
    "opencc": "Apache-2.0 by its LICENSE file",
    "word2number": "MIT by its LICENSE file",
    "rouge-score": "Apache-2.0 by its repository",
    "torchao": "BSD-3-Clause by its LICENSE file",
    "nvidia-": "NVIDIA's proprietary runtime, redistributable; only beside a CUDA build of torch",
    "cuda-": "NVIDIA's proprietary runtime, redistributable; only beside a CUDA build of torch",
}
"""Packages (or beginnings of their names) whose metadata says too little, looked up by hand."""


def stated_licence(package: Distribution) -> str:
    """What the package's metadata says: the SPDX expression, else classifiers, else free text."""
    told = package.metadata
    if expression := told.get("License-Expression"):
        return expression
    classifiers = [
        each.split("::")[-1].strip()
        for each in told.get_all("Classifier", [])
        if each.startswith("License ::") and not each.endswith("OSI Approved")
    ]
    first_line = (told.get("License") or "").strip().split("\n")[0][:80]
    return " / ".join(classifiers) or first_line


def reason_for(name: str, licence: str) -> str | None:
    """Why this licence is fine, or None."""
    for known, why in KNOWN.items():
        if name.startswith(known):
            return why
    words = licence.lower()
    if "agpl" in words or "affero" in words:
        return None
    # Of a choice (`MIT OR GPL`) one is enough; of several that hold together (`AND`), each.
    choices = re.split(r"\bor\b", words)
    return next((why for choice in choices if (why := _all_allowed(choice))), None)


def _all_allowed(choice: str) -> str | None:
    reasons = []
    for part in re.split(r"\band\b|/", choice):
        found = next(
            (why for token, why in ALLOWED.items() if re.search(rf"\b{re.escape(token)}", part)),
            None,
        )
        if found is None:
            return None
        reasons.append(found)
    return "; ".join(dict.fromkeys(reasons)) or None


def pins() -> dict[str, str]:
    """Package → version of constraints.txt, names as PyPI writes them in addresses."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {normal(name): version.strip() for name, version in pairs}


def normal(name: str) -> str:
    """A package's name in its one spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def audit_licences() -> int:
    """Print packages by licence; how many of them are not allowed."""
    refused, by_licence = [], dict[str, list[str]]()
    for package in distributions():
        name = normal(package.metadata["Name"])
        if name == "isoflop":
            continue
        licence = stated_licence(package) or "not stated"
        if reason_for(name, licence) is None:
            refused.append(f"{name} {package.version}: {licence}")
        by_licence.setdefault(licence, []).append(name)
    for licence, names in sorted(by_licence.items(), key=lambda each: (-len(each[1]), each[0])):
        print(f"{len(names):>4}  {licence}: {', '.join(sorted(names)[:6])}", end="")
        print(" …" if len(names) > 6 else "")
    for line in sorted(refused):
        print(f"NOT ALLOWED  {line} (look it up and add it to tools/audit.py with the reason)")
    print(f"licences: {sum(map(len, by_licence.values()))} packages, {len(refused)} not allowed")
    return len(refused)


def asked(pinned: dict[str, str]) -> Iterator[tuple[str, dict[str, object]]]:
    """What pip-audit says of each pin."""
    wanted = "\n".join(f"{name}=={version}" for name, version in pinned.items())
    command = [sys.executable, "-m", "pip_audit", "-r", "/dev/stdin", "--no-deps", "--disable-pip"]
    done = subprocess.run(
        [*command, "--format", "json", "--progress-spinner", "off"],
        input=wanted, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not done.stdout.startswith("{"):
        last = done.stderr.strip().splitlines()[-1:] or ["no answer"]
        raise ConnectionError(last[0])
    for each in json.loads(done.stdout)["dependencies"]:
        yield each["name"], each


def audit_vulnerabilities() -> tuple[int, int]:
    """Print known vulnerabilities of the pins; how many, and how many pins nothing is known of."""
    pinned = pins()
    found, unknown = 0, []
    try:
        for name, told in asked(pinned):
            if "skip_reason" in told:
                unknown.append(name)
            for each in told.get("vulns", []):  # type: ignore[attr-defined]
                found += 1
                fixed = ", ".join(each["fix_versions"]) or "no version yet"
                print(
                    f"VULNERABLE  {name} {pinned.get(normal(name))}: {each['id']}; fixed in {fixed}"
                )
    except ConnectionError as error:
        print(f"the advisories could not be asked for: {error}", file=sys.stderr)
        return 0, len(pinned)
    print(f"vulnerabilities: {len(pinned) - len(unknown)} pins asked for, {found} found")
    if unknown:
        print(
            f"{len(unknown)} pins ({', '.join(unknown[:4])} …) have no answer from the advisories: "
            "nothing is known about their vulnerabilities. A mirror without PyPI's JSON pages does "
            "this; ask from a machine that reaches pypi.org",
            file=sys.stderr,
        )
    return found, len(unknown)


def main() -> int:
    """Both audits; the worse of their verdicts."""
    refused = audit_licences()
    found, unknown = audit_vulnerabilities()
    if refused or found:
        return 1
    return 2 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
