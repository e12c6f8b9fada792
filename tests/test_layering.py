"""Imports run downwards only, and nothing heavy is imported before there is work for it."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import isoflop.core
import isoflop.laws

ROOT = Path(__file__).resolve().parents[1]


def run_python(code: str, *args: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def modules_of(package: object) -> list[str]:
    """The names of a package's modules."""
    name, path = package.__name__, package.__path__  # type: ignore[attr-defined]
    return [f"{name}.{module.name}" for module in pkgutil.iter_modules(path)]


def lint_imports(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter in a folder that the interpreter then finds packages in."""
    command = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [command, "--config", config, "--no-cache"],
        cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_layers_hold() -> None:
    done = lint_imports(ROOT, ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contract_would_notice_an_import_upwards(tmp_path: Path) -> None:
    # The project's own contracts, on a package whose laws reach into training.
    contracts = (ROOT / "pyproject.toml").read_text().split("[tool.importlinter]")[1]
    (tmp_path / "pyproject.toml").write_text(
        "[tool.importlinter]" + contracts.replace("isoflop", "upsidedown")
    )
    for name in (
        "cli", "alignment", "compression", "evaluation", "planning", "reporting", "serving",
        "training", "models", "data", "laws", "core",
    ):  # fmt: skip
        folder = tmp_path / "upsidedown" / name
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    (tmp_path / "upsidedown" / "__init__.py").touch()
    (tmp_path / "upsidedown" / "demo.py").touch()
    assert lint_imports(tmp_path, tmp_path / "pyproject.toml").returncode == 0
    (tmp_path / "upsidedown" / "laws" / "fit.py").write_text("import upsidedown.training\n")
    broken = lint_imports(tmp_path, tmp_path / "pyproject.toml")
    assert broken.returncode == 1
    assert "laws know nothing of training" in broken.stdout


def test_every_package_has_its_place_in_the_layers() -> None:
    contracts = (ROOT / "pyproject.toml").read_text().split("[tool.importlinter]")[1]
    rooms = {
        path.stem
        for path in (ROOT / "src" / "isoflop").iterdir()
        if (path / "__init__.py").exists() or path.suffix == ".py"
    }
    # These stand above all layers: the entry points, and what is imported lazily by `isoflop`.
    placed = {room for room in rooms if f"isoflop.{room}" in contracts}
    assert rooms - placed == {"__init__", "__main__", "loading", "version"}


def test_importing_isoflop_imports_nothing_but_itself_and_the_standard_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import isoflop; "
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}; "
        "print(sorted(new - {'isoflop'} - set(sys.stdlib_module_names)))"
    )
    assert run_python(code) == "[]"


@pytest.mark.parametrize("package", [isoflop.core, isoflop.laws], ids=["core", "laws"])
def test_all_of_it_can_be_imported_without_torch(package: object) -> None:
    names = modules_of(package)
    assert len(names) > 5
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print('torch' in sys.modules)"
    )
    assert run_python(code, *names) == "False"
